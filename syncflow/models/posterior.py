"""The diagonal Gaussian that both VAEs put over a latent."""

from __future__ import annotations

import torch
from torch import Tensor

# exp(20) is the largest variance that float16 and bfloat16 arithmetic around it survives, and a
# floor keeps an over-confident encoder from sending the KL term to infinity.
_LOGVAR_MIN, _LOGVAR_MAX = -30.0, 20.0


class DiagonalGaussian:
    """A Gaussian with independent elements, `N(mean, exp(logvar))`.

    Args:
        mean: any shape `[B, ...]`.
        logvar: natural logarithm of the variance, the same shape; clamped to [-30, 20].

    Raises:
        ValueError: the two shapes differ.
    """

    def __init__(self, mean: Tensor, logvar: Tensor) -> None:
        if mean.shape != logvar.shape:
            raise ValueError(
                f"mean has shape {tuple(mean.shape)} but logvar has {tuple(logvar.shape)}"
            )
        self.mean = mean
        self.logvar = logvar.clamp(_LOGVAR_MIN, _LOGVAR_MAX)

    @property
    def std(self) -> Tensor:
        """Standard deviation, the mean's shape."""
        return torch.exp(0.5 * self.logvar)

    def mode(self) -> Tensor:
        """The most probable value, which is the mean."""
        return self.mean

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One reparameterised draw, differentiable in mean and logvar.

        A CPU generator may be given whatever the device: its noise is then moved, so that a seed
        gives the same draw everywhere.
        """
        device = self.mean.device if generator is None else generator.device
        noise = torch.randn(
            self.mean.shape, generator=generator, device=device, dtype=self.mean.dtype
        )
        return self.mean + self.std * noise.to(self.mean.device)

    def kl(self) -> Tensor:
        """KL divergence from the standard normal, in nats, summed over each sample: `[B]`."""
        mean, logvar = self.mean.float(), self.logvar.float()
        return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).flatten(1).sum(1)

    def affine(self, shift: Tensor, scale: Tensor) -> DiagonalGaussian:
        """The distribution of `(z - shift) / scale`; shift and scale broadcast to the mean."""
        return DiagonalGaussian((self.mean - shift) / scale, self.logvar - 2.0 * scale.abs().log())
