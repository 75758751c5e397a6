"""Muon with its Newton-Schulz iterations in float32, for devices that bfloat16 slows down."""

from __future__ import annotations

from collections.abc import Callable
from typing import overload

import torch
from torch import Tensor

#: Keller Jordan's coefficients, which ``torch.optim.Muon`` has too.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_STEPS = 5


class Float32Muon(torch.optim.Muon):
    """``torch.optim.Muon``, which casts to bfloat16, but for the cast: the same state and update.

    Nesterov momentum is always on, as it is by default there.
    """

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            momentum = group["momentum"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                buffer = state["momentum_buffer"]
                buffer.lerp_(parameter.grad, 1 - momentum)
                update = orthogonal(parameter.grad.lerp(buffer, momentum))
                # "match_rms_adamw": a step as large as AdamW's.
                lr = group["lr"] * 0.2 * max(parameter.shape) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-lr)
        return loss


def orthogonal(gradient: Tensor) -> Tensor:
    """Five Newton-Schulz iterations towards the orthogonal factor of a matrix, in float32."""
    a, b, c = _COEFFICIENTS
    tall = gradient.shape[0] > gradient.shape[1]
    x = gradient.float().T if tall else gradient.float()
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(_STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
