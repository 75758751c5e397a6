"""The audio tower and adaptor: clocks in seconds, time token, the aligned path."""

import pytest
import torch

from syncflow.clip import ClipSpec
from syncflow.config import AdaptorConfig, AudioTowerConfig
from syncflow.models.adaptor import Adaptor, TemporalUpsampler
from syncflow.models.audio_tower import AudioTower
from syncflow.models.layers import additive_mask, seconds_rotation
from syncflow.ops.rotation import rotate

SPEC = ClipSpec(seconds=1.0, height=32, width=32)


def tower(**config) -> AudioTower:
    torch.manual_seed(0)
    config = {"hidden_size": 16, "num_heads": 2, "in_channels": 3, **config}
    tower = AudioTower(AudioTowerConfig(**config), depth=2, text_width=8)
    torch.nn.init.normal_(tower.final_linear.weight)
    torch.nn.init.normal_(tower.final_modulation[1].weight, std=0.2)
    return tower


def test_scores_depend_on_the_difference_of_seconds_alone() -> None:
    g = torch.Generator().manual_seed(0)
    q, k = torch.randn(1, 1, 8, generator=g), torch.randn(1, 1, 8, generator=g)

    def score(at: float, key_at: float) -> float:
        clock = (8, 8.0, 1000.0, torch.float64)
        seconds = torch.tensor([at, key_at], dtype=torch.float64)[:, None]
        turned = [
            rotate(x.double(), seconds_rotation(s, *clock), False)
            for x, s in zip((q, k), seconds, strict=True)
        ]
        return (turned[0] * turned[1]).sum().item()

    assert score(0.3, 0.7) == pytest.approx(score(1.3, 1.7))
    assert score(0.5, 0.5) == pytest.approx((q * k).sum().item(), rel=1e-5)
    assert score(0.3, 0.7) != pytest.approx(score(0.3, 0.6), rel=1e-2)


def test_the_fastest_pair_turns_rope_frequency_times_a_second() -> None:
    seconds = torch.tensor([0.0, 1 / 32, 1 / 8])
    cos, sin = seconds_rotation(seconds, 8, 8.0, 1000.0, torch.float64)[:, 0].unbind(-1)
    assert cos.tolist() == pytest.approx([1, 0, 1], abs=1e-6)  # a quarter turn, a turn
    assert sin[1].item() == pytest.approx(1)


def test_sound_finds_the_frame_of_its_own_time() -> None:
    """Equal queries and keys: with the clock in seconds attention peaks at the audio's own time."""
    spec = ClipSpec()
    clock = (16, 2.0, 20.0, torch.float64)
    one = torch.ones(1, 1, 16, dtype=torch.float64)
    q = rotate(one.expand(100, 1, 16), seconds_rotation(spec.audio_latent_times(), *clock), False)
    k = rotate(one.expand(8, 1, 16), seconds_rotation(spec.video_latent_times(), *clock), False)
    found = spec.video_latent_times()[(q[:, 0] @ k[:, 0].T).argmax(-1)]
    inside = (spec.audio_latent_times() > 0.1) & (spec.audio_latent_times() < 1.84)
    away = (found - spec.audio_latent_times())[inside].abs().max()
    assert away <= spec.seconds_per_latent_frame / 2 + 1e-6


@pytest.mark.parametrize("align", ["rope", "none"])
def test_rope_is_what_tells_video_times_apart(align: str) -> None:
    """Without rotary keys a permutation of the latent frames changes nothing; with them it does."""
    audio = tower(align=align)
    g = torch.Generator().manual_seed(1)
    tokens = [torch.randn(1, 4, 16, generator=g) for _ in range(2)]
    x, t = torch.randn(1, 50, 3, generator=g), torch.tensor([0.4])
    with torch.no_grad():
        plain = audio(x, t, audio.context(tokens, SPEC))
        flipped = audio(x, t, audio.context([v.flip(1) for v in tokens], SPEC))
    assert torch.allclose(plain, flipped, atol=1e-5) is (align == "none")


