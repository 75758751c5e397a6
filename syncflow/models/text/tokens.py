"""Captions as batches of tokens: padded to one length, and some replaced by others."""

from __future__ import annotations

import torch
from torch import Tensor


def pad(x_BL: Tensor, length: int) -> Tensor:
    """[B, L, ...] -> [B, length, ...]: zeros, or False, at the end of axis 1."""
    missing = length - x_BL.shape[1]
    if not missing:
        return x_BL
    return torch.cat([x_BL, x_BL.new_zeros(len(x_BL), missing, *x_BL.shape[2:])], dim=1)


def replace(
    text_BLE: Tensor, mask_BL: Tensor, other_BLE: Tensor, other_mask_BL: Tensor, where_B: Tensor
) -> tuple[Tensor, Tensor]:
    """The captions with those ``other`` ones (of any length) in the rows where ``where_B`` is True,
    such as the null caption; as long as the longer of both."""
    length = max(mask_BL.shape[1], other_mask_BL.shape[1])
    text, mask, other, other_mask = (
        pad(x, length) for x in (text_BLE, mask_BL, other_BLE, other_mask_BL)
    )
    text = torch.where(where_B[:, None, None], other.to(text.dtype), text)
    return text, torch.where(where_B[:, None], other_mask, mask)
