"""Linear layers with 8-bit weights: half of bfloat16's memory for encoders too large to keep."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Int8Linear(nn.Module):
    """y = (x W^T) * scale + bias, W int8 and one scale per output; arithmetic in the type of x.

    The rounding error of a weight is at most half a step, max|row| / 254.
    """

    weight: Tensor
    scale_O: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale_O = weight.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        self.register_buffer("weight", (weight / scale_O[:, None]).round().to(torch.int8))
        self.register_buffer("scale_O", scale_O)
        bias = None if linear.bias is None else linear.bias.detach().clone()
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight.to(x.dtype)) * self.scale_O.to(x.dtype)
        return y if self.bias is None else y + self.bias.to(x.dtype)


def quantize_linears(module: nn.Module) -> nn.Module:
    """Replaces every ``nn.Linear`` inside by its 8-bit form, one at a time; returns the module."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, Int8Linear(child))
        else:
            quantize_linears(child)
    return module
