"""A second pair of detectors, plain ones, that share nothing with the first.

Contacts: where the lowest point of the largest thing that moves stops falling. Onsets: librosa's.
They settle what the first pair cannot: how good clips are that the first pair chose.
"""

from __future__ import annotations

import importlib.util

import numpy as np
from torch import Tensor

from syncflow.clip import FPS, SAMPLE_RATE

#: A pixel moves that differs by this from the temporal median (of 255), a thing has this many
#: pixels at least and a fall this many rows, of 64; chosen on real validation clips of level 1.
_DIFFERENCE, _AREA, _FALL = 12, 4, 1.5


def installed() -> bool:
    """Whether librosa is there, which ``onsets`` needs."""
    return importlib.util.find_spec("librosa") is not None


def lowest(video_F3HW: Tensor) -> np.ndarray:
    """The bottom row of the largest moving component of ``uint8 [F,3,H,W]``, of 64, [F]; nan where
    nothing moves."""
    from scipy import ndimage

    still_3HW = video_F3HW.median(dim=0).values.int()
    apart_FHW = (video_F3HW.int() - still_3HW).abs().amax(1).numpy()
    rows_F = np.full(len(apart_FHW), np.nan)
    scale = 64 / apart_FHW.shape[1]
    for index, apart_HW in enumerate(apart_FHW):
        labels, count = ndimage.label(apart_HW > _DIFFERENCE)
        if not count:
            continue
        sizes = np.bincount(labels.ravel())[1:]
        largest = labels == sizes.argmax() + 1
        if sizes.max() * scale**2 < _AREA:
            continue
        mass_H = np.where(largest, apart_HW, 0).sum(1)
        bottom = int(np.flatnonzero(largest.any(1))[-1])
        # Part of a row: how bright the last is beside the one above.
        above = mass_H[bottom - 1] if bottom else mass_H[bottom]
        rows_F[index] = (bottom + min(1.0, mass_H[bottom] / max(above, 1))) * scale
    return rows_F


def contacts(video_F3HW: Tensor, fps: float = FPS) -> list[float]:
    """Seconds at which the lowest point turns from falling to rising or rest."""
    from scipy.signal import find_peaks

    rows_F = lowest(video_F3HW)
    seen = np.flatnonzero(~np.isnan(rows_F))
    if len(seen) < 4:
        return []
    y_F = np.interp(np.arange(len(rows_F)), seen, rows_F[seen])
    peaks, _ = find_peaks(y_F, prominence=_FALL)
    return [_turn(y_F, int(peak)) / fps for peak in peaks]


def _turn(y_F: np.ndarray, peak: int) -> float:
    """Where the lines through two frames before and two after a peak meet, in frames."""
    last = len(y_F) - 1
    if peak < 2 or peak + 2 > last:
        return float(peak)
    fall, rise = y_F[peak - 1] - y_F[peak - 2], y_F[peak + 2] - y_F[peak + 1]
    if fall - rise < 1e-6:
        return float(peak)
    # y1 + fall (t - (peak - 1)) = y2 + rise (t - (peak + 1))
    t = (y_F[peak + 1] - rise * (peak + 1) - y_F[peak - 1] + fall * (peak - 1)) / (fall - rise)
    return float(np.clip(t, peak - 1, peak + 1))


def onsets(audio_M: Tensor, rate: int = SAMPLE_RATE) -> list[float]:
    """Seconds of librosa's onsets, which need librosa (``pip install 'syncflow[metrics]'``)."""
    import librosa

    samples = audio_M.detach().cpu().float().numpy()
    if not np.abs(samples).max(initial=0.0):
        return []
    found = librosa.onset.onset_detect(
        y=samples, sr=rate, hop_length=256, units="time", backtrack=False
    )
    return [float(time) for time in found]
