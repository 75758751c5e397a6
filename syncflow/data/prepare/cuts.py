"""Scene cuts: where one picture ends and a different one begins."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

#: Mean change (of 255) between the pictures on both sides of a cut, at least.
_CHANGE = 16.0
#: And over so much of the picture: something fast in front of a still background is no cut.
_AREA = 0.5
#: How much more than around it the picture changes at a cut: a fast pan changes much all the time.
_RATIO = 3.0
#: Frames before and after that "around it" means.
_AROUND = 6
_GRID = 32


def cuts(video_F3HW: Tensor) -> list[int]:
    """The frames (uint8 video) that begin a new scene; hard cuts only, not fades.

    Frame i begins one if it differs from the frame before by much more than neighbouring frames
    do, and if the scene stays different: a flash of one frame is no cut.
    """
    count = len(video_F3HW)
    if count < 2:
        return []
    size = (min(_GRID, video_F3HW.shape[2]), min(_GRID, video_F3HW.shape[3]))
    parts = [F.adaptive_avg_pool2d(part.float(), size) for part in video_F3HW.split(64)]
    small = torch.cat(parts).flatten(2).numpy()
    step = np.abs(np.diff(small, axis=0)).mean((1, 2))  # step[i - 1]: from frame i - 1 to frame i
    found = []
    for i in range(1, count):
        if step[i - 1] < _CHANGE:
            continue
        if (np.abs(small[i] - small[i - 1]).max(0) > _CHANGE).mean() < _AREA:
            continue
        before, after = range(max(0, i - 2), i), range(i, min(count, i + 2))
        if min(np.abs(small[a] - small[b]).mean() for a in before for b in after) < _CHANGE / 2:
            continue
        around = np.r_[step[max(0, i - 1 - _AROUND) : i - 1], step[i : i + _AROUND]]
        # The median of ever so many still frames is no measure: ratio to at least some change.
        if len(around) == 0 or step[i - 1] > _RATIO * max(1.0, float(np.median(around))):
            found.append(i)
    return found
