"""The whole model: one-way coupling, reusable contexts, gradients, ablations."""

import pytest
import torch

from syncflow.clip import ClipSpec
from syncflow.config import AdaptorConfig, AudioTowerConfig, DDiTConfig, VideoTowerConfig
from syncflow.models.ddit import DDiT
from syncflow.models.text import tokens

SPEC = ClipSpec(seconds=1.0, height=32, width=32)  # T 4, latents 4x4, S 4, A 50
VIDEO = dict(
    hidden_size=32, depth=2, num_heads=2, in_channels=3, caption_channels=12, model_max_length=6
)


def untrained(axis: str = "full", seed: int = 0, **audio) -> DDiT:
    """A small model as training starts with it; the towers differ in width."""
    torch.manual_seed(seed)
    audio = {"hidden_size": 24, "num_heads": 2, "in_channels": 5, **audio}
    return DDiT(
        DDiTConfig(
            video=VideoTowerConfig(**VIDEO),
            adaptor=AdaptorConfig(axis=axis, num_heads=4),
            audio=AudioTowerConfig(**audio),
        )
    )


def model(axis: str = "full", seed: int = 0, **audio) -> DDiT:
    """The same in which nothing is silent."""
    ddit = untrained(axis, seed, **audio)
    with torch.no_grad():
        for p in ddit.parameters():
            p.copy_(torch.randn_like(p) * (0.5 if p.ndim < 2 else p[0].numel() ** -0.5))
    return ddit


def batch(size: int = 2, draws: int = 1, spec: ClipSpec = SPEC) -> dict:
    g = torch.Generator().manual_seed(5)
    return dict(
        video_x_t=torch.randn(size, 3, *spec.video_latent_shape, generator=g),
        audio_x_t=torch.randn(size * draws, spec.audio_latent_length, 5, generator=g),
        t_video=torch.rand(size, generator=g),
        t_audio=torch.rand(size * draws, generator=g),
        text=torch.randn(size, 5, 12, generator=g),
        text_mask=torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]][:size], dtype=torch.bool),
        spec=spec,
    )


VARIANTS = [
    dict(),
    dict(axis="temporal"),
    dict(axis="none"),
    dict(axis="none", hidden_size=32),
    dict(condition="text"),
    dict(condition="both"),
    dict(align="none"),
    dict(condition="both", upsampler_patches=4, upsampler_width=16),
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_every_parameter_learns_and_shapes_hold(variant: dict) -> None:
    ddit = model(**variant)
    inputs = batch()
    drop = torch.tensor([False, True])
    null = ddit.video_tower.null_text(*inputs["text"].shape[:2])
    inputs["text"], inputs["text_mask"] = tokens.replace(
        inputs["text"], inputs["text_mask"], *null, drop
    )
    v_video, v_audio = ddit(**inputs)
    assert v_video.shape == inputs["video_x_t"].shape and v_video.dtype == torch.float32
    assert v_audio.shape == inputs["audio_x_t"].shape and v_audio.dtype == torch.float32
    (v_video.square().sum() + v_audio.square().sum()).backward()
    silent = [n for n, p in ddit.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_video_never_reads_audio(variant: dict) -> None:
    ddit, inputs = model(**variant), batch()
    with torch.no_grad():
        before = ddit(**inputs)[0]
        inputs["audio_x_t"] = inputs["audio_x_t"] * 7
        inputs["t_audio"] = 1 - inputs["t_audio"]
        assert torch.equal(ddit(**inputs)[0], before)


def test_audio_reads_video_unless_conditioned_on_text_alone() -> None:
    for condition, reads in (("video", True), ("both", True), ("text", False)):
        ddit, inputs = model(condition=condition), batch()
        with torch.no_grad():
            before = ddit(**inputs)[1]
            inputs["video_x_t"] = inputs["video_x_t"].flip(2)
            assert torch.equal(ddit(**inputs)[1], before) is not reads


@pytest.mark.parametrize("condition", ["video", "text", "both"])
def test_padding_of_the_caption_is_not_read(condition: str) -> None:
    ddit, inputs = model(condition=condition), batch()
    with torch.no_grad():
        before = ddit(**inputs)
        inputs["text"][0, 3:] = 50.0
        after = ddit(**inputs)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_draws_share_a_video_pass(variant: dict) -> None:
    """K draws on one context equal K separate calls."""
    ddit, inputs = model(**variant), batch(draws=3)
    with torch.no_grad():
        together = ddit(**inputs)[1]
        for k in range(3):
            one = {
                **inputs,
                "audio_x_t": inputs["audio_x_t"][k::3],
                "t_audio": inputs["t_audio"][k::3],
            }
            torch.testing.assert_close(ddit(**one)[1], together[k::3], rtol=1e-4, atol=1e-4)


def test_samples_of_a_batch_do_not_mix() -> None:
    ddit, inputs = model(condition="both", upsampler_patches=4, upsampler_width=16), batch()
    first = {k: v if k == "spec" else v[:1] for k, v in inputs.items()}
    with torch.no_grad():
        for alone, both in zip(ddit(**first), ddit(**inputs), strict=True):
            torch.testing.assert_close(alone, both[:1], rtol=1e-4, atol=1e-4)


def test_state_dict_round_trip_and_bfloat16() -> None:
    ddit, other, inputs = model(condition="both"), model(condition="both", seed=1), batch()
    other.load_state_dict(ddit.state_dict())
    with torch.no_grad():
        reference = ddit(**inputs)
        assert torch.equal(other(**inputs)[1], reference[1])
        with torch.autocast("cpu", torch.bfloat16):
            autocast = ddit(**inputs)
        cast = other.bfloat16()(**inputs)
    for got in (autocast, cast):
        for a, b in zip(got, reference, strict=True):
            assert a.dtype == torch.float32
            assert (a - b).norm() / b.norm() < 0.05


def test_starts_as_zero_velocity() -> None:
    ddit = untrained(norm_init=0.3)
    with torch.no_grad():
        v_video, v_audio = ddit(**batch())
    assert v_video.abs().max() == 0 and v_audio.abs().max() == 0


def test_a_few_steps_of_training_reduce_both_losses() -> None:
    from syncflow import flow

    ddit = untrained(norm_init=0.3)
    inputs = batch()
    video, audio = inputs["video_x_t"] * 0.1 + 2, inputs["audio_x_t"] * 0.1 - 1
    optimizer = torch.optim.AdamW(ddit.parameters(), 3e-3)
    g = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(30):
        t = flow.sample_times(2, generator=g)
        noise_v = torch.randn(video.shape, generator=g)
        noise_a = torch.randn(audio.shape, generator=g)
        v_video, v_audio = ddit(
            **{
                **inputs,
                "video_x_t": flow.interpolate(noise_v, video, t),
                "audio_x_t": flow.interpolate(noise_a, audio, t),
                "t_video": t,
                "t_audio": t,
            }
        )
        parts = (
            flow.loss(v_video, flow.velocity(noise_v, video)).mean(),
            flow.loss(v_audio, flow.velocity(noise_a, audio)).mean(),
        )
        optimizer.zero_grad()
        sum(parts).backward()
        optimizer.step()
        losses.append([p.item() for p in parts])
    start, end = torch.tensor(losses[:5]).mean(0), torch.tensor(losses[-5:]).mean(0)
    assert (end < 0.7 * start).all(), (start, end)
