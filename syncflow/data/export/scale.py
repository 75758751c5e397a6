"""Pictures written larger than the model makes them.

Films keep colour at half the picture's size (4:2:0), so small things lose theirs; enlarged first,
they keep it.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

#: How the pixels between are filled in.
Filter = Literal["nearest", "lanczos"]
FILTERS: tuple[Filter, ...] = ("nearest", "lanczos")
MOST = 16


def enlarge(video_F3HW: Tensor, factor: int, filter: Filter = "nearest") -> Tensor:
    """uint8 [F,3,H,W] -> uint8 [F,3,H * factor,W * factor].

    "nearest" makes every pixel a square, which a reader can undo; "lanczos" is smooth.

    Raises:
        ValueError: a factor that is not 1 to 16, or an unknown filter.
    """
    check(factor, filter)
    if factor == 1:
        return video_F3HW
    if filter == "nearest":
        return video_F3HW.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
    from PIL import Image

    height, width = video_F3HW.shape[2:]
    size = width * factor, height * factor
    pictures = [
        np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
        for pixels in video_F3HW.permute(0, 2, 3, 1).cpu().numpy()
    ]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def check(factor: int, filter: str) -> None:
    """Raises ValueError as ``enlarge``."""
    if factor not in range(1, MOST + 1):
        raise ValueError(f"scale must be a whole number from 1 to {MOST}, got {factor!r}")
    if filter not in FILTERS:
        raise ValueError(f"unknown filter {filter!r}; known are {', '.join(FILTERS)}")
