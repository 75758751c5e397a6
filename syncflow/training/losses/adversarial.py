"""Hinge losses between a VAE and its discriminator, and the distance of the features it sees."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: What a discriminator gives for each scale: its verdict, any shape, and the features before it.
Verdicts = Sequence[tuple[Tensor, list[Tensor]]]


def of_discriminator(real: Verdicts, fake: Verdicts) -> Tensor:
    """Scalar: real ones should be judged above 1 and fake ones below -1."""
    losses = [
        torch.relu(1 - ours).mean() + torch.relu(1 + theirs).mean()
        for (ours, _), (theirs, _) in zip(real, fake, strict=True)
    ]
    return torch.stack(losses).mean()


def of_generator(fake: Verdicts) -> Tensor:
    """Scalar: what was made should be judged above 1."""
    return torch.stack([torch.relu(1 - verdict).mean() for verdict, _ in fake]).mean()


def of_features(real: Verdicts, fake: Verdicts) -> Tensor:
    """Scalar: mean L1 distance of all features, each relative to the size of the real one's."""
    distances = []
    for (_, ours), (_, theirs) in zip(real, fake, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            one = one.detach()
            distances.append((one - other).abs().mean() / one.abs().mean().clamp(min=1e-6))
    return torch.stack(distances).mean()
