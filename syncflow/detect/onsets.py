"""When sounds begin: multi-band log spectral flux against a peak-hold of the recent past.

An impact adds energy to many bands within a few milliseconds. A ringing mode, a beat between two
modes or a reverberant tail only brings back energy that was there shortly before, so a band counts
only by how far it rises above its own maximum over the last tens of milliseconds (the vibrato
suppression of SuperFlux, Boeck and Widmer 2013, with the maximum taken over time instead of
frequency).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from syncflow.clip import SAMPLE_RATE
from syncflow.detect import matching
from syncflow.detect.settings import OnsetSettings, load


@dataclass(frozen=True)
class Onset:
    """``time`` s; ``strength`` the rise (natural log units); ``loudness`` dB full scale, RMS of the
    30 ms that follow."""

    time: float
    strength: float
    loudness: float


@lru_cache(maxsize=8)
def _filters(bands: int, window: int, low: float, high: float, rate: int) -> Tensor:
    """Triangles on a log frequency axis, [bands, window//2+1], every band at least one bin."""
    centre = torch.logspace(np.log10(low), np.log10(high), bands + 2, dtype=torch.float64)
    bin_hz = torch.arange(window // 2 + 1, dtype=torch.float64) * rate / window
    left, mid, right = (centre[i : i + bands, None] for i in range(3))
    up, down = (bin_hz - left) / (mid - left), (right - bin_hz) / (right - mid)
    weight = torch.minimum(up, down).clamp_min(0)
    nearest = (bin_hz - mid).abs().argmin(1)
    weight[torch.arange(bands), nearest] = weight[torch.arange(bands), nearest].clamp_min(0.5)
    return weight.float()


def flux(audio_M: Tensor, rate: int = SAMPLE_RATE, settings: OnsetSettings | None = None) -> Tensor:
    """Mean rise over the bands per hop, [frames]; frame i is centred on sample ``i * hop``."""
    settings = settings or OnsetSettings()
    window = torch.hann_window(settings.window)
    spectrum = torch.stft(
        audio_M.float(),
        settings.window,
        settings.hop,
        window=window,
        center=True,
        pad_mode="constant",
        return_complex=True,
    ).abs() * (2 / window.sum())
    filters = _filters(settings.bands, settings.window, settings.low, settings.high, rate)
    energy_KN = filters @ spectrum.square()
    quiet_K1 = energy_KN.quantile(0.1, dim=1, keepdim=True)
    floor_K1 = (settings.noise**2 * quiet_K1).clamp_min(settings.floor**2)
    level_KN = 0.5 * torch.log1p(energy_KN / floor_K1)
    hold = max(2, round(settings.hold * rate / settings.hop))
    # The last two hops overlap the window that rises, so the past ends before them.
    past_KN = F.max_pool1d(F.pad(level_KN, (hold + 1, 0))[None], hold, 1)[0, :, : level_KN.shape[1]]
    return (level_KN - past_KN).clamp_min(0).mean(0)


def detect(
    audio_M: Tensor, rate: int = SAMPLE_RATE, settings: OnsetSettings | None = None
) -> list[Onset]:
    """Onsets of a mono clip ``float [M]`` in [-1,1], in order of time."""
    if audio_M.ndim != 1 or not audio_M.is_floating_point():
        raise ValueError(f"audio must be float [M], got {audio_M.dtype} {list(audio_M.shape)}")
    settings = settings or default_settings()
    rise = flux(audio_M.detach().cpu(), rate, settings).numpy()
    enough = max(settings.threshold, settings.relative * float(rise.max(initial=0.0)))
    gap = max(1, round(settings.gap * rate / settings.hop))
    found: list[Onset] = []
    taken = np.zeros(len(rise), dtype=bool)
    # Strongest first, so that a weak neighbour can never displace a strong onset.
    for i in np.argsort(-rise, kind="stable"):
        if rise[i] < enough:
            break
        peak = rise[i] >= rise[max(0, i - 1) : i + 2].max()
        if taken[i] or not peak:
            continue
        taken[max(0, i - gap + 1) : i + gap] = True
        time = (i + _vertex(rise, i)) * settings.hop / rate - settings.bias
        begin = max(0, int(time * rate))
        after = audio_M[begin : begin + round(0.03 * rate)].float()
        power = float(after.square().mean()) if len(after) else 0.0
        found.append(Onset(max(0.0, float(time)), float(rise[i]), 10 * np.log10(power + 1e-12)))
    return sorted(found, key=lambda onset: onset.time)


def _vertex(values: np.ndarray, i: int) -> float:
    """Offset in (-0.5, 0.5) of the parabola's vertex through ``i`` and its neighbours."""
    if not 0 < i < len(values) - 1:
        return 0.0
    left, mid, right = values[i - 1 : i + 2]
    curve = left - 2 * mid + right
    return 0.0 if curve >= 0 else float(np.clip(0.5 * (left - right) / curve, -0.5, 0.5))


def times(
    audio_M: Tensor, rate: int = SAMPLE_RATE, settings: OnsetSettings | None = None
) -> list[float]:
    """Onset times in seconds."""
    return [onset.time for onset in detect(audio_M, rate, settings)]


def score(
    audio: Sequence[Tensor], true_times: Sequence[Sequence[float]], rate: int = SAMPLE_RATE
) -> dict[str, float]:
    """How well onsets are found in these clips: f1_50, f1_100, median_ms, bias_ms,
    count_accuracy."""
    return matching.score([times(audio_M, rate) for audio_M in audio], true_times)


def default_settings() -> OnsetSettings:
    """The settings fitted on validation clips (``detectors.json``)."""
    return load().onsets
