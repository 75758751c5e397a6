"""Shares of a stage's samples, recomputation, low-rank training, and what is told and exported."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from made import flow_config, write_latents
from safetensors.torch import load_file, save_file

from syncflow import durable
from syncflow.training import logging, recompute, runner, settings
from syncflow.training.distributed.groups import Group
from syncflow.training.distributed.stopwatch import PHASES
from syncflow.training.settings import TrainConfig
from syncflow.training.tasks import export, flops, randomness, timesteps
from syncflow.training.tasks.flow import FlowTraining
from syncflow.training.tasks.randomness import SampleGenerators


@pytest.fixture
def latents(tmp_path):
    return write_latents(tmp_path / "latents", 8)


def task(latents, train="both", loop=None, **changes):
    config = flow_config(latents, latents.parent / "run", train, loop, **changes)
    torch.manual_seed(0)
    return FlowTraining(TrainConfig.parse({"run": config}).run)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


SHAPE = (400, 2, 5, 4, 4)


def test_times_are_joint_as_in_the_paper_where_nothing_else_is_asked_for(latents):
    training = task(latents, "audio", clean_video=0, draws=3)
    when = timesteps.draw(training.config, SHAPE, generator())
    assert not when.clean_B.any()
    audio = timesteps.audio_times(training.config, when, generator())
    assert torch.equal(audio, when.video_B.repeat_interleave(3))


def test_shares_of_clean_and_decoupled_samples(latents):
    training = task(latents, clean_video=0.2, decoupled=0.5)
    when = timesteps.draw(training.config, SHAPE, generator())
    audio = timesteps.audio_times(training.config, when, generator(1))
    assert when.clean_B.float().mean() == pytest.approx(0.2, abs=0.06)
    assert (when.video_B[when.clean_B] == 1).all()
    apart = audio != when.joint_B
    assert torch.equal(apart, when.apart_B)
    assert apart.float().mean() == pytest.approx(0.6, abs=0.08)


def test_the_stage_decides_how_many_videos_are_clean(latents):
    assert task(latents, "video").config.clean_share == 0
    assert task(latents, "audio").config.clean_share == 1
    assert task(latents, "both").config.clean_share == 0.35
    assert task(latents, "audio", clean_video=0.5).config.clean_share == 0.5


def test_given_frames_are_data_and_carry_no_loss(latents):
    training = task(latents, conditioned=0.5, clean_video=0.25, clean_noise=0)
    when = timesteps.draw(training.config, SHAPE, generator())
    mask = when.frame_mask_BT
    some = ~mask.all(1)
    assert some.float().mean() == pytest.approx(0.5 * 0.75, abs=0.08)
    assert mask[some].any(1).all(), "a sample with every frame given has nothing to learn"
    assert not mask[some & mask[:, -1]][:, 0].any() and not mask[some & mask[:, 0]][:, -1].any()
    seen = {}
    real = training.module.video_velocity

    def video_velocity(x_t, t, condition, frame_mask=None):
        seen.update(x_t=x_t, mask=frame_mask)
        return real(x_t, t, condition, frame_mask)

    training.module.video_velocity = video_velocity
    training.config = training.config.model_copy(update={"conditioned": 1.0, "clean_video": 0.0})
    batch = training.batch(0)
    loss, _ = training.loss(batch, generator())
    given = ~seen["mask"]
    assert given.any() and torch.isfinite(loss)
    where = given[:, None, :, None, None].expand_as(batch["video"])
    assert torch.equal(seen["x_t"][where], batch["video"][where])


def test_draws_by_clip_do_not_depend_on_how_the_batch_is_shared():
    whole = SampleGenerators(3, range(8))
    parts = [SampleGenerators(3, range(first, first + 2)) for first in (0, 2, 4, 6)]
    for draw in (
        lambda source, n: randomness.uniform(n, source),
        lambda source, n: randomness.normal((2 * n, 3), source),
        lambda source, n: randomness.times(n, source, kind="logit_normal"),
    ):
        assert torch.equal(draw(whole, 8), torch.cat([draw(part, 2) for part in parts]))
    values = randomness.normal((8, 1000), SampleGenerators(4, range(8)))
    assert np.abs(np.corrcoef(values.numpy()) - np.eye(8)).max() < 0.15


def test_validation_is_scaled_as_training_is(latents, tmp_path):
    other = write_latents(tmp_path / "other", 4)
    manifest = durable.read_sealed(other / "manifest.json")
    manifest["statistics"]["video_mean"] = [5, 5]
    durable.write_sealed(other / "manifest.json", manifest)
    training = task(latents, validation=str(other))
    seen = training.validation[0].latents.batch(np.arange(2), np.random.default_rng(0))
    assert seen["video"].mean() > -1


def test_a_frozen_tower_sees_video_as_it_was_trained_and_the_sound_follows_the_data(
    latents, tmp_path
):
    """Statistics far from 0 and 1: a tower that was trained without them, as imported ones are,
    must not meet latents that the data's own have changed."""
    first = task(latents, "video")
    known = {"video_mean": [3.0, -2.0], "video_std": [5.0, 0.5],
             "audio_mean": [9.0] * 3, "audio_std": [9.0] * 3}  # fmt: skip
    weights = {k: v.contiguous() for k, v in first.module.state_dict().items()}
    (tmp_path / "tower").mkdir()
    save_file(weights, tmp_path / "tower" / "model.safetensors", {"statistics": json.dumps(known)})
    manifest = durable.read_sealed(latents / "manifest.json")
    manifest["statistics"] |= {"audio_mean": [1.0] * 3, "audio_std": [2.0] * 3,
                               "video_mean": [7.0] * 2, "video_std": [7.0] * 2}  # fmt: skip
    durable.write_sealed(latents / "manifest.json", manifest)
    rows, draw = np.arange(4), lambda: np.random.default_rng(0)
    plain = first.plan.buckets[0].latents.batch(rows, draw())  # statistics 0 and 1

    second = task(latents, "audio", init_video=str(tmp_path / "tower"))
    seen = second.plan.buckets[0].latents.batch(rows, draw())
    scale = [torch.tensor(known[f"video_{key}"])[:, None, None, None] for key in ("mean", "std")]
    torch.testing.assert_close(seen["video"], (plain["video"] - scale[0]) / scale[1])
    torch.testing.assert_close(seen["audio"], (plain["audio"] - 1) / 2)
    shown = second.validation[0].latents.batch(rows, draw())
    torch.testing.assert_close(shown["video"], seen["video"])
    said = json.loads(second.provenance["statistics"])
    assert said["video_std"] == known["video_std"] and said["audio_std"] == [2.0] * 3


