"""Mean and deviation of latents per channel, put together from sums over parts of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np

#: The axis of the channels in a row's video [Cz,T,h,w] and audio [A,D], counted with the rows.
_CHANNEL_AXIS = {"video": 1, "audio": 2}


class Sums(TypedDict):
    """Of one kind of latents: numbers of a channel, and their sums per channel."""

    count: int
    sum: list[float]
    squares: list[float]


def sums(arrays: Mapping[str, np.ndarray]) -> dict[str, Sums]:
    """Per channel, of draws from posteriors (``video_mean``, ``video_std`` ... [N, ...]): how many,
    their sum and the sum of squares; {} of none."""
    out: dict[str, Sums] = {}
    if not arrays:
        return out
    for kind, axis in _CHANNEL_AXIS.items():
        mean = arrays[f"{kind}_mean"].astype(np.float64)
        std = arrays[f"{kind}_std"].astype(np.float64)
        others = tuple(i for i in range(mean.ndim) if i != axis)
        out[kind] = {
            "count": mean.size // mean.shape[axis],
            "sum": mean.sum(others).tolist(),
            "squares": (mean**2 + std**2).sum(others).tolist(),
        }
    return out


def joined(parts: Sequence[Mapping[str, Sums]]) -> dict[str, list[float]]:
    """Mean and standard deviation per channel of what a draw from the posteriors looks like, from
    the ``sums`` of several parts."""
    out: dict[str, list[float]] = {}
    for kind in _CHANNEL_AXIS:
        each = [part[kind] for part in parts if kind in part]
        count = sum(part["count"] for part in each)
        mean = np.sum([part["sum"] for part in each], axis=0) / count
        square = np.sum([part["squares"] for part in each], axis=0) / count
        out[f"{kind}_mean"] = mean.tolist()
        # Never zero: a channel that does not vary (all silence) must not divide by nothing.
        out[f"{kind}_std"] = np.sqrt(np.maximum(square - mean**2, 1e-8)).tolist()
    return out
