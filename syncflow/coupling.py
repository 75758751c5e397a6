"""Which noise goes with which data of a training batch: none, optimal transport, or optimal
transport that knows the condition.

This module knows tensors alone; ``syncflow.flow`` offers its functions.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Coupling = Literal["none", "ot", "c2ot"]


def couple(
    x_0: Tensor,
    x_1: Tensor,
    kind: Coupling = "none",
    condition: Tensor | None = None,
    condition_weight: float | None = None,
    condition_share: float = 0.02,
) -> Tensor:
    """Which noise goes with which data: indices [B] so that ``x_0[indices]`` pairs with ``x_1``.

    "ot" is the minibatch optimal transport of the squared distance. It pairs noise with data by the
    data's condition too, which a sampler cannot do, and so skews conditional training; "c2ot" adds
    to the cost of a pair the cosine distance of the conditions that noise and data were drawn with
    (arXiv 2503.10636). Give the batch gathered from all ranks; ties and rounding aside the result
    does not depend on its order.

    Args:
        x_0, x_1: [B, ...].
        condition: [B, ...], for "c2ot".
        condition_weight: of the condition's cost, in units of the mean squared distance; None
            chooses it by ``condition_share``.
        condition_share: see ``conditional_cost``.
    """
    if kind == "none":
        return torch.arange(len(x_1), device=x_1.device)
    if kind not in ("ot", "c2ot"):
        raise ValueError(f"unknown coupling {kind!r}; known are none, ot, c2ot")
    cost_BB = transport_cost(x_0, x_1)
    if kind == "c2ot":
        if condition is None:
            raise ValueError("coupling 'c2ot' needs the batch's condition")
        cost_BB = conditional_cost(cost_BB, condition, condition_weight, condition_share)
    return assign(cost_BB).to(x_1.device)


def transport_cost(x_0: Tensor, x_1: Tensor) -> Tensor:
    """Squared distances of data (rows, any number) and noise (columns), float64."""
    a, b = x_0.flatten(1).double(), x_1.flatten(1).double()
    # |a|^2 + |b|^2 - 2 a.b needs no tensor of all the differences.
    return b.square().sum(1)[:, None] + a.square().sum(1)[None] - 2 * b @ a.T


def conditional_cost(
    cost_BB: Tensor, condition: Tensor, weight: float | None = None, share: float = 0.02
) -> Tensor:
    """Transport costs with those of leaving the condition added.

    Distances between noise and data hardly differ in many dimensions, so no fixed weight fits: in
    units of their mean it lets nothing move. Without a ``weight`` it is the one with which a
    ``share`` of all pairs would still cost less than the noise that the data were drawn with. Where
    more than that are of one condition exactly, nothing leaves its condition.
    """
    c = torch.nn.functional.normalize(condition.flatten(1).double(), dim=1)
    apart_BB = (1 - c @ c.T).clamp(min=0)
    if weight is not None:
        return cost_BB + weight * cost_BB.mean() * apart_BB
    apart_BB = torch.where(apart_BB < 1e-9, 0.0, apart_BB)
    gain_BB = cost_BB.diagonal()[:, None] - cost_BB
    # The weight up to which a pair beats the data's own noise; none does where there is no gain.
    limit_BB = torch.where(gain_BB > 0, gain_BB / apart_BB, 0.0)
    limits = limit_BB.flatten().sort(descending=True).values
    chosen = limits[min(len(limits) - 1, round(share * len(limits)))]
    if chosen.isinf():
        return cost_BB + (apart_BB > 0) * (1 + len(cost_BB) * (cost_BB.max() - cost_BB.min()))
    return cost_BB + chosen * apart_BB


def assign(cost_BB: Tensor) -> Tensor:
    """The column of every row so that the sum of the costs is least, [B] on the CPU."""
    from scipy.optimize import linear_sum_assignment

    _, columns = linear_sum_assignment(cost_BB.cpu().numpy())
    return torch.from_numpy(columns)