@pytest.mark.parametrize("kind", ["blocks", "selective"])
@pytest.mark.parametrize("train", ["audio", "both"])
def test_recomputation_changes_nothing_but_what_is_kept(latents, train, kind):
    found = []
    for how in ("none", kind):
        training = task(latents, train)
        count = recompute.recompute(training.module, how)
        assert (count > 0) == (how != "none")
        loss, kept = counted_loss(training)
        loss.backward()
        grads = [p.grad for p in training.module.parameters() if p.grad is not None]
        found.append((loss, grads, kept, set(training.module.state_dict())))
    (loss, grads, kept, names), (loss2, grads2, kept2, names2) = found
    assert torch.equal(loss, loss2) and names == names2 and kept2 < 0.9 * kept
    for a, b in zip(grads, grads2, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", ["blocks", "selective"])
def test_recomputation_in_bf16_runs_the_same_operators_twice(latents, kind):
    # Stages train so: autocast keeps the weights it has cast, and the second pass must not differ.
    found = []
    for how in ("none", kind):
        training = task(latents, "both")
        recompute.recompute(training.module, how)
        batch = training.batch(0)
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = training.loss(batch, generator())
        loss.backward()
        found.append((loss, [p.grad for p in training.module.parameters() if p.grad is not None]))
    (loss, grads), (loss2, grads2) = found
    assert torch.equal(loss, loss2)
    for a, b in zip(grads, grads2, strict=True):
        torch.testing.assert_close(a, b)


def counted_loss(training):
    """The loss, and how many numbers were kept for the backward pass."""
    kept = []

    def keep(x):
        kept.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        loss, _ = training.loss(training.batch(0), generator())
    return loss, sum(kept)


def test_stage_2_keeps_nothing_of_the_video_tower(latents):
    training = task(latents, "audio")
    inside = []
    tower = training.module.video_tower
    hook = lambda *_: inside.append(torch.is_grad_enabled())  # noqa: E731
    tower.spatial_blocks[0].register_forward_hook(hook)
    training.loss(training.batch(0), generator())[0].backward()
    assert inside == [False] and all(p.grad is None for p in tower.parameters())


def test_low_rank_training_moves_one_tower_and_exports_merged(latents, tmp_path):
    pytest.importorskip("peft")
    base = flow_config(latents, tmp_path / "base", "both", {"steps": 2})
    (tmp_path / "base.json").write_text(json.dumps(base))
    runner.run(tmp_path / "base.json", progress=False)
    tuned = flow_config(
        latents,
        tmp_path / "tuned",
        "both",
        {"steps": 4},
        init=str(tmp_path / "base"),
        lora={"rank": 4, "alpha": 8, "towers": "audio"},
    )
    (tmp_path / "tuned.json").write_text(json.dumps(tuned))
    runner.run(tmp_path / "tuned.json", progress=False)
    before = load_file(tmp_path / "base" / "model.safetensors")
    after = load_file(tmp_path / "tuned" / "model.safetensors")
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all(name.startswith(("audio_tower.layers.", "adaptors.")) for name in moved)
    small = load_file(tmp_path / "tuned" / "lora.safetensors")
    assert sum(v.numel() for v in small.values()) < 0.2 * sum(v.numel() for v in before.values())
    # What was trained is what is exported: the merged module's output is the injected one's.
    injected = task(latents, lora={"rank": 4, "alpha": 8, "towers": "audio"})
    state = injected.module.state_dict()
    state |= small
    state |= {k: before[k.replace(".base_layer.", ".")] for k in state if ".lora_" not in k}
    injected.module.load_state_dict(state)
    merged = task(latents)
    merged.module.load_state_dict(after)
    values = [t.loss(t.batch(0), generator())[0] for t in (injected, merged)]
    torch.testing.assert_close(values[0], values[1], rtol=1e-4, atol=1e-5)
    module = export.load_part(tmp_path / "tuned")
    assert module.state_dict().keys() == before.keys()


def test_operations_of_a_sample_match_the_published_count():
    """performance.md's count of XL/2 with 300 text tokens: 6322 GFLOP forward."""
    config = runner.read(Path(__file__).parents[2] / "configs/stage2.json")
    from syncflow.clip import ClipSpec

    video, context, audio = flops._forward(config.model.model_dump_json(), ClipSpec(), 300)
    assert video == pytest.approx(4583e9, rel=0.02)
    assert video + context + audio == pytest.approx(6322e9, rel=0.02)
    one, four = (flops.training_flops(config.model, ClipSpec(), 300, "audio", k) for k in (1, 4))
    assert four - one == pytest.approx(9 * audio)


def test_losses_by_time_are_means_of_their_stretch():
    values = {"at": torch.tensor([[3.0, 0.0, 8.0], [2.0, 0.0, 4.0]]), "loss": torch.tensor(2.0)}
    assert logging.gathered(values, Group()) == {"at_0": 1.5, "at_2": 2.0, "loss": 2.0}


def test_every_part_of_a_step_is_timed(latents, tmp_path):
    config = flow_config(latents, tmp_path / "run", "both", {"log_every": 1, "peak_tflops": 0.1})
    (tmp_path / "run.json").write_text(json.dumps(config))
    runner.run(tmp_path / "run.json", progress=False)
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert {f"time/{phase}" for phase in PHASES} <= first.keys()
    assert first["samples_per_second"] > 0 and first["memory_gib"] > 0 and 0 < first["mfu"] < 1
    assert {"loss", "video", "audio", "grad_norm", "lr"} <= first.keys()
    assert any(name.startswith("audio_at_") for name in first)


def test_only_flow_tasks_have_draws_by_clip(tmp_path):
    loop = {"steps": 1, "batch_size": 1, "randomness": "sample"}
    config = {
        "task": "text", "out": str(tmp_path / "text"), "model": {"kind": "bytes"}, "levels": [1],
        "loop": loop,
    }  # fmt: skip
    (tmp_path / "text.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="randomness 'sample' is not for the task 'text'"):
        runner.run(tmp_path / "text.json", progress=False)
    assert settings.LoopConfig.parse(loop).randomness == "sample"
