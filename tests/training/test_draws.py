"""What a pass draws: the same ahead as in the step, each draw paired by itself."""

import json
import threading
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made import flow_config, write_latents

from syncflow import flow
from syncflow.training import runner
from syncflow.training.batches import Batches
from syncflow.training.settings import TrainConfig
from syncflow.training.tasks import draws, randomness
from syncflow.training.tasks.flow import FlowTraining
from syncflow.training.tasks.randomness import SampleGenerators


@pytest.fixture
def latents(tmp_path):
    return write_latents(tmp_path / "latents", 12)


def task(latents, tmp_path, loop=None, **changes):
    options = {"coupling": "ot", "draws": 3, "decoupled": 0.3, "conditioned": 0.3, **changes}
    config = flow_config(
        latents, tmp_path / "run", options.pop("train", "audio"),
        {"batch_size": 6, "randomness": "sample", **(loop or {})}, **options,
    )  # fmt: skip
    return TrainConfig.parse({"run": config}).run


def test_each_draw_is_paired_by_itself(latents, tmp_path):
    """2048 clips as one problem took 1.7 s a step, four of 512 take 0.16."""
    training = FlowTraining(task(latents, tmp_path))
    batch = training.batch(0)
    found = training.drawn(batch, SampleGenerators(0, range(6)))["draws"]
    source = SampleGenerators(0, range(6))
    plain = draws.draw(
        training.config, batch, source, draws.Coupling(task(latents, tmp_path, coupling="none"),
                                                       training.group)
    )  # fmt: skip
    assert torch.equal(found.t_N, plain.t_N) and torch.equal(found.drop_B, plain.drop_B)
    order = flow.couple(plain.x_0, batch["video"], "ot")
    assert torch.equal(found.x_0, plain.x_0[order])
    for k in range(3):
        own = plain.y_0[k::3]
        order = flow.couple(own, batch["audio"], "ot")
        assert torch.equal(found.y_0[k::3], own[order])
    assert not torch.equal(found.y_0, plain.y_0) and found.seconds > 0


@pytest.mark.parametrize("coupling", ["none", "ot", "c2ot"])
@pytest.mark.parametrize("train", ["video", "audio", "both"])
def test_draws_made_ahead_give_the_loss_of_those_made_in_the_step(
    latents, tmp_path, coupling, train
):
    training = FlowTraining(task(latents, tmp_path, coupling=coupling, train=train))
    batch = training.batch(3)
    places = training.places(3)
    ahead = training.drawn(batch, SampleGenerators(0, places))
    unused = torch.Generator().manual_seed(99)
    loss, told = training.loss(ahead, unused)
    again, _ = training.loss(training.batch(3), SampleGenerators(0, places))
    assert torch.equal(loss, again)
    assert ("time/coupling" in told) == (coupling != "none")
    other, _ = training.loss(training.batch(3), SampleGenerators(1, places))
    assert not torch.equal(loss, other)


def test_the_step_does_not_wait_for_the_coupling(latents, tmp_path, monkeypatch):
    training = FlowTraining(task(latents, tmp_path))
    threads, real = [], flow.assign

    def slow(cost):
        threads.append(threading.current_thread())
        time.sleep(0.1)
        return real(cost)

    monkeypatch.setattr(flow, "assign", slow)
    with Batches(training, 2, lambda i: SampleGenerators(0, training.places(i))) as batches:
        batches.prepare(1)
        time.sleep(2.0)  # the step before
        begun = time.perf_counter()
        batch = batches.take(1)
        loss, _ = training.loss(batch, SampleGenerators(0, training.places(1)))
        waited = time.perf_counter() - begun
    assert len(threads) >= 4 and threading.main_thread() not in threads
    assert waited < 0.3 < batch["draws"].seconds + 0.1 and torch.isfinite(loss)


def test_a_run_with_batches_ahead_is_the_run_without_and_tells_of_the_coupling(latents, tmp_path):
    found = []
    for ahead in (0, 3):
        settings = {"steps": 5, "prefetch": ahead, "log_every": 1, "validate_every": 5}
        config = task(latents, tmp_path, settings, train="both")
        config = config.model_copy(update={"out": str(tmp_path / f"ahead{ahead}")})
        (tmp_path / "run.json").write_text(config.model_dump_json())
        runner.run(tmp_path / "run.json", progress=False)
        lines = (tmp_path / f"ahead{ahead}" / "metrics.jsonl").read_text().splitlines()
        told = [json.loads(line) for line in lines]
        assert all(line["time/coupling"] > 0 for line in told if "loss" in line)
        found.append([line[k] for line in told for k in ("loss", "val_audio_same") if k in line])
    assert len(found[0]) == 6 and found[0] == found[1]


def test_the_caption_that_is_dropped_is_one_class():
    text, mask = torch.randn(4, 3, 8), torch.ones(4, 3, dtype=torch.bool)
    dropped = torch.tensor([True, False, True, False])
    text[:2, 2], mask[:2, 2] = 50.0, False  # what pads a caption may be anything
    found = draws.captions(text, mask, dropped)
    assert torch.equal(found[0], found[2]) and not torch.equal(found[1], found[3])
    torch.testing.assert_close(found[1], text[1, :2].mean(0))
    torch.testing.assert_close(found[3], text[3].mean(0))
    text, mask = F.pad(text, (0, 0, 0, 4), value=-7.0), F.pad(mask, (0, 4))
    torch.testing.assert_close(draws.captions(text, mask, dropped), found)


def test_validation_noise_is_no_clips_of_a_run():
    from syncflow.training.tasks.validation import _generators

    ours = randomness.normal((2, 5), _generators(0, np.arange(2)))
    theirs = randomness.normal((2, 5), SampleGenerators(0, range(2)))
    assert not torch.equal(ours, theirs)
