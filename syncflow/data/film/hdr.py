"""Films of high dynamic range (PQ and HLG) as a standard screen shows them.

Reference white, 203 cd/m2 (ITU-R BT.2408), becomes almost the white of the screen; what is brighter
is compressed into what is left.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, TypedDict

import numpy as np

if TYPE_CHECKING:
    from av.video.frame import VideoFrame


_PQ, _HLG, _UNTAGGED, BT2020 = 16, 18, 2, 9  # ITU-T H.273
_WHITE = 203.0  # cd/m2
_PEAK_HLG = 1000.0
#: Up to here light stays as it is; from here to 1 a smooth shoulder takes all that is brighter.
_KNEE = 0.6
#: Linear BT.2020 -> BT.709 (ITU-R BT.2087).
_PRIMARIES = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    np.float32,
)
_LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)


class Reformat(TypedDict, total=False):
    """What ``VideoFrame.reformat`` is asked for, but the format."""

    threads: int
    src_colorspace: int
    height: int
    width: int
    interpolation: str


def is_hdr(frame: VideoFrame) -> bool:
    return frame.color_trc in (_PQ, _HLG)


@cache
def _light(transfer: int) -> np.ndarray:
    """Light for each of 65,536 signal levels: of reference white for PQ, of the scene for HLG."""
    signal = np.linspace(0, 1, 1 << 16)
    if transfer == _PQ:  # SMPTE ST 2084
        power = signal ** (1 / 78.84375)
        light = np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)
        return (light ** (1 / 0.1593017578125) * 10000 / _WHITE).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073  # ITU-R BT.2100
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12).astype(
        np.float32
    )


def standard(frame: VideoFrame, options: Reformat) -> np.ndarray:
    """uint8 [H,W,3] of a frame; ``options`` for ``reformat``."""
    levels = frame.reformat(format="rgb48le", **options).to_ndarray()
    out = np.empty(levels.shape, np.uint8)
    for top in range(0, len(levels), 64):  # floats of a whole 8K picture would be gigabytes
        rows = slice(top, top + 64)
        out[rows] = _mapped(_light(frame.color_trc)[levels[rows]], frame)
    return out


def _mapped(light: np.ndarray, frame: VideoFrame) -> np.ndarray:
    if frame.color_trc == _HLG:  # the screen's own curve, for a peak of 1000 cd/m2
        luma = np.maximum(light @ _LUMA, 1e-6)[..., None]
        light = light * luma**0.2 * (_PEAK_HLG / _WHITE)
    if frame.color_primaries in (BT2020, _UNTAGGED):
        light = np.maximum(light @ _PRIMARIES.T, 0)
    # One factor for all three colours, so that bright ones keep their hue.
    peak = np.maximum(light.max(-1, keepdims=True), 1e-6)
    soft = _KNEE + (1 - _KNEE) * (1 - np.exp(-(peak - _KNEE) / (1 - _KNEE)))
    light = light * (np.where(peak > _KNEE, soft, peak) / peak)
    return (light ** (1 / 2.4) * 255).round().clip(0, 255).astype(np.uint8)
