"""One decoded picture -> uint8 RGB as a screen shows it: upright, square pixels, standard range."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import numpy as np

from syncflow.data.film import hdr
from syncflow.data.film.limits import MOST_PIXELS

if TYPE_CHECKING:
    from av.video.frame import VideoFrame


_BT709, _UNTAGGED = 1, 2  # ITU-T H.273


Matrix = tuple[int, int, int, int]


def matrix(frame: VideoFrame) -> Matrix:
    """a, b, c, d of the display matrix: a pixel at (x, y) is shown at (ax + cy, bx + dy).

    Not for every frame of a film: a frame that was asked for its side data is in a circle with it,
    and stays in memory until the garbage collector comes.
    """
    from av.sidedata.sidedata import Type

    # A mapping of what is there, which PyAV types as a dictionary of another kind of data.
    found = cast("Mapping[Type, bytes]", frame.side_data)
    data = found.get(Type.DISPLAYMATRIX)
    if data is None:
        return 1, 0, 0, 1
    a, b, _, c, d, *_ = np.frombuffer(data, np.int32).tolist()
    straight, turned = max(abs(a), abs(d)), max(abs(b), abs(c))
    if not straight and not turned:  # all zeros: nothing was meant
        return 1, 0, 0, 1
    if min(straight, turned) > 0.02 * max(straight, turned):
        raise ValueError(
            f"its display matrix turns the picture by {-frame.rotation} degrees: only quarter "
            "turns are read"
        )
    sign = np.sign([a, d] if straight > turned else [b, c]).astype(int).tolist()
    return (sign[0], 0, 0, sign[1]) if straight > turned else (0, sign[0], sign[1], 0)


def _shown(stored: np.ndarray, turn: Matrix) -> np.ndarray:
    """[H,W,3], turned and mirrored by a matrix of ones."""
    a, b, c, d = turn
    if b:  # x and y change places: what ran along x now runs along y by b
        stored, a, d = stored.transpose(1, 0, 2), c, b
    return stored[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def shown(
    frame: VideoFrame, size: tuple[int, int] | None, aspect: float, turn: Matrix
) -> np.ndarray:
    """uint8 [H,W,3]; with ``size`` (height, width) the centre of that shape, resized. ``aspect``
    is the width of a stored pixel over its height, ``turn`` the frame's ``matrix``."""
    if frame.width * frame.height > MOST_PIXELS:
        raise ValueError(f"a picture of {frame.width}x{frame.height} pixels is too large")
    options: hdr.Reformat = {"threads": 1}
    if frame.colorspace == _UNTAGGED and hdr.is_hdr(frame):
        options["src_colorspace"] = hdr.BT2020
    elif frame.colorspace == _UNTAGGED and frame.height >= 720:
        # Files from before colour tags follow the convention of their size: BT.709 from HD on.
        options["src_colorspace"] = _BT709
    if size is not None:
        height, width = size[::-1] if turn[1] else size
        wide = frame.width * aspect  # px on a screen of square pixels
        scale = max(height / frame.height, width / wide)
        options["height"] = max(height, round(frame.height * scale))
        options["width"] = max(width, round(wide * scale))
        options["interpolation"] = "AREA" if scale < 1 else "BICUBIC"
    if hdr.is_hdr(frame):
        stored = hdr.standard(frame, options)
    else:
        stored = frame.reformat(format="rgb24", **options).to_ndarray()
    if size is not None:
        top, left = (stored.shape[0] - height) // 2, (stored.shape[1] - width) // 2
        stored = stored[top : top + height, left : left + width]
    return np.ascontiguousarray(_shown(stored, turn))
