"""Samples that are told when things touch: who is told, what learns, and what is refused."""

from dataclasses import replace

import pytest
import torch
from made import MODEL, flow_config, run, write_latents
from safetensors.torch import load_file

from syncflow.data.latents import Latents
from syncflow.training.settings import RhythmsTask, TrainConfig
from syncflow.training.tasks.export import rhythms_of
from syncflow.training.tasks.flow import FlowTraining

TOLD = {"model": {**MODEL, "event_bins": 4}, "events": 0.5}


def task(latents, train="both", **changes):
    config = flow_config(latents, latents.parent / "run", train, **changes)
    torch.manual_seed(0)
    return FlowTraining(TrainConfig.parse({"run": config}).run)


@pytest.fixture
def latents(tmp_path):
    return write_latents(tmp_path / "latents", 8, told=True)


def drawn(training, seed=0):
    batch = training.batch(0)
    return batch, training.drawn(batch, torch.Generator().manual_seed(seed))["draws"]


def test_a_share_of_the_captions_is_told(latents):
    training = task(latents, text_dropout=0.3, **TOLD)
    found = [drawn(training, seed)[1] for seed in range(200)]
    told = torch.cat([each.tell_B for each in found])
    dropped = torch.cat([each.drop_B for each in found])
    assert not (told & dropped).any()
    assert told[~dropped].float().mean() == pytest.approx(0.5, abs=0.08)


def test_other_draws_stay_what_they_are(latents):
    _, without = drawn(task(latents))
    _, told = drawn(task(latents, **TOLD))
    assert without.tell_B is None and torch.equal(without.t_N, told.t_N)
    assert torch.equal(without.x_0, told.x_0) and torch.equal(without.y_0, told.y_0)


def test_times_change_the_velocity_of_who_is_told_alone(latents):
    training = task(latents, **TOLD)
    with torch.no_grad():
        for parameter in training.module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    batch, draws = drawn(training)
    tell = torch.tensor([True, False, True, False])
    draws = replace(draws, tell_B=tell)
    losses = []
    for events in (batch["events"], batch["events"] + 0.5):
        values = {**batch, "events": events}
        losses.append(training._losses(values, batch["text"], batch["mask"].bool(), draws))
    for kind in ("video", "audio"):
        assert torch.equal(losses[0][kind] != losses[1][kind], tell)


@pytest.mark.parametrize(("train", "learns"), [("video", True), ("audio", False), ("both", True)])
def test_times_are_learnt_with_the_picture(latents, train, learns):
    training = task(latents, train, **TOLD)
    with torch.no_grad():
        for parameter in training.module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    training.loss(training.batch(0), torch.Generator().manual_seed(1))[0].backward()
    grads = [p.grad for p in training.module.event_embedder.parameters()]
    assert all((g is not None and bool(g.any())) == learns for g in grads)


def test_a_model_that_was_told_nothing_goes_on_with_times(latents):
    folder = latents.parent
    run(flow_config(latents, folder / "first"), folder)
    run(flow_config(latents, folder / "second", init=str(folder / "first"), **TOLD), folder)
    names = [{k.split(".")[0] for k in load_file(folder / n / "model.safetensors")}
             for n in ("first", "second")]  # fmt: skip
    assert names[1] - names[0] == {"event_embedder"}


def test_another_runs_video_tower_brings_what_tells_it_of_times(latents):
    folder = latents.parent
    run(flow_config(latents, folder / "first", **TOLD), folder)
    run(flow_config(latents, folder / "other", text_dropout=0.5, **TOLD), folder)
    first, other = (load_file(folder / n / "model.safetensors") for n in ("first", "other"))
    assert not torch.equal(*[w["event_embedder.linear.weight"] for w in (first, other)])
    places = dict(init=str(folder / "other"), init_video=str(folder / "first"))
    module = task(latents, "audio", **TOLD, **places).module
    for name, value in module.state_dict().items():
        if name.startswith(("video_tower.", "event_embedder.")):
            assert torch.equal(value, first[name]), name


def test_what_cannot_be_told_is_one_line(latents, tmp_path):
    with pytest.raises(ValueError, match="events is 0.5, but model.event_bins is 0"):
        task(latents, events=0.5)
    with pytest.raises(ValueError, match="do not say when things touch in clip"):
        task(write_latents(tmp_path / "old"), **TOLD).batch(0)


def test_an_export_keeps_the_times_of_captions_of_one_sort(latents):
    kept = Latents(latents)
    captions = [str(kept.record(row)["caption"]) for row in range(len(kept))]
    for word, rows in ((captions[3].split()[-1], [3]), ("Caption", [0, 1, 2])):
        sort = {"latents": str(latents), "words": [word], "clips": 3}
        found = rhythms_of(RhythmsTask(**sort))
        assert found.words == [word] and found.times == [[0.25] * (1 + row % 2) for row in rows]
    with pytest.raises(ValueError, match=r"no caption in .* has one of \['nowhere'\]"):
        rhythms_of(RhythmsTask(**{**sort, "words": ["nowhere"]}))
