"""Agreement without events: how much changes in the picture against how much begins in the sound.

In the manner of AV-Align (arXiv 2309.16429), which compares the peaks of both, but with the whole
curves. A contact is where motion turns or ends, not where it is fast. With ``a``, ``b`` and ``c``
the mean absolute differences of a frame from the one before, of the next from it, and of the next
from the one before, motion that turns back has a small ``c``, and motion that ends a ``b`` smaller
than ``a``. The weights were chosen on validation clips of levels 1 to 3.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from syncflow.clip import FPS
from syncflow.detect import onsets

#: Samples per second of both curves; 10 ms is finer than any clip's frame rate.
RATE = 100.0


def picture(video_F3HW: Tensor, fps: float) -> np.ndarray:
    """How much motion turns or ends over time in ``uint8 [F,3,H,W]``, [N] at ``RATE``."""
    if len(video_F3HW) < 3:
        return np.zeros(_length(len(video_F3HW) / fps))
    frames_FN = video_F3HW.float().flatten(1) / 255
    step_F = (frames_FN[1:] - frames_FN[:-1]).abs().mean(1).numpy()
    across_F = (frames_FN[2:] - frames_FN[:-2]).abs().mean(1).numpy()
    a_F, b_F = step_F[:-1], step_F[1:]
    turn_F = np.maximum(a_F + b_F - 1.5 * across_F, 0) + 0.5 * np.maximum(a_F - b_F, 0)
    at_F = np.arange(1, len(video_F3HW) - 1) / fps
    times_N = np.arange(_length(len(video_F3HW) / fps)) / RATE
    return np.interp(times_N, at_F, turn_F)


def sound(audio_M: Tensor, sample_rate: int, fps: float = FPS) -> np.ndarray:
    """Onset strength of ``float [M]``, smoothed to about a frame, [N] at ``RATE``."""
    settings = onsets.default_settings()
    rise = onsets.flux(audio_M.detach().cpu(), sample_rate, settings).numpy()
    times_N = np.arange(_length(len(audio_M) / sample_rate)) / RATE
    # A window of a frame either side: the picture cannot say when within a frame it happened.
    width = 1 / fps
    at = np.arange(len(rise)) * settings.hop / sample_rate
    total = np.concatenate([[0.0], np.cumsum(rise)])
    low = np.searchsorted(at, times_N - width)
    high = np.searchsorted(at, times_N + width)
    return (total[high] - total[low]) / np.maximum(high - low, 1)


def correlation(seen_N: np.ndarray, heard_N: np.ndarray) -> float:
    """Pearson's, over the time that both have; 0 where one of them is flat."""
    count = min(len(seen_N), len(heard_N))
    a, b = seen_N[:count] - seen_N[:count].mean(), heard_N[:count] - heard_N[:count].mean()
    size = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum() / size) if size > 1e-12 else 0.0


def _length(seconds: float) -> int:
    return max(1, round(seconds * RATE))
