"""What one operator costs: whether it launches anything, how often, what it reads and writes, and
its matrix products, where PyTorch's own table does not know them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
#: Operators whose operations fill tensor cores: "products", and attention's.
PRODUCTS = {aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.convolution,
            aten.convolution_backward, aten._addmm_activation, aten._scaled_mm}  # fmt: skip
ATTENTION = {
    aten._scaled_dot_product_flash_attention, aten._scaled_dot_product_flash_attention_backward,
    aten._scaled_dot_product_efficient_attention,
    aten._scaled_dot_product_efficient_attention_backward,
}  # fmt: skip
#: Operators that hand out memory and write none.
EMPTY = {aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided,
          aten._unsafe_view, aten.detach, aten.lift_fresh,
          aten._has_same_storage_numel}  # fmt: skip


def is_view(operator: Any) -> bool:
    """Whether it hands out memory that was there, unwritten."""
    returns = operator._schema.returns
    return bool(returns) and all(
        r.alias_info is not None and not r.alias_info.is_write for r in returns
    )


def num_bytes(tensor: Tensor) -> int:
    """Of its elements, expanded ones once."""
    numbers = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        numbers *= size if stride else min(size, 1)
    return numbers * tensor.element_size()


def launches(packet: Any, args: tuple) -> int:
    """Of an operator over lists of tensors several: the chunks of a launch are counted."""
    name = packet._qualified_op_name.split("::")[1]
    if not name.startswith(("_foreach", "_fused_adam")):
        return 1
    tensors = [t for t in args[0] if isinstance(t, Tensor)]
    lists = sum(isinstance(a, (list, tuple)) and len(a) == len(args[0]) for a in args)
    most_tensors = (110, 64, 48, 36, 30)[min(lists, 5) - 1]
    chunks = sum(-(-t.numel() // 65536) for t in tensors)
    return max(1, math.ceil(len(tensors) / most_tensors), math.ceil(chunks / 320))


def own_flops(packet: Any, given: list[Tensor], made: list[Tensor]) -> int:
    """Of operators with matrix products that PyTorch's own table does not have."""
    name = packet._qualified_op_name
    if name == "aten::_addmm_activation":
        (rows, inner), columns = given[1].shape, given[2].shape[1]
        return 2 * rows * inner * columns
    if name == "syncflow::temporal_attention":
        B, T, S, _, H, D = given[0].shape
        return 4 * B * S * H * T * T * D
    if name == "syncflow::temporal_attention_backward":
        B, T, S, _, H, D = given[1].shape
        return 10 * B * S * H * T * T * D
    return 0
