"""Which colour the object has: a small probe on the colours of what moves, or, in worlds where the
object may stand still and something else moves, a network that learns where to look."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from syncflow.detect import tracking
from syncflow.detect.settings import TrackSettings
from syncflow.detect.tracking import foreground
from syncflow.evaluation.probes import pictures, probe, wear

_EDGES = 5
_MOMENTS = 4
_CODE = (sys.modules[__name__], pictures, wear, tracking)


def features(video_F3HW: Tensor, settings: TrackSettings | None = None) -> Tensor:
    """Histogram of the foreground's colours, [125 + 3]: shares of 5x5x5 RGB cells, then the mean.

    Pixels count by how surely they are the object, so borders and smears say little.
    """
    pictures.check(video_F3HW)
    pixels_F3HW = video_F3HW.cpu().float() / 255
    weight_FHW, _ = foreground(pixels_F3HW, settings or TrackSettings())
    inside = weight_FHW > 0.9
    if not inside.any():
        return torch.zeros(_EDGES**3 + 3)
    colours_N3 = pixels_F3HW.permute(0, 2, 3, 1)[inside]
    cell_N3 = (colours_N3 * _EDGES).long().clamp(max=_EDGES - 1)
    index_N = (cell_N3 * torch.tensor([_EDGES**2, _EDGES, 1])).sum(1)
    share = torch.bincount(index_N, minlength=_EDGES**3).float() / len(index_N)
    return torch.cat([share.sqrt(), colours_N3.mean(0)])


def moments(video_F3HW: Tensor) -> Tensor:
    """Four frames, evenly spread, of 64x64 pixels: uint8 [4, 3, 64, 64]."""
    pictures.check(video_F3HW)
    count = len(video_F3HW)
    chosen = [(2 * place + 1) * count // (2 * _MOMENTS) for place in range(_MOMENTS)]
    frames_N3HW = video_F3HW.cpu()[chosen]
    if frames_N3HW.shape[2:] == (64, 64):
        return frames_N3HW
    return F.interpolate(frames_N3HW.float(), (64, 64), mode="area").round().to(torch.uint8)


class LookNet(nn.Module):
    """Convolutions over each frame, of which a learned attention picks the places that tell."""

    def __init__(self, labels: int, width: int = 24) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(3, width, 5, 2, 2),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, 2, 1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, 1, 1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
        )
        self.score = nn.Conv2d(2 * width, 1, 1)
        self.head = nn.Linear(2 * width, labels)

    def forward(self, frames_BN3HW: Tensor) -> Tensor:
        """Frames in uint8 values [B, N, 3, H, W] -> logits [B, labels]."""
        batch, frames = frames_BN3HW.shape[:2]
        hidden_RCHW = self.conv(frames_BN3HW.flatten(0, 1).float() / 255)
        weight_BP = self.score(hidden_RCHW).view(batch, -1).softmax(1)
        hidden_BPC = hidden_RCHW.flatten(2).transpose(1, 2).reshape(batch, weight_BP.shape[1], -1)
        return self.head((weight_BP[..., None] * hidden_BPC).sum(1))


def _augment(frames_BN3HW: Tensor, generator: torch.Generator) -> Tensor:
    return pictures.in_other_light(frames_BN3HW, generator, 0.08).clamp(0, 255)


def _network(labels: int) -> nn.Module:
    return nn.Sequential(nn.Linear(_EDGES**3 + 3, 64), nn.ReLU(), nn.Linear(64, labels))


def load(cache: str | Path | None, settings: probe.ProbeSettings | None = None) -> probe.Probe:
    """The colour probe, from folder ``cache`` or trained now; see :func:`materials.load`. Beyond
    level 1, where sticks move and what they strike does not, a :class:`LookNet`."""
    settings = settings or probe.ProbeSettings(clips=800, epochs=20, rate=5e-3)
    labels, seen = pictures.names("colour", settings.levels)
    name = f"colour-{probe.fingerprint(settings, _CODE, labels, seen)}"
    if max(settings.levels) == 1:
        examples = partial(pictures.examples, features, "colour")
        return probe.learned(cache, name, labels, settings, _network, examples)
    examples = partial(pictures.examples, moments, "colour")
    return probe.learned(cache, name, labels, settings, LookNet, examples, _augment)


def read(trained: probe.Probe, video_F3HW: Tensor) -> Tensor:
    """What this probe is given of a clip."""
    looks = isinstance(trained.network, LookNet)
    return moments(video_F3HW) if looks else features(video_F3HW)


def predict(trained: probe.Probe, videos: Sequence[Tensor]) -> list[str]:
    """The likeliest colour of every ``uint8 [F,3,H,W]``."""
    return trained.predict([read(trained, video) for video in videos])
