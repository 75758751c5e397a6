"""What every metric of the paper's tables is: clips in, numbers with intervals and facts out.

A metric sees pairs in batches and keeps no clip, so that a hundred thousand clips need no more
memory than a hundred. Every result says what it was made with, because the same name with another
sample rate, window or network is another number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from syncflow.clip import Clip


@dataclass(frozen=True)
class Pair:
    """A generated clip, the real one of the same caption (None where there is none), and it."""

    generated: Clip
    real: Clip | None
    prompt: str

    def truth(self, metric: str) -> Clip:
        """The real clip; ValueError where ``metric`` needs one and there is none."""
        if self.real is None:
            raise ValueError(f"{metric} needs the real clip of '{self.prompt}'")
        return self.real


@dataclass(frozen=True)
class Result:
    """``value`` is [value, low, high] with a 95 % interval over ``clips`` clips; ``facts`` say what
    it was made with (network, weights, rates, preprocessing, definition)."""

    name: str
    value: list[float]
    better: Literal["lower", "higher"]
    clips: int
    facts: dict[str, str] = field(default_factory=dict)


class Metric(Protocol):
    """One metric, or several from one network; made anew for every system."""

    def update(self, pairs: Sequence[Pair]) -> None:
        """Adds some pairs; ValueError where they cannot be measured, as without a real clip."""

    def results(self) -> list[Result]:
        """Of all pairs so far: one result for each of its names."""


class Mean:
    """Mean of a stream and the 95 % normal interval of the mean (Welford's sums)."""

    def __init__(self) -> None:
        self.count, self._mean, self._square = 0, 0.0, 0.0

    def add(self, value: float) -> None:
        """One clip's value; ValueError where it is not finite."""
        if not math.isfinite(value):
            raise ValueError(f"a clip's value is {value}")
        self.count += 1
        change = value - self._mean
        self._mean += change / self.count
        self._square += change * (value - self._mean)

    def value(self) -> list[float]:
        """[mean, low, high]; ValueError for an empty stream."""
        if not self.count:
            raise ValueError("no clips to measure")
        half = 1.96 * math.sqrt(self._square / max(self.count - 1, 1) / self.count)
        return [self._mean, self._mean - half, self._mean + half]


def sound(clip: Clip, rate: int) -> Tensor:
    """A clip's audio float32 [M] at ``rate`` Hz (windowed sinc of torchaudio, its defaults)."""
    audio_M = clip.audio.detach().cpu().float()
    if not torch.isfinite(audio_M).all():
        raise ValueError("audio has values that are not finite")
    if clip.sample_rate == rate:
        return audio_M
    from torchaudio.functional import resample

    return resample(audio_M, clip.sample_rate, rate)


def picture(clip: Clip, fps: float | None = None) -> Tensor:
    """A clip's frames uint8 [F,3,H,W], at ``fps`` (the frame shown at each moment's nearest)."""
    if fps is None or fps == clip.fps:
        return clip.video
    count = max(1, round(clip.seconds * fps))
    index = (torch.arange(count) * (clip.fps / fps)).round().long()
    return clip.video[index.clamp(max=len(clip.video) - 1)]


def resized(video_FCHW: Tensor, size: int) -> Tensor:
    """Short side to ``size`` px (bilinear), centre cut: float [F,3,size,size] in 0..255."""
    height, width = video_FCHW.shape[2:]
    scale = size / min(height, width)
    target = (max(size, round(height * scale)), max(size, round(width * scale)))
    video = torch.nn.functional.interpolate(
        video_FCHW.float(), target, mode="bilinear", antialias=True
    )
    top, left = (target[0] - size) // 2, (target[1] - size) // 2
    return video[..., top : top + size, left : left + size].clamp(0, 255)
