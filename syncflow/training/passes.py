"""What the passes and updates of a run see: which clips, with which randomness, at what cost.

An update is ``accumulate`` passes. Everything follows from its number and the run's seed.
"""

from __future__ import annotations

import math

import torch

from syncflow.training.distributed.groups import Group
from syncflow.training.settings import LoopConfig
from syncflow.training.tasks.randomness import SampleGenerators, Source
from syncflow.training.tasks.task import Task

_NAMED = 8  # clips of an update are named in a message, and the rest counted


class Passes:
    """The passes of all processes, counted through the run."""

    def __init__(self, task: Task, config: LoopConfig, group: Group) -> None:
        self.task, self.config, self.group = task, config, group
        #: Of the whole run; one by the clock does not know.
        self.total = math.inf if config.steps is None else config.steps * config.accumulate

    def of(self, update: int) -> range:
        """The passes of an update."""
        parts = self.config.accumulate
        return range(update * parts, (update + 1) * parts)

    def source(self, index: int) -> Source:
        """What a pass draws from, for this process's clips."""
        config = self.config
        if config.randomness == "batch":
            return torch.Generator().manual_seed(config.seed * 1_000_003 + index)
        places = self._places(index)
        own = places[self.group.rows(len(places))]
        there = self.group.device if config.randomness == "device" else "cpu"
        return SampleGenerators(config.seed, own, there)

    def _places(self, index: int) -> range:
        """The numbers of the clips of a pass."""
        size = self.config.batch_size
        return self.task.places(index) or range(index * size, (index + 1) * size)

    def samples(self, update: int) -> int:
        """Clips that an update sees."""
        return sum(len(self._places(index)) for index in self.of(update))

    def flops(self, update: int) -> float:
        """Floating point operations of an update, where the task knows them."""
        passes = self.of(update)
        return sum(len(self._places(n)) * (self.task.flops(n) or 0.0) for n in passes)

    def clips(self, update: int) -> str:
        """The names of an update's clips, for a message; "" where the task has none."""
        names = list(dict.fromkeys(name for n in self.of(update) for name in self.task.names(n)))
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return f"{', '.join(names[:_NAMED])}{more}"
