"""Weights that are read are numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor


def check(values: Mapping[str, Tensor], path: Path) -> None:
    """Raises ValueError, with file and tensor, for a weight that is NaN or infinite: what it
    computes would be noise without a word."""
    for name, value in values.items():
        if not value.is_floating_point() or not value.numel():
            continue
        # NaN and infinity stay in a sum, which needs no memory; a sum may also leave the range.
        if value.sum(dtype=torch.float32).isfinite() or value.isfinite().all():
            continue
        raise ValueError(f"'{path}' is damaged: '{name}' has numbers that are not finite")
