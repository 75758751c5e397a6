"""Where the windows lie: inside one scene, drawn at random or fixed, none over another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Span = tuple[int, int]


def spans(num_frames: int, cuts: Sequence[int]) -> list[Span]:
    """[first, last + 1) frames of every scene.

    The frame before a cut is left out: its sound already reaches over the cut, whose exact time
    between two frames is not known.
    """
    bounds = [0, *cuts, num_frames]
    return [
        (first, end - (end != num_frames))
        for first, end in zip(bounds[:-1], bounds[1:], strict=True)
    ]


def capacity(spans: Sequence[Span], length: int) -> int:
    """How many windows of ``length`` frames fit side by side."""
    return sum((end - first) // length for first, end in spans)


def place(
    spans: Sequence[Span], length: int, count: int, rng: np.random.Generator | None
) -> list[int]:
    """First frames of ``count`` windows of ``length`` frames, in order, each inside one span and
    none over another; fewer where fewer fit side by side.

    All possible places, in a row, are cut into ``count`` equal stretches and one place is taken
    from each: with ``rng`` at random, so that one window is as likely anywhere as anywhere else
    (the paper's random segments); without, its middle. The windows of a span of which some then
    overlap are placed anew, with what is left of the span shared out between them.
    """
    count = min(count, capacity(spans, length))
    if not count:
        return []
    places = np.concatenate([np.arange(first, end - length + 1) for first, end in spans])
    bounds = np.arange(count + 1) * len(places) // count
    lows, highs = bounds[:-1], bounds[1:] - 1
    index = (lows + highs) // 2 if rng is None else rng.integers(lows, highs, endpoint=True)
    drawn = places[index]
    own = [drawn[(drawn >= first) & (drawn < end)] for first, end in spans]
    out: list[int] = []
    numbers = _that_fit([len(starts) for starts in own], spans, length)
    for span, starts, number in zip(spans, own, numbers, strict=True):
        if number != len(starts) or (np.diff(starts) < length).any():
            starts = _side_by_side(span, length, number, rng)
        out += starts.tolist()
    return out


def _that_fit(numbers: list[int], spans: Sequence[Span], length: int) -> list[int]:
    """As many windows in all, in no span more than fit: what is too much goes where most are
    missing."""
    room = [(end - first) // length - n for (first, end), n in zip(spans, numbers, strict=True)]
    numbers = list(numbers)
    while min(room) < 0:
        for place, change in ((int(np.argmin(room)), -1), (int(np.argmax(room)), 1)):
            numbers[place] += change
            room[place] -= change
    return numbers


def _side_by_side(
    span: Span, length: int, number: int, rng: np.random.Generator | None
) -> np.ndarray:
    """Places of ``number`` windows in a span: what of it they leave free lies between them, in
    random or equal parts."""
    free = span[1] - span[0] - number * length
    if rng is None:
        before = free * (2 * np.arange(number) + 1) // max(1, 2 * number)
    else:
        before = np.sort(rng.integers(0, free, number, endpoint=True))
    return span[0] + before + np.arange(number) * length
