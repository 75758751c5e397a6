"""GELU in its tanh form, with the bias of the product before it: 0.5 z (1 + tanh(u)), z = x + bias,
u = sqrt(2 / pi) (z + 0.044715 z^3).

Arithmetic is float32 (float64 for float64); the result has the dtype of x. Backward saves x.
"""

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from syncflow import ops
from syncflow.ops import native, verify


def bias_gelu(x: Tensor, bias_C: Tensor | None = None) -> Tensor:
    """GELU(x + bias), of x's shape and dtype. x [..., C]; bias [C] or None.

    Takes x over: where nothing needs a gradient, its memory holds the result.
    """
    plan = _BIAS_GELU.plan(x, bias_C)
    if plan is None:
        return bias_gelu_reference(x, bias_C)
    call, inplace, rows = plan
    if inplace is not None and x.is_contiguous():
        inplace(x.view(rows) if rows else x, bias_C)
        return x
    return call(x.reshape(rows), bias_C).view(x.shape) if rows else call(x, bias_C)


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


def _save(ctx: native.Context, inputs: native.Inputs, output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: native.Context, grad: Tensor) -> tuple[Tensor, Tensor | None]:
    x, bias = ctx.saved_tensors
    grad_x, grad_bias = native.gradient("bias_gelu", grad, x, bias)
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


Rows = tuple[()] | tuple[int, int]


def _plan(x: Tensor, bias_C: Tensor | None) -> Rows:
    """() or the rows and channels as which the kernel is to see x."""
    _check(x, bias_C)
    return () if x.ndim == 2 else (prod(x.shape[:-1]), x.shape[-1])


def _problem(x: Tensor, bias_C: Tensor | None) -> verify.Problem:
    C = x.shape[-1]
    shapes = [(3, C), None if bias_C is None else (C,)]
    return verify.Problem(shapes, bias_gelu, bias_gelu_reference)


_BIAS_GELU: native.Operator[Rows, Tensor] = native.Operator(
    "bias_gelu", _plan, problem=_problem, inplace="bias_gelu_"
)
