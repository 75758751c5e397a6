"""Random numbers of a step: the same for a clip whoever trains on it.

"batch" draws once for the whole batch of one process. "sample" gives every clip of every step a
generator of its own, numbered by its place in the run: then the numbers do not depend on how many
processes share the batch or in how many parts it is accumulated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor

from syncflow import flow

_FLOW, _DATA = 3, 2  # streams of numbers that must not meet


class SampleGenerators:
    """One generator a clip; ``places`` counts clips from the start of the run."""

    def __init__(self, seed: int, places: Sequence[int] | np.ndarray) -> None:
        self.each = []
        for place in places:
            state = np.random.SeedSequence([seed, _FLOW, int(place)]).generate_state(1, np.uint64)
            self.each.append(torch.Generator().manual_seed(int(state[0] >> 1)))

    def rows(self, draw: Callable[[int, torch.Generator], Tensor], total: int) -> Tensor:
        """[total, ...] from ``draw(rows of one clip, its generator)``."""
        per_clip = total // len(self.each)
        return torch.cat([draw(per_clip, generator) for generator in self.each])

    def of(self, rows: np.ndarray) -> SampleGenerators:
        """Those of some of the clips, which are not drawn from anew."""
        out = SampleGenerators(0, ())
        out.each = [self.each[row] for row in rows]
        return out


Source = torch.Generator | SampleGenerators


def uniform(total: int, source: Source) -> Tensor:
    """[total] in [0, 1)."""
    return _rows(lambda n, generator: torch.rand(n, generator=generator), total, source)


def normal(shape: Sequence[int], source: Source) -> Tensor:
    """Standard normal of ``shape``; its first axis is clips, or the draws of each, side by side."""

    def draw(n: int, generator: torch.Generator) -> Tensor:
        return torch.randn((n, *shape[1:]), generator=generator)

    return _rows(draw, shape[0], source)


class _Times(TypedDict, total=False):
    kind: Literal["uniform", "logit_normal"]
    uniform_share: float
    mean: float
    std: float
    shift: float


def times(total: int, source: Source, **options: Unpack[_Times]) -> Tensor:
    """[total] training times; ``options`` are those of ``flow.sample_times``."""

    def draw(n: int, generator: torch.Generator) -> Tensor:
        return flow.sample_times(n, generator=generator, **options)

    return _rows(draw, total, source)


def of_rows(source: Source, rows: np.ndarray) -> Source:
    """The randomness of some clips of a batch."""
    return source if isinstance(source, torch.Generator) else source.of(rows)


def data_rng(seed: int, place: int) -> np.random.Generator:
    """For the posterior draw of the clip at a place of the run."""
    return np.random.default_rng([seed, _DATA, place])


def _rows(draw: Callable[[int, torch.Generator], Tensor], total: int, source: Source) -> Tensor:
    return draw(total, source) if isinstance(source, torch.Generator) else source.rows(draw, total)
