"""Windows that teach nothing: pictures that stand still, and silence (the paper, appendix)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_GRID = 32
_FRAME_S = 0.05


def motion(video_F3HW: Tensor) -> float:
    """How much of the picture moves, in grey levels (of 255): the range over time of grey, on a
    coarse grid (codec noise averages out), in the hundredth of the grid where it is largest."""
    size = (min(_GRID, video_F3HW.shape[2]), min(_GRID, video_F3HW.shape[3]))
    grey = video_F3HW.float().mean(1)
    small = torch.nn.functional.adaptive_avg_pool2d(grey, size)
    spread = (small.amax(0) - small.amin(0)).flatten()
    return float(torch.quantile(spread, 0.99))


def loudness_db(audio_M: Tensor, sample_rate: int) -> float:
    """Root mean square of the loudest 50 ms, in dB of full scale; -inf for digital silence."""
    step = max(1, min(len(audio_M), round(_FRAME_S * sample_rate)))
    frames = audio_M[: len(audio_M) // step * step].view(-1, step)
    power = float(frames.square().mean(1).max())
    return 10 * float(np.log10(power)) if power > 0 else float("-inf")
