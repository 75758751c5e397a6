"""Steps whose gradient is far larger than it has lately been, though finite."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping

import torch
from torch import Tensor

_WINDOW, _ENOUGH = 101, 20  # steps whose norms are remembered; so many must be known
_KEY = "spike_guard/norms"


class SpikeGuard:
    """Tells whether a step may be made: its norm is at most ``factor`` times the running median.

    Norms of steps that were left out count too: a run whose gradients have grown for good is held
    up for half the window and no longer. ``factor`` 0 lets everything pass and remembers nothing.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.norms: deque[float] = deque(maxlen=_WINDOW)

    def allows(self, norm: float) -> bool:
        """Whether a finite norm is no spike; it is remembered."""
        if not self.factor:
            return True
        enough = len(self.norms) >= _ENOUGH
        limit = self.factor * statistics.median(self.norms) if enough else math.inf
        if math.isfinite(norm):
            self.norms.append(norm)
        return norm <= limit

    def state(self) -> dict[str, Tensor]:
        if not self.factor:
            return {}
        return {_KEY: torch.tensor(list(self.norms), dtype=torch.float64)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        if self.factor and _KEY in state:
            self.norms = deque(state[_KEY].tolist(), maxlen=_WINDOW)
