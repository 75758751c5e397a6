"""What a model may be told beside a caption: when things touch, and which sound is given."""

import pytest
import torch

from syncflow.clip import ClipSpec
from syncflow.config import AdaptorConfig, AudioTowerConfig, DDiTConfig, VideoTowerConfig
from syncflow.models.ddit import DDiT
from syncflow.models.text.encoder import TextEncoder
from syncflow.models.video_embeddings import EventEmbedder

SPEC = ClipSpec(seconds=1.0, height=32, width=32)
NAN = float("nan")


def model(event_bins: int = 4) -> DDiT:
    torch.manual_seed(0)
    video = VideoTowerConfig(
        hidden_size=32, depth=2, num_heads=2, in_channels=3, caption_channels=12,
        model_max_length=6,
    )  # fmt: skip
    audio = AudioTowerConfig(hidden_size=24, num_heads=2, in_channels=5, condition="both")
    config = DDiTConfig(
        video=video, adaptor=AdaptorConfig(num_heads=4), audio=audio, event_bins=event_bins
    )
    ddit = DDiT(config)
    with torch.no_grad():
        for p in ddit.parameters():
            p.copy_(torch.randn_like(p) * (0.5 if p.ndim < 2 else p[0].numel() ** -0.5))
    return ddit


def batch(size: int = 2) -> dict:
    g = torch.Generator().manual_seed(5)
    return dict(
        video_x_t=torch.randn(size, 3, *SPEC.video_latent_shape, generator=g),
        audio_x_t=torch.randn(size, SPEC.audio_latent_length, 5, generator=g),
        t_video=torch.rand(size, generator=g), t_audio=torch.rand(size, generator=g),
        text=torch.randn(size, 5, 12, generator=g),
        text_mask=torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]][:size], dtype=torch.bool),
        spec=SPEC,
    )  # fmt: skip


def test_events_reach_both_towers_and_each_time_counts():
    ddit, given = model(), batch()
    plain = ddit(**given)
    at = torch.tensor([[0.4, 0.8], [0.4, NAN]])
    told = ddit(**given, events=at)
    later = ddit(**given, events=at + torch.tensor([[0.0, 0.003], [0.0, 0.0]]))
    for without, with_them, moved in zip(plain, told, later, strict=True):
        assert (without - with_them).flatten(1).abs().amax(1).min() > 1e-3
        # Told in seconds, not milliseconds, they make one of less than 1e-4.
        difference = (moved[0] - with_them[0]).abs().max()
        assert difference > 2e-3, "three milliseconds must make a difference"
        torch.testing.assert_close(moved[1], with_them[1])


def test_nothing_said_is_the_same_as_no_events_and_their_order_does_not_count():
    ddit, given = model(), batch()
    nothing = ddit(**given, events=torch.full((2, 3), NAN))
    for ours, plain in zip(nothing, ddit(**given), strict=True):
        torch.testing.assert_close(ours, plain)
    ways = [[0.1, 0.5, NAN], [NAN, 0.5, 0.1]]
    one, other = (ddit(**given, events=torch.tensor([way, way])) for way in ways)
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_model_without_bins_refuses_times_and_has_no_weights_for_them():
    with pytest.raises(ValueError, match="this model takes none"):
        model(0)(**batch(), events=torch.zeros(2, 1))
    assert not [name for name in model(0).state_dict() if name.startswith("event")]
    assert [name for name in model().state_dict() if name.startswith("event_embedder.")]


def test_a_fresh_embedder_is_silent():
    embedder = EventEmbedder(4, 6)
    assert not embedder(torch.tensor([[0.4, NAN]]), SPEC).any()


def test_each_latent_frame_is_told_of_its_own_time_and_of_its_neighbours():
    embedder = EventEmbedder(4, 13)
    with torch.no_grad():
        embedder.linear.weight.copy_(torch.eye(13))
    span = SPEC.seconds_per_latent_frame
    # In frame 1, a quarter of the way from the middle of its bin 2 to that of its bin 3.
    at = span * (1 + (2.5 + 0.25) / 4)
    told = embedder(torch.tensor([[at, NAN], [NAN, NAN]]), SPEC)
    assert not told[1].any()
    assert told[0, :, -1].tolist() == [1] * SPEC.video_latent_shape[0]
    expected = torch.zeros(SPEC.video_latent_shape[0], 12)
    for frame, first in ((0, 8), (1, 4), (2, 0)):
        expected[frame, first + 2], expected[frame, first + 3] = 0.75, 0.25
    torch.testing.assert_close(told[0, :, :-1], expected, rtol=0, atol=1e-5)


def test_two_contacts_count_twice():
    embedder = EventEmbedder(4, 6)
    torch.nn.init.normal_(embedder.linear.weight)
    one, other, both, none = embedder(
        torch.tensor([[0.2, NAN], [0.7, NAN], [0.2, 0.7], [NAN, NAN]]), SPEC
    )
    said = embedder.linear.weight[:, -1]
    torch.testing.assert_close(both, one + other - said)
    assert not none.any()


def test_given_sound_is_told_to_the_audio_tower_alone():
    ddit, given = model(), batch()
    video, audio = ddit(**given)
    mask = torch.ones(2, SPEC.audio_latent_length, dtype=torch.bool)
    again = ddit(**given, latent_mask=mask)
    torch.testing.assert_close(again, (video, audio))
    mask[0, :10] = False
    masked_video, masked_audio = ddit(**given, latent_mask=mask)
    torch.testing.assert_close(masked_video, video)
    assert (masked_audio[0, 10:] - audio[0, 10:]).abs().max() > 1e-3
    torch.testing.assert_close(masked_audio[1], audio[1])


def test_a_latent_that_is_given_does_not_depend_on_the_flow_time_but_through_the_context():
    """With all latents given only the time token and the last modulation know the flow time."""
    ddit, given = model(), batch()
    tower = ddit.audio_tower
    seen = []
    hook = tower.layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    mask = torch.zeros(2, SPEC.audio_latent_length, dtype=torch.bool)
    for time in (0.1, 0.7):
        ddit(**{**given, "t_audio": torch.full((2,), time)}, latent_mask=mask)
    hook.remove()
    torch.testing.assert_close(seen[0], seen[1])


def test_case_makes_no_difference_where_bytes_are_casefolded():
    from syncflow.config import BytesTextConfig

    sizes = dict(
        max_length=64, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2,
        pool="word",
    )  # fmt: skip
    for casefold in (True, False):
        torch.manual_seed(0)
        encoder = TextEncoder(BytesTextConfig(**sizes, casefold=casefold)).eval()
        loud, _ = encoder.encode(["A RED Ball"])
        quiet, _ = encoder.encode(["a red ball"])
        assert torch.equal(loud, quiet) == casefold
