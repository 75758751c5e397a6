"""What happens in the picture: a small probe that tells bounces, strikes, rolls, splashes and pairs
apart by how things look and move."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from syncflow.evaluation.probes import pictures, probe, wear

_FRAMES, _PIXELS = 16, 32
_CODE = (sys.modules[__name__], pictures, wear)


def features(video_F3HW: Tensor) -> Tensor:
    """The clip made small, and what in it is not always there: float16 [4, 16, 32, 32], colours
    and their distance from those of the still picture."""
    pictures.check(video_F3HW)
    clip_3FHW = video_F3HW.cpu().float().transpose(0, 1) / 255
    moving_1FHW = (clip_3FHW - clip_3FHW.median(dim=1, keepdim=True).values).abs().amax(0)[None]
    both_4FHW = torch.cat([clip_3FHW, moving_1FHW])
    return F.adaptive_avg_pool3d(both_4FHW, (_FRAMES, _PIXELS, _PIXELS)).half()


class KindNet(nn.Module):
    """Three convolutions over time and place, then the mean and the most of each channel."""

    def __init__(self, labels: int, width: int = 16) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv3d(4, width, 3, (1, 2, 2), 1),
            nn.BatchNorm3d(width),
            nn.ReLU(),
            nn.Conv3d(width, 2 * width, 3, 2, 1),
            nn.BatchNorm3d(2 * width),
            nn.ReLU(),
            nn.Conv3d(2 * width, 4 * width, 3, (2, 1, 1), 1),
            nn.BatchNorm3d(4 * width),
            nn.ReLU(),
        )
        self.head = nn.Linear(8 * width, labels)

    def forward(self, clip_B4FHW: Tensor) -> Tensor:
        """Features [B, 4, F, H, W] -> logits [B, labels]."""
        hidden_BCFHW = self.conv(clip_B4FHW.float())
        hidden_BCN = hidden_BCFHW.flatten(2)
        return self.head(torch.cat([hidden_BCN.mean(2), hidden_BCN.amax(2)], 1))


def _augment(clip_B4FHW: Tensor, generator: torch.Generator) -> Tensor:
    return pictures.in_other_light(clip_B4FHW, generator, 0.2)


def load(cache: str | Path | None, settings: probe.ProbeSettings) -> probe.Probe | None:
    """The probe, from folder ``cache`` or trained now, of the kinds in the settings' levels; None
    where all that happens there is of one kind. See :func:`materials.load`."""
    labels, seen = pictures.names("kind", settings.levels)
    if len(labels) == 1:
        return None
    name = f"kind-{probe.fingerprint(settings, _CODE, labels, seen)}"
    examples = partial(pictures.examples, features, "kind")
    return probe.learned(cache, name, labels, settings, KindNet, examples, _augment)


def predict(trained: probe.Probe, videos: Sequence[Tensor]) -> list[str]:
    """The likeliest kind of every ``uint8 [F,3,H,W]``."""
    return trained.predict([features(video) for video in videos])
