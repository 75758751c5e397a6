"""Muon on matrices and Adam on the rest, in a form that a CUDA graph can hold.

Matrices of one shape are updated together, as one batch of Newton-Schulz iterations; everything
else is one flat vector. Weights are kept in float32 here and copied into the module, whatever its
dtype. Nothing is read back by the host: learning rate, number of steps and the check for values
that are not finite live on the device.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from syncflow.training.optim.optimizer import is_matrix

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


class Optimizer:
    """Of the named parameters given; ``lr`` is a 0-dim tensor that the caller fills.

    Args:
        named: names decide what is a matrix (``training.optim.optimizer.is_matrix``).
        weight_decay: of matrices, and of the rest's tensors with two axes or more.
        ema: decay of the averaged weights, with a warm start.
        clip: greatest norm of the gradient.
    """

    def __init__(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        *,
        weight_decay: float = 0.05,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.98),
        ema: float = 0.998,
        clip: float = 1.0,
    ) -> None:
        named = list(named)
        if not named:
            raise ValueError("nothing to train: no parameters were given")
        self.names = [name for name, _ in named]
        self.parameters = [p for _, p in named]
        self.weight_decay, self.momentum, self.betas = weight_decay, momentum, betas
        self.ema, self.clip = ema, clip
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        self._rest: list[int] = []
        for index, (name, p) in enumerate(named):
            if is_matrix(name, p):
                groups[tuple(p.shape)].append(index)
            else:
                self._rest.append(index)
        device = self.parameters[0].device
        self.lr = torch.zeros((), device=device)
        self.steps = torch.zeros((), device=device)
        self.skipped = torch.zeros((), device=device)
        self.grad_norm = torch.zeros((), device=device)
        self._groups = list(groups.values())
        self._masters = [
            torch.stack([self.parameters[i].detach().float() for i in group])
            for group in self._groups
        ]
        self._momenta = [torch.zeros_like(m) for m in self._masters]
        self._flat = self._flatten(self.parameters[i].detach().float() for i in self._rest)
        self._first, self._second = torch.zeros_like(self._flat), torch.zeros_like(self._flat)
        self._decay = self._flatten(
            torch.full(self.parameters[i].shape, float(self.parameters[i].ndim >= 2), device=device)
            for i in self._rest
        )
        self._ema = [m.clone() for m in (*self._masters, self._flat)]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor | None]) -> None:
        """One update; ``gradients`` in the order of the parameters, None where there is none.

        A gradient that is not finite counts in ``skipped`` and changes no weight.
        """
        given = [
            torch.zeros_like(p) if g is None else g
            for g, p in zip(gradients, self.parameters, strict=True)
        ]
        norms = torch.stack(torch._foreach_norm([g.float() for g in given]))
        norm = norms.square().sum().sqrt()
        finite = norm.isfinite()
        self.grad_norm.copy_(norm)
        self.skipped += (~finite).float()
        self.steps += finite.float()
        scale = (self.clip / (norm + 1e-6)).clamp(max=1.0)
        lr = torch.where(finite, self.lr, torch.zeros_like(self.lr))
        average = (9 / (10 + self.steps)).clamp(min=1 - self.ema)
        average = torch.where(finite, average, torch.zeros_like(average))

        def clean(g: Tensor) -> Tensor:
            return torch.where(finite, g.float() * scale, torch.zeros_like(g, dtype=torch.float32))

        for group, master, momentum in zip(self._groups, self._masters, self._momenta, strict=True):
            g = clean(torch.stack([given[i] for i in group]))
            momentum.lerp_(g, 1 - self.momentum)
            direction = newton_schulz(g.lerp(momentum, self.momentum))
            rate = lr * (0.2 * max(master.shape[1:]) ** 0.5)
            master.mul_(1 - lr * self.weight_decay).sub_(direction.float() * rate)
            self._copy(master.unbind(0), group)
        if self._rest:
            g = clean(self._flatten(given[i] for i in self._rest))
            beta1, beta2 = self.betas
            self._first.lerp_(g, 1 - beta1)
            self._second.lerp_(g.square(), 1 - beta2)
            n = self.steps.clamp(min=1)
            first = self._first / (1 - beta1**n)
            second = self._second / (1 - beta2**n)
            self._flat.mul_(1 - lr * self.weight_decay * self._decay)
            self._flat.sub_(lr * first / (second.sqrt() + 1e-8))
            self._copy(self._parts(self._flat), self._rest)
        for ours, new in zip(self._ema, (*self._masters, self._flat), strict=True):
            ours.lerp_(new, average)

    def averaged(self) -> dict[str, Tensor]:
        """The averaged weights by name, float32."""
        out: dict[str, Tensor] = {}
        for group, ours in zip(self._groups, self._ema, strict=False):
            out |= {self.names[i]: value for i, value in zip(group, ours.unbind(0), strict=True)}
        parts = zip(self._rest, self._parts(self._ema[-1]), strict=True)
        return out | {self.names[i]: value for i, value in parts}

    def _copy(self, values: Sequence[Tensor], indices: Sequence[int]) -> None:
        torch._foreach_copy_([self.parameters[i] for i in indices], list(values))

    def _flatten(self, values: Iterable[Tensor]) -> Tensor:
        flat = [value.reshape(-1) for value in values]
        return torch.cat(flat) if flat else torch.zeros(0, device=self.parameters[0].device)

    def _parts(self, flat: Tensor) -> list[Tensor]:
        shapes = [self.parameters[i].shape for i in self._rest]
        parts = flat.split([shape.numel() for shape in shapes])
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def newton_schulz(g_NRC: Tensor) -> Tensor:
    """The orthogonal factor of every matrix, roughly, as Muon wants it (singular values in
    [.7, 1.2]): [N, R, C], bfloat16 on a GPU and float32 elsewhere."""
    a, b, c = _COEFFICIENTS
    x = g_NRC.to(torch.bfloat16 if g_NRC.is_cuda else torch.float32)
    wide = x.shape[1] <= x.shape[2]
    x = x if wide else x.mT
    norm = g_NRC.square().sum((1, 2), keepdim=True).sqrt()
    x = x / (norm + 1e-7).to(x.dtype)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT
