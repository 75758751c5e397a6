"""Exponential moving average of weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def decay_at(decay: float, step: int) -> float:
    """The decay with a warm start: min(decay, (1 + n) / (10 + n))."""
    return min(decay, (1 + step) / (10 + step))


class Average:
    """The average of a module's whole state, float32. Decay 0 keeps nothing."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = (
            {k: v.detach().clone().float() for k, v in module.state_dict().items()} if decay else {}
        )

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Takes in the module's weights after its update ``step``, counted from 0."""
        if not self.decay:
            return
        new = module.state_dict()
        ours = list(self.weights.values())
        weight = 1 - decay_at(self.decay, step)
        torch._foreach_lerp_(ours, [new[k].float() for k in self.weights], weight)

    def of(self, module: nn.Module) -> dict[str, Tensor]:
        """The averaged weights, or the module's own when nothing is averaged."""
        return self.weights or {k: v.detach() for k, v in module.state_dict().items()}
