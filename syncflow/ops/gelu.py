"""GELU in its tanh form, with the bias of the product before it: 0.5 z (1 + tanh(u)), z = x + bias,
u = sqrt(2 / pi) (z + 0.044715 z^3).

Arithmetic is float32 (float64 for float64); the result has the dtype of x. Backward saves x.
"""

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from syncflow import ops
from syncflow.ops import native


def bias_gelu(x: Tensor, bias_C: Tensor | None = None) -> Tensor:
    """GELU(x + bias), of x's shape and dtype. x [..., C]; bias [C] or None.

    Takes x over: where nothing needs a gradient, its memory holds the result.
    """
    _check(x, bias_C)
    if not native.usable("bias_gelu", x, bias_C):
        return bias_gelu_reference(x, bias_C)
    rows = (prod(x.shape[:-1]), x.shape[-1])
    keep = native.differentiable(x, bias_C)
    if not keep and x.is_contiguous() and native.usable("bias_gelu_", x, bias_C):
        torch.ops.syncflow.bias_gelu_(x.view(rows), bias_C)
        return x
    return torch.ops.syncflow.bias_gelu(x.reshape(rows), bias_C).view(x.shape)


def bias_gelu_reference(x: Tensor, bias_C: Tensor | None = None) -> Tensor:
    """`bias_gelu` in plain PyTorch."""
    _check(x, bias_C)
    z = x if bias_C is None else x + bias_C
    return F.gelu(z, approximate="tanh").to(x.dtype)


def linear_gelu(x: Tensor, weight_CK: Tensor, bias_C: Tensor) -> Tensor:
    """GELU(x weight^T + bias), [..., K] -> [..., C].

    On CUDA in 16 bits, where nothing needs a gradient, the matrix product applies bias and GELU
    before it writes; on the CPU that product's GELU is another (by the error function).
    """
    fused = x.is_cuda and x.dtype in (torch.bfloat16, torch.float16) and x.dtype == weight_CK.dtype
    if not fused or ops.reference_only() or native.differentiable(x, weight_CK, bias_C):
        return bias_gelu(F.linear(x, weight_CK, bias_C))
    rows = x.reshape(-1, x.shape[-1])
    out = torch._addmm_activation(bias_C, rows, weight_CK.t(), use_gelu=True)
    return out.view(*x.shape[:-1], -1)


def _check(x: Tensor, bias_C: Tensor | None) -> None:
    if x.ndim == 0:
        raise ValueError("x must have at least one axis, but is a scalar")
    if bias_C is not None and bias_C.shape != x.shape[-1:]:
        raise ValueError(
            f"bias of shape {tuple(bias_C.shape)} must be [{x.shape[-1]}], the last axis of x"
        )


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad):
    x, bias = ctx.saved_tensors
    grad_x, grad_bias = torch.ops.syncflow.bias_gelu_backward(grad, x, bias)
    return grad_x, None if bias is None else grad_bias


native.register(
    "bias_gelu",
    fake=lambda x, bias: x.new_empty(x.shape),
    backward=_backward,
    setup_context=_save,
    backward_fake=lambda grad, x, bias: (
        x.new_empty(x.shape),
        x.new_empty(0) if bias is None else bias.new_empty(bias.shape),
    ),
)
native.register_fake("bias_gelu_", lambda x, bias: None)
