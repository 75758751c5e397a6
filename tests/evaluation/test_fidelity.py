"""How near a copy is: by hand on small cases."""

import math

import pytest
import torch

from syncflow.clip import Clip
from syncflow.detect import fidelity


def clip(level: int = 0) -> Clip:
    video = torch.zeros(8, 3, 16, 16, dtype=torch.uint8)
    video[4, :, 4:8, 4:8] = 200  # a thing that is there in one frame
    video[:, :, 0, 0] = level
    return Clip(video, torch.sin(torch.arange(8000) * 0.3) * 0.5, 8, 8000)


def test_psnr_is_that_of_the_definition():
    out, target = torch.zeros(1, 3, 2, 4, 4), torch.full((1, 3, 2, 4, 4), 0.2)
    assert fidelity.psnr(out, target) == pytest.approx(20, abs=1e-4)  # 0.2 of a range of 2
    assert fidelity.psnr(out * 255, target * 127.5, span=255.0) == pytest.approx(20, abs=1e-4)
    mask = torch.zeros(1, 1, 2, 4, 4)
    assert math.isnan(fidelity.psnr(out, target, mask))
    mask[..., 0, 0] = 1
    out[..., 0, 0] = 0.2
    assert fidelity.psnr(out, target, mask) == pytest.approx(120)


def test_moving_pixels_are_told_from_still_ones():
    still = fidelity.measure(clip(), clip(level=255))
    assert still["psnr_moving"] == pytest.approx(120) and still["psnr"] < 30
    assert still["spectral_db"] == 0
    unmoving = Clip(torch.zeros(8, 3, 16, 16, dtype=torch.uint8), torch.zeros(8000), 8, 8000)
    assert math.isnan(fidelity.measure(unmoving, clip())["psnr_moving"])


def test_spectral_distance_of_a_batch_is_the_mean_of_its_clips():
    sounds = torch.randn(3, 8000, generator=torch.Generator().manual_seed(0)) * 0.1
    other = sounds * torch.tensor([1.0, 0.5, 0.25])[:, None]
    each = [fidelity.spectral_distance(a, b) for a, b in zip(other, sounds, strict=True)]
    assert each[0] == 0 and each[1] == pytest.approx(6, abs=0.3)
    mean = fidelity.spectral_distance(other, sounds)
    assert mean == pytest.approx(sum(each) / 3, rel=1e-5)
