"""The loss balancer of Encodec (arXiv 2210.13438, section 3.4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn


class Balancer(nn.Module):
    """Gives every loss on an output the share of its gradient that its weight says.

    Losses of other units, an adversarial one among them, whose gradients grow and shrink as it is
    trained, then need no weights that fit all of a run. The gradients' norms are averaged over
    steps; the averages are buffers, so a resumed run has them.

    Args:
        weights: share of each loss by its name.
        decay: of the averages.
        mean: of a number over all processes.
    """

    norms: Tensor
    seen: Tensor

    def __init__(
        self,
        weights: Mapping[str, float],
        decay: float = 0.999,
        mean: Callable[[Tensor], Tensor] = lambda value: value,
    ) -> None:
        super().__init__()
        self.weights, self.decay, self.mean = dict(weights), decay, mean
        self.register_buffer("norms", torch.zeros(len(weights)))
        self.register_buffer("seen", torch.zeros(len(weights)))

    def forward(self, losses: Mapping[str, Tensor], out: Tensor) -> Tensor:
        """A scalar with the balanced gradient with respect to ``out`` [B, ...], the mean of one of
        norm 1 for each sample, and the value of the weighted sum of the losses."""
        names = [name for name in self.weights if name in losses]
        grads, norms = [], []
        for name in names:
            (grad,) = torch.autograd.grad(losses[name], out, retain_graph=True)
            grads.append(grad)
            # The gradient of a mean over the batch: of a sample alone it is as many times as large.
            norms.append(grad.flatten(1).norm(dim=1).mean() * len(out))
        norm_N = self.mean(torch.stack(norms).detach())
        place = torch.tensor([list(self.weights).index(name) for name in names], device=out.device)
        self._average(place, norm_N)
        known = self.norms[place] / self.seen[place].clamp(min=1e-12)
        total = sum(self.weights[name] for name in names)
        combined = torch.zeros_like(out)
        for index, name in enumerate(names):
            share = self.weights[name] / total
            combined = combined + grads[index] * (len(out) * share / (known[index] + 1e-12))
        surrogate = (out * combined).sum() / len(out)
        value = sum((self.weights[name] * losses[name].detach() for name in names), 0.0)
        return surrogate - surrogate.detach() + value

    def _average(self, place: Tensor, norm_N: Tensor) -> None:
        """Takes new norms into the averages; one that is not finite would stay there for good."""
        fine = torch.isfinite(norm_N)
        for buffer, new in ((self.norms, norm_N), (self.seen, torch.ones_like(norm_N))):
            old = buffer[place]
            buffer[place] = torch.where(fine, self.decay * old + (1 - self.decay) * new, old)
