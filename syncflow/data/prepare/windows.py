"""Where the windows lie: inside one scene, drawn at random or fixed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def spans(num_frames: int, cuts: Sequence[int]) -> list[tuple[int, int]]:
    """[first, last + 1) frames of every scene.

    The frame before a cut is left out: its sound already reaches over the cut, whose exact time
    between two frames is not known.
    """
    bounds = [0, *cuts, num_frames]
    return [
        (first, end - (end != num_frames))
        for first, end in zip(bounds[:-1], bounds[1:], strict=True)
    ]


def capacity(spans: Sequence[tuple[int, int]], length: int) -> int:
    """How many windows of ``length`` frames fit side by side."""
    return sum((end - first) // length for first, end in spans)


def place(
    spans: Sequence[tuple[int, int]], length: int, count: int, rng: np.random.Generator | None
) -> list[int]:
    """First frames of ``count`` windows of ``length`` frames, in order, each inside one span.

    All possible places, in a row, are cut into ``count`` equal stretches and one place is taken
    from each: with ``rng`` at random, so that every place is as likely as any other (the paper's
    random segments); without, its middle. Fewer come out where there are fewer places.
    """
    places = np.concatenate(
        [np.arange(first, end - length + 1) for first, end in spans] or [np.zeros(0, dtype=int)]
    )
    count = min(count, len(places))
    if not count:
        return []
    bounds = np.arange(count + 1) * len(places) // count
    first, last = bounds[:-1], bounds[1:] - 1
    index = (first + last) // 2 if rng is None else rng.integers(first, last, endpoint=True)
    return places[index].tolist()
