"""A second pair of detectors, plain ones, that share nothing with the first.

Contacts: where the low point of the largest thing that moves stops falling. Onsets: librosa's.
They settle what the first pair cannot: how good clips are that the first pair chose.
"""

from __future__ import annotations

import importlib.util

import numpy as np
from torch import Tensor

from syncflow.clip import FPS, SAMPLE_RATE

# Chosen on 64 real validation clips of level 1, as rendered and after the VAE.
#: A pixel moves that differs from the temporal median by this share of what the thing itself
#: differs by, and by this of 255; a thing has so many pixels at least.
_SHARE, _DIFFERENCE, _AREA = 0.25, 16, 4
#: The low point is the row above which this share of the thing lies; a fall has this many rows of
#: 64; a line goes through this many frames.
_LOW, _FALL, _FRAMES = 0.75, 1.0, 3


def installed() -> bool:
    """Whether librosa is there, which ``onsets`` needs."""
    return importlib.util.find_spec("librosa") is not None


def low_point(video_F3HW: Tensor) -> np.ndarray:
    """The low point of the largest moving component of ``uint8 [F,3,H,W]``, in rows of 64, [F];
    nan where nothing moves."""
    from scipy import ndimage

    still_3HW = video_F3HW.median(dim=0).values.int()
    apart_FHW = (video_F3HW.int() - still_3HW).abs().amax(1).numpy()
    frames, height, _ = apart_FHW.shape
    typical = np.median(apart_FHW.reshape(frames, -1).max(1))
    threshold = max(_DIFFERENCE, _SHARE * typical)
    rows_F = np.full(frames, np.nan)
    for index, apart_HW in enumerate(apart_FHW):
        labels, count = ndimage.label(apart_HW > threshold)
        if not count:
            continue
        mass = ndimage.sum(apart_HW, labels, range(1, count + 1))
        largest_HW = labels == np.argmax(mass) + 1
        if largest_HW.sum() * (64 / height) ** 2 < _AREA:
            continue
        above_H = np.where(largest_HW, apart_HW, 0).sum(1).cumsum()
        share_H = np.concatenate([[0.0], above_H / above_H[-1]])
        rows_F[index] = np.interp(_LOW, share_H, np.arange(height + 1)) * 64 / height
    return rows_F


def contacts(video_F3HW: Tensor, fps: float = FPS) -> list[float]:
    """Seconds at which the low point turns from falling to rising."""
    from scipy.signal import find_peaks

    rows_F = low_point(video_F3HW)
    seen = np.flatnonzero(~np.isnan(rows_F))
    if len(seen) < 4:
        return []
    y_F = np.interp(np.arange(len(rows_F)), seen, rows_F[seen])
    peaks, _ = find_peaks(y_F, prominence=_FALL)
    return [_turn(y_F, int(peak)) / fps for peak in peaks]


def _turn(y_F: np.ndarray, peak: int) -> float:
    """Where the lines through the frames before and after a peak meet, in frames."""
    before = np.arange(max(0, peak - _FRAMES), peak)
    after = np.arange(peak + 1, min(len(y_F), peak + _FRAMES + 1))
    if min(len(before), len(after)) < 2:
        return float(peak)
    (fall, first), (rise, second) = (np.polyfit(t, y_F[t], 1) for t in (before, after))
    if fall - rise < 1e-6:
        return float(peak)
    return float(np.clip((second - first) / (fall - rise), peak - 1, peak + 1))


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
