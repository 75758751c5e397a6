"""A solver's step by the data and the noise that a state is made of, with noise drawn anew.

    x_t = t D + (1 - t) E   ->   x_t' = t' D + (1 - t') (e^(-eta h) E + sqrt(1 - e^(-2 eta h)) e)

D are the data that the velocity points to, E the noise that it comes from, e fresh noise and
h = logit(t') - logit(t). Whatever eta, x_t' given the data is N(t' D, (1 - t')^2): the marginals
stay. 0 is Euler's step, 1 is DDIM's with its eta of 1, infinity takes all noise anew.

And what of a state is given while the rest is sampled (``Held``): data and noise again. This module
knows numbers and tensors alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: The data that a step saw, and its h.
Seen = tuple[Tensor, float]


def step(
    data: Tensor,
    held: Tensor,
    t: float,
    t_next: float,
    *,
    eta: float = 0.0,
    noise: Callable[[Tensor], Tensor] | None = None,
    last: Seen | None = None,
    order: int = 1,
) -> tuple[Tensor, Seen]:
    """The state at ``t_next`` and what the next step takes as ``last``.

    Args:
        data, held: D and E at ``t``.
        eta: 0 or more; above 0 ``noise(like)`` gives e.
        last: of the step before, None at a start.
        order: 2 extrapolates D from the last step (SDE-DPM++ 2M, arXiv 2211.01095), where both
            steps' h are finite: not in the first step from pure noise nor in the last to the data.
    """
    h = _log_odds(t_next) - _log_odds(t)
    stays = math.exp(-eta * h) if eta else 1.0
    end = t_next * data + (1 - t_next) * stays * held
    if order == 2 and last is not None and math.isfinite(h) and math.isfinite(last[1]):
        gain = -t_next * math.expm1(-(1 + eta) * h) * h / (2 * last[1])
        end = end + gain * (data - last[0])
    if eta and t_next < 1:
        if noise is None:
            raise ValueError(f"eta {eta:g} needs noise to draw from")
        end = end + (1 - t_next) * math.sqrt(-math.expm1(-2 * eta * h)) * noise(held)
    return end, (data, h)


def etas(
    eta: float | Sequence[float], parts: int, solver: str, may_draw: Sequence[str], has_noise: bool
) -> tuple[float, ...]:
    """``eta`` for every part of a state.

    Raises:
        ValueError: it is negative, the solver is not among those that ``may_draw`` noise, or there
            is no noise to draw from.
    """
    found = tuple(eta) if isinstance(eta, Sequence) else (eta,) * parts
    if len(found) != parts:
        raise ValueError(f"eta has {len(found)} values for {parts} parts")
    for value in found:
        if not value >= 0:
            raise ValueError(f"eta must be at least 0, got {value}")
        if value and solver not in may_draw:
            known = ", ".join(may_draw)
            raise ValueError(f"solver {solver!r} draws no noise (eta {value:g}); {known} do")
        if value and not has_noise:
            raise ValueError(f"eta {value:g} needs noise to draw from")
    return found


def _log_odds(t: float) -> float:
    if t <= 0:
        return -math.inf
    return math.inf if t >= 1 else math.log(t) - math.log1p(-t)


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
