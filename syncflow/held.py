"""What of a state is given while the rest of it is sampled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Held:
    """A given share of one part of a state, put back after every step.

    Attributes:
        mask: True where it is given; broadcastable to the part.
        x_1: the given data, of the part's shape, for a network that must see them as noisy as the
            rest: they are put on the path from noise, (1 - t) x_0 + t x_1. None = they are in the
            state from the start and stay, for a network that is told which are clean.
        x_0: the noise of that path, made for a tensor like the one that it gets.
    """

    mask: Tensor
    x_1: Tensor | None = None
    x_0: Callable[[Tensor], Tensor] | None = None

    def put(self, before: Tensor, after: Tensor, t: float) -> Tensor:
        """The state after a step that ends at ``t``, with what is given in its place."""
        value = before
        if self.x_1 is not None:
            assert self.x_0 is not None
            value = torch.lerp(self.x_0(after), self.x_1, t)
        return torch.where(self.mask, value, after)
