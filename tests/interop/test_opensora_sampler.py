"""Open-Sora's clock and sampler: what the defects are, and that the default has none of them."""

import pytest
import torch

from syncflow import flow
from syncflow.config import VideoTowerConfig
from syncflow.interop import opensora_sampler as sampler
from syncflow.models.video_tower import VideoTower

COMPAT = "opensora-1.2"
SMALL = VideoTowerConfig(
    hidden_size=24, depth=1, num_heads=3, mlp_ratio=2.0, caption_channels=10, model_max_length=7
)


def make_tower(compat=None):
    torch.manual_seed(0)
    tower = VideoTower(SMALL.model_copy(update={"compat": compat})).eval()
    with torch.no_grad():
        for p in tower.parameters():
            p.copy_(torch.randn_like(p) * (0.5 if p.ndim < 2 else p[0].numel() ** -0.5))
    return tower


@pytest.mark.parametrize("frames", [2, 8, 16])
def test_the_original_loses_every_time_of_2_to_16_frames(frames):
    t = torch.tensor([100.0, 500.0, 999.0, 1000.0])
    theirs = sampler.timestep_transform(t, 256, 256, frames, COMPAT)
    assert theirs[:3].eq(0).all() and theirs[3].isnan()
    ours = sampler.timestep_transform(t, 256, 256, frames)
    assert ours.isfinite().all() and ours.diff().gt(0).all() and ours[-1] == pytest.approx(1000)
    with pytest.raises(ValueError, match=f"no times for {frames} frames"):
        sampler.times(4, (256, 256, frames), COMPAT)
    path = sampler.times(4, (256, 256, frames))
    assert path[0] == 0 and path[-1] == 1 and path.diff().gt(0).all()


def test_32_frames_are_8_latent_frames_and_not_5():
    t = torch.tensor([500.0])
    ours, theirs = (sampler.timestep_transform(t, 512, 512, 32, c) for c in (None, COMPAT))
    assert ours.item() == pytest.approx(1000 * 8**0.5 / (1 + 8**0.5), rel=1e-6)
    assert theirs.item() == pytest.approx(1000 * 5**0.5 / (1 + 5**0.5), rel=1e-6)


@pytest.mark.parametrize("frames", [1, 17])
def test_original_and_default_agree_on_one_frame_and_one_chunk(frames):
    t = torch.linspace(0, 1000, 9)
    pair = [sampler.timestep_transform(t, 144, 256, frames, c) for c in (None, COMPAT)]
    torch.testing.assert_close(*pair)


def test_times_are_the_transform_seen_from_the_other_end():
    path = sampler.times(5, (256, 256, 32))
    torch.testing.assert_close(path, flow.times(5, flow.resolution_shift(256, 256, 8)))


def test_only_compat_lets_the_prompts_length_into_the_null_caption():
    tower, g = make_tower(), torch.Generator().manual_seed(1)
    noise = torch.randn(1, 4, 2, 4, 4, generator=g)
    text = torch.randn(1, 7, 10, generator=g)
    size = dict(fps=16, height=32, width=32, path=sampler.times(2))
    results = {}
    for compat in (None, COMPAT):
        for length in (2, 5):
            mask = torch.arange(7)[None] < length
            # Without the prompt's branch what is left is the unguided one.
            results[compat, length] = sampler.sample(
                tower, noise, text, mask, guidance=0.0, compat=compat, **size
            )
    torch.testing.assert_close(results[None, 2], results[None, 5])
    assert (results[COMPAT, 2] - results[COMPAT, 5]).abs().max() > 1e-2


def test_compat_changes_the_output_of_clean_frames_alone():
    g = torch.Generator().manual_seed(2)
    x, t = torch.randn(2, 4, 3, 4, 4, generator=g), torch.tensor([0.2, 0.6])
    text, noisy = torch.randn(2, 3, 10, generator=g), torch.tensor([[0, 1, 1], [1, 1, 0]]).bool()
    size = dict(fps=16, height=32, width=32)
    with torch.no_grad():
        outs = [make_tower(c)(x, t, text, frame_mask=noisy, **size) for c in (None, COMPAT)]
        true = make_tower()(x, torch.ones(2), text, frame_mask=~noisy & noisy, **size)[0]
    (ours, features), (theirs, same) = outs
    torch.testing.assert_close(features, same)
    ours, theirs = ours.movedim(1, 2), theirs.movedim(1, 2)
    torch.testing.assert_close(ours[noisy], theirs[noisy])
    assert (ours[~noisy] - theirs[~noisy]).abs().min(-1).values.max() > 1e-2
    assert true.isfinite().all()