def test_the_flow_time_is_a_token_of_the_context() -> None:
    """Its value counts, and with a key that drowns all others it is all that is read."""
    audio = tower()
    with torch.no_grad():
        context = audio.context([torch.randn(2, 4, 16) for _ in range(2)], SPEC)
    layer, x, t = audio.layers[0], torch.randn(2, 50, 16), torch.randn(2, 16)
    seen = []

    def read(module, inputs):
        seen.append(inputs)

    layer.cross_attn.register_forward_pre_hook(read)
    with torch.no_grad():
        layer(x, context.self_rotation_AP2, t, context.keys_values[0], None, None, None, None)
        queries, keys_values, *_, own = seen[0]
        value = own[1]
        drowned = (torch.zeros_like(own[0]), value)
        out = layer.cross_attn(queries, keys_values, torch.full((2, 4), -1e4), None, drowned)
    expected = layer.cross_attn.proj(value.transpose(1, 2).reshape(2, 1, 16)).expand_as(out)
    torch.testing.assert_close(out, expected)
    own_key = layer.cross_attn.kv_linear(t).chunk(2, -1)[0]
    torch.testing.assert_close(own[0].flatten(1), own_key)


def test_norm_follows_each_transformation() -> None:
    audio = tower(norm_init=0.25)
    layer = audio.layers[0]
    x, y = torch.randn(1, 5, 16), torch.randn(1, 5, 16) * 40 + 3
    added = layer.mlp_norm(x, y) - x
    assert added.std(-1, correction=0).mean().item() == pytest.approx(0.25, rel=1e-3)
    norms = [n for n, _ in layer.named_parameters() if n.endswith("norm.weight")]
    assert norms == ["self_norm.weight", "cross_norm.weight", "mlp_norm.weight"]


def test_mask_term_is_finite() -> None:
    term = additive_mask(torch.tensor([[True, False]]), torch.bfloat16)
    assert term.shape == (1, 2) and term.isfinite().all() and term[0, 0] == 0


@pytest.mark.parametrize(("axis", "tokens"), [("full", 12), ("temporal", 4), ("none", 12)])
def test_adaptor_shapes(axis: str, tokens: int) -> None:
    adaptor = Adaptor(AdaptorConfig(axis=axis, num_heads=2), 8, 6)
    assert adaptor(torch.randn(2, 4, 3, 8)).shape == (2, tokens, 6)


def test_adaptor_axes_attend_to_what_they_say() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, 3, 8, generator=g)
    changed = x.clone()
    changed[:, 3] += 1.0
    for axis, others_move in (("full", True), ("temporal", True), ("none", False)):
        adaptor = Adaptor(AdaptorConfig(axis=axis, num_heads=2), 8, 6)
        with torch.no_grad():
            moved = (adaptor(changed) - adaptor(x))[:, 0].abs().max() > 1e-6
        assert bool(moved) is others_move


def test_adaptor_refuses_heads_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match="width 8 .* num_heads 3"):
        Adaptor(AdaptorConfig(num_heads=3), 8, 8)


@pytest.mark.parametrize(
    ("seconds", "fps"), [(2.0, 16), (1.0, 16), (4.0, 16), (0.75, 16), (1.0, 24), (2.0, 8)]
)
def test_upsampler_is_aligned_and_fits_every_length(seconds: float, fps: float) -> None:
    """A change in one latent frame reaches the audio tokens around its time and no others."""
    spec = ClipSpec(seconds=seconds, fps=fps, height=32, width=32)
    torch.manual_seed(0)
    up = TemporalUpsampler(8, 4, 16, 6)
    T = spec.video_latent_shape[0]
    x = torch.randn(1, T, 4, 8)
    changed = x.clone()
    changed[:, T // 2] += 3.0
    with torch.no_grad():
        out = up(x, spec)
        assert out.shape == (1, spec.audio_latent_length, 6)
        moved = (up(changed, spec) - out).abs().amax((0, 2)) > 1e-6
    frame = spec.seconds_per_latent_frame
    distance = (spec.audio_latent_times() - (T // 2 + 0.5) * frame).abs()
    assert moved[distance < frame / 2 - 0.011].all()
    assert not moved[distance > 2.5 * frame + 0.03].any()


def test_upsampler_refuses_another_size() -> None:
    with pytest.raises(ValueError, match="made for 4 patches per frame, but 64x64 gives 16"):
        TemporalUpsampler(8, 4, 16, 6)(torch.randn(1, 8, 16, 8), ClipSpec(height=64, width=64))
