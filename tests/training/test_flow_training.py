"""Stages of flow training on made-up latents: what learns, what stays, and that it can overfit."""

import numpy as np
import pytest
import torch
from made import MODEL, flow_config, write_latents
from safetensors.torch import load_file

from syncflow import durable
from syncflow.config import SamplingConfig
from syncflow.training.loop import fit
from syncflow.training.settings import TrainConfig
from syncflow.training.tasks import timesteps
from syncflow.training.tasks.flow import FlowTraining


@pytest.fixture
def latents(tmp_path):
    return write_latents(tmp_path / "latents")


def task(latents, tmp_path, train, steps=3, batch_size=4, **changes):
    loop = {"steps": steps, "batch_size": batch_size}
    config = flow_config(latents, tmp_path / train, train, loop, **changes)
    return TrainConfig.parse({"run": config}).run


@pytest.mark.parametrize(
    ("train", "moves"),
    [("video", {"video_tower"}), ("audio", {"adaptors", "audio_tower", "upsampler"}),
     ("both", {"video_tower", "adaptors", "audio_tower", "upsampler"})],
)  # fmt: skip
def test_a_stage_trains_its_part_and_leaves_the_rest_bit_identical(latents, tmp_path, train, moves):
    torch.manual_seed(0)
    config = task(latents, tmp_path, train)
    training = FlowTraining(config)
    before = {k: v.clone() for k, v in training.module.state_dict().items()}
    after = load_file(fit(training, config.loop, config.out, progress=False))
    moved = {k.split(".")[0] for k in before if not torch.equal(before[k], after[k])}
    assert moved == moves


def test_overfits_one_batch_in_both_towers(latents, tmp_path):
    torch.manual_seed(0)
    config = task(latents, tmp_path, "both", steps=1, text_dropout=0, clean_video=0.5)
    training = FlowTraining(config)
    batch = training.batch(0)
    optimizer = torch.optim.Adam(training.module.parameters(), 5e-3)
    losses = []
    for _ in range(250):  # the same batch, times and noise
        loss, parts = training.loss(batch, torch.Generator().manual_seed(3))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(parts)
    assert losses[-1]["video"] < 0.05 * losses[0]["video"]
    assert losses[-1]["audio"] < 0.05 * losses[0]["audio"]


def test_draws_share_one_video_pass(latents, tmp_path):
    config = task(latents, tmp_path, "audio", draws=3)
    training = FlowTraining(config)
    passes = []
    real = training.module.video_velocity
    training.module.video_velocity = lambda *a, **k: passes.append(len(a[0])) or real(*a, **k)
    loss, parts = training.loss(training.batch(0), torch.Generator().manual_seed(0))
    assert passes == [4] and torch.isfinite(loss) and set(parts) == {"audio", "audio_at"}


def test_validation_tells_the_standard_error_over_clips(latents, tmp_path, monkeypatch):
    training = FlowTraining(task(latents, tmp_path, "audio", draws=2))
    clips = len(training.validation[0].latents)
    means = torch.arange(float(clips))
    seen = []

    def picture(x_1, *_):
        if not seen or seen[-1] is not x_1:
            seen.append(x_1)
        return 2 * means[: len(x_1)], []

    def sound(y_1, *_):
        noise = torch.tensor([-1.0, 1.0]).repeat(len(y_1))  # of the two draws of a clip
        return means[: len(y_1)].repeat_interleave(2) + noise

    monkeypatch.setattr(training, "_picture", picture)
    monkeypatch.setattr(training, "_sound", sound)
    monkeypatch.setattr(training.module, "audio_context", lambda *_: None)
    found = training.validate(training.module)
    assert len(seen) == 1
    error = float(means.double().std() / clips**0.5)
    assert found["audio_clean"] == pytest.approx(float(means.mean()))
    assert found["audio_clean_se"] == pytest.approx(error)
    assert found["video_se"] == pytest.approx(2 * error)


