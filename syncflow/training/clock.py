"""How long a run is, in steps or in minutes, and how far it is: what ends it and leads its rate."""

from __future__ import annotations

import math
import time

import torch

from syncflow.training.distributed.groups import Group
from syncflow.training.optim import optimizer
from syncflow.training.settings import LoopConfig

_now = time.monotonic


class Clock:
    """The seconds that a run has taken, those of its earlier parts included.

    A run by the clock reads it once a step, and all processes go by what the leading one reads:
    they take the same steps at the same learning rate.

    Args:
        seconds: of the parts before this one, as its checkpoint has them.
    """

    def __init__(self, config: LoopConfig, group: Group, seconds: float = 0.0) -> None:
        self.config, self.group = config, group
        self.begun = _now() - seconds
        self.read_at = 0.0
        self.read()

    def seconds(self) -> float:
        """Until now, by this process's clock."""
        return _now() - self.begun

    def read(self) -> None:
        """Reads the clock, where it matters. All processes call it."""
        if self.config.minutes is not None:
            now = torch.tensor(self.seconds(), dtype=torch.float64, device=self.group.device)
            self.read_at = self.group.first(now).item()

    def over(self, step: int) -> bool:
        """Whether a run that has taken ``step`` steps is at its end."""
        if self.config.minutes is not None:
            return self.read_at >= 60 * self.config.minutes
        return step >= (self.config.steps or math.inf)

    def learning_rate(self, step: int) -> float:
        """That of a step, counted from 0."""
        return optimizer.learning_rate(step, self.config, self.read_at)