@pytest.mark.parametrize("coupling", ["none", "ot", "c2ot"])
def test_validation_does_not_depend_on_the_size_of_a_pass(latents, tmp_path, coupling):
    """At XL/2 128 clips in one pass count 193 GiB; a pass takes what a pass of training does."""
    found = []
    for size in (4, 2):
        torch.manual_seed(0)
        options = {"draws": 2, "coupling": coupling}
        training = FlowTraining(task(latents, tmp_path, "audio", batch_size=size, **options))
        passes = []
        real = training.module.video_velocity

        def counted(*given, real=real, passes=passes):
            passes.append(len(given[0]))
            return real(*given)

        training.module.video_velocity = counted
        with torch.no_grad():
            for parameter in training.module.parameters():  # no layer is silent
                parameter.add_(0.05 * torch.randn(parameter.shape))
            found.append(training.validate(training.module))
        # Six passes a clip, the clean one shared by all times: not fifteen.
        assert passes == [size] * (6 * 4 // size)
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert found[0]["audio_clean"] != pytest.approx(found[0]["audio_other"], rel=1e-4)


@pytest.mark.parametrize(("world", "sequence"), [(2, 1), (3, 1), (4, 2)])
def test_every_clip_is_validated_once_by_as_many_passes_everywhere(
    latents, tmp_path, world, sequence
):
    from dataclasses import replace

    from syncflow.training.tasks import validation

    training = FlowTraining(task(latents, tmp_path, "audio", batch_size=12))
    for total in (1, 2, 10, 14, 128):
        seen, passes = [], set()
        for rank in range(world):
            training.group = replace(training.group, rank=rank, world=world, sequence=sequence)
            shares = validation._passes(training, total)
            passes.add(len(shares))
            if rank % sequence == 0:
                seen += [row for rows, counts in shares if counts for row in rows]
            assert all(len(rows) <= max(2, 12 * sequence // world) for rows, _ in shares)
        assert sorted(seen) == list(range(total)) and len(passes) == 1


@pytest.mark.parametrize("coupling", ["ot", "c2ot"])
def test_couplings_run(latents, tmp_path, coupling):
    config = task(latents, tmp_path, "both", coupling=coupling)
    loss, _ = FlowTraining(config).loss(
        FlowTraining(config).batch(0), torch.Generator().manual_seed(0)
    )
    assert torch.isfinite(loss)


def test_latents_of_another_encoder_are_refused(latents, tmp_path):
    import shutil

    other = tmp_path / "other"
    shutil.copytree(latents, other)
    manifest = durable.read_sealed(other / "manifest.json")
    manifest["encoders"] = {"video_vae": "y"}
    durable.write_sealed(other / "manifest.json", manifest)
    with pytest.raises(ValueError, match="other encoders"):
        FlowTraining(task(latents, tmp_path, "video", validation=str(other)))


def test_an_unknown_key_names_the_nearest(latents, tmp_path):
    with pytest.raises(ValueError, match=r"text_dropot.*text_dropout"):
        task(latents, tmp_path, "video", text_dropot=0.2)


def test_times_fall_where_the_config_says(latents, tmp_path):
    def mean(**changes):
        training = FlowTraining(task(latents, tmp_path, "video", **changes))
        source = torch.Generator().manual_seed(0)
        return timesteps.times(training.config, 4000, source).mean().item()

    assert mean() == pytest.approx(0.5, abs=0.02)
    assert mean(time_kind="uniform") == pytest.approx(0.5, abs=0.02)
    assert mean(time_mean=-1.0, uniform_share=0) < 0.35
    assert mean(time_shift=3.0) < 0.35
    narrow = FlowTraining(task(latents, tmp_path, "video", time_std=0.01, uniform_share=0))
    assert timesteps.times(narrow.config, 100, torch.Generator().manual_seed(0)).std() < 0.01
    with pytest.raises(ValueError, match="time_shift"):
        task(latents, tmp_path, "video", time_shift=0)


def test_clips_made_meanwhile_draw_their_noise_anew(latents, tmp_path):
    from syncflow.training.tasks import samples

    training = FlowTraining(task(latents, tmp_path, "both"))
    bucket = training.validation[0]
    batch = bucket.latents.batch(np.arange(2), np.random.default_rng(0))

    def sample(eta, start=0.0):
        sampling = SamplingConfig(
            steps=3, guidance=1.0, schedule="cascade", eta=eta, eta_start=start
        )
        return samples.sample(training.module, batch, bucket.spec, sampling)

    old, new, again = sample(0.0), sample(1.0), sample(1.0)
    assert all(map(torch.equal, new, again))
    assert not torch.equal(old[0], new[0])
    torch.testing.assert_close(sample(1.0, 0.9)[0], old[0])
    assert not torch.allclose(sample(1.0, 0.3)[0], old[0], atol=1e-3)
    assert not torch.allclose(sample(1.0, 0.3)[0], new[0], atol=1e-3)


def test_the_papers_loss_is_one_mean_over_all_numbers_of_both(latents, tmp_path):
    options = {"clean_video": 0, "text_dropout": 0}
    losses = {}
    for weighting in ("equal", "paper"):
        torch.manual_seed(0)
        training = FlowTraining(
            task(latents, tmp_path, "both", loss_weighting=weighting, **options)
        )
        batch = training.drawn(training.batch(0), torch.Generator().manual_seed(0))
        losses[weighting] = training.loss(batch, torch.Generator())
    total, parts = losses["paper"]
    numbers = [batch[kind][0].numel() for kind in ("video", "audio")]
    assert numbers[0] != numbers[1]
    both = numbers[0] * parts["video"] + numbers[1] * parts["audio"]
    assert total.item() == pytest.approx(both.item() / sum(numbers), rel=1e-6)
    total, parts = losses["equal"]
    assert total.item() == pytest.approx((parts["video"] + parts["audio"]).item(), rel=1e-6)
    with pytest.raises(ValueError, match='train "both"'):
        task(latents, tmp_path, "audio", loss_weighting="paper")


def test_the_papers_configs_have_its_counts():
    """32,768 and 12,800 numbers of a clip; the steps and batches of section 4."""
    from pathlib import Path

    from syncflow.clip import ClipSpec
    from syncflow.training import runner

    spec = ClipSpec()
    T, H, W = spec.video_latent_shape
    folder = Path(__file__).resolve().parents[2] / "configs" / "paper"
    said = {"stage2": (150_000, 512), "stage3": (20_000, 64), "greatest_hits": (25_000, 128)}
    for name, (steps, batch) in said.items():
        config = runner.read(folder / f"{name}.json")
        assert (config.loop.steps, config.loop.batch_size) == (steps, batch)
        assert (config.coupling, config.time_kind, config.text_dropout) == ("ot", "uniform", 0.1)
        assert config.clean_share == config.decoupled == config.conditioned == 0
        assert config.draws == 1
    config = runner.read(folder / "stage3.json")
    assert config.loss_weighting == "paper"
    assert config.model.video.in_channels * T * H * W == 32_768
    assert config.model.audio.in_channels * spec.audio_latent_length == 12_800


@pytest.mark.parametrize(
    ("tower", "key", "has"),
    [("video", "in_channels", 2), ("video", "caption_channels", 8), ("audio", "in_channels", 3)],
)
def test_a_model_that_does_not_fit_its_latents_is_refused(latents, tmp_path, tower, key, has):
    model = {**MODEL, tower: {**MODEL[tower], key: has + 1}}
    said = rf"model\.{tower}\.{key} is {has + 1}, but the latents of .* have {has} .*; set it to"
    with pytest.raises(ValueError, match=said):
        FlowTraining(task(latents, tmp_path, "both", model=model))
    if tower == "audio":  # the sound's sizes matter where it is trained
        FlowTraining(task(latents, tmp_path, "video", model=model))


def test_a_model_that_does_not_fit_its_latents_takes_no_memory(latents, tmp_path, monkeypatch):
    """``video: {}`` is XL/2's tower, of 5 GB."""
    monkeypatch.setattr("syncflow.training.tasks.flow.DDiT", lambda config: pytest.fail("built"))
    with pytest.raises(ValueError, match=r"model\.video\.in_channels is 4, but the latents"):
        FlowTraining(task(latents, tmp_path, "both", model={**MODEL, "video": {}}))
