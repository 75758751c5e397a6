"""LayerNorm and modulation: the element-wise half of every transformer block, in one pass.

    adaln                 LN(x) * (1 + scale) + shift
    gate_residual         x + gate * y
    gate_residual_adaln   x' = x + gate * y;  x', LN(x') * (1 + scale) + shift
    residual_layernorm    x + LN(y) * weight + bias
    layernorm_of_sum      LN(x + y) * weight + bias

The first three are the video tower's (LN without parameters of its own), then the audio tower's
norm after a transformation and the adaptor's.

Axes: x is [B, ..., C] with any token axes between. A modulation tensor (shift, scale, gate) is [B,
C], or [B, T, C] where its leading axes are matched with x's leading axes from the left, each equal
or 1, and broadcast over the rest: [B, C] over all tokens of a sample, [B, T, C] over the S tokens
of each frame of an x [B, T, S, C]. Inside, x is G groups of S tokens that share one modulation row:
[G, S, C].

Results have x's dtype; arithmetic is float32 (float64 for float64). Modulation and weights may be
of another floating dtype than x, as may y. Backward saves the inputs and no statistics: a row's
mean and variance are recomputed.
"""

from collections.abc import Callable
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from syncflow.ops import native, verify
from syncflow.ops.modulation import (
    Grouping,
    Shape,
    check_affine,
    check_modulation,
    check_same_shape,
    grouped,
    over_tokens,
    spread,
)

Both = tuple[Tensor, Tensor]


def adaln(x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6) -> Tensor:
    """LN(x) * (1 + scale) + shift, of x's dtype. x [B, ..., C]; the others [B, C] or [B, T, C]."""
    plan = _ADALN.plan(x, shift, scale)
    if plan is None:
        return adaln_reference(x, shift, scale, eps)
    call, _, shapes = plan
    if not shapes:
        return call(x, shift, scale, eps)
    GSC, rows = shapes
    return call(x.reshape(GSC), *spread(rows, shift, scale), eps).reshape(x.shape)


def adaln_reference(x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6) -> Tensor:
    """`adaln` in plain PyTorch."""
    check_modulation(x, shift=shift, scale=scale)
    normed = F.layer_norm(x, (x.shape[-1],), eps=eps)
    return (normed * (1 + over_tokens(scale, x)) + over_tokens(shift, x)).to(x.dtype)


def gate_residual(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """x + gate * y, of x's dtype. x, y [B, ..., C]; gate [B, C] or [B, T, C]."""
    plan = _GATE_RESIDUAL.plan(x, y, gate)
    if plan is None:
        return gate_residual_reference(x, y, gate)
    call, _, shapes = plan
    if not shapes:
        return call(x, y, gate)
    GSC, rows = shapes
    return call(x.reshape(GSC), y.reshape(GSC), *spread(rows, gate)).reshape(x.shape)


def gate_residual_reference(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """`gate_residual` in plain PyTorch."""
    check_same_shape(x, y)
    check_modulation(x, gate=gate)
    return (x + over_tokens(gate, x) * y).to(x.dtype)


def gate_residual_adaln(
    x: Tensor, y: Tensor, gate: Tensor | None, shift: Tensor, scale: Tensor, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """x' = x + gate * y and adaln(x', shift, scale), both of x's dtype. gate=None adds y itself."""
    plan = _GATE_RESIDUAL_ADALN.plan(x, y, gate, shift, scale)
    if plan is None:
        return gate_residual_adaln_reference(x, y, gate, shift, scale, eps)
    call, _, shapes = plan
    if not shapes:
        return call(x, y, gate, shift, scale, eps)
    GSC, rows = shapes
    sum_GSC, out_GSC = call(x.reshape(GSC), y.reshape(GSC), *spread(rows, gate, shift, scale), eps)
    return sum_GSC.reshape(x.shape), out_GSC.reshape(x.shape)


def gate_residual_adaln_reference(
    x: Tensor, y: Tensor, gate: Tensor | None, shift: Tensor, scale: Tensor, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """`gate_residual_adaln` in plain PyTorch."""
    check_same_shape(x, y)
    x = (x + y).to(x.dtype) if gate is None else gate_residual_reference(x, y, gate)
    return x, adaln_reference(x, shift, scale, eps)


def residual_layernorm(
    x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5
) -> Tensor:
    """x + LN(y) * weight + bias, of x's dtype; weight, bias [C]. The transformation y is normed."""
    return _affine(_RESIDUAL_LAYERNORM, residual_layernorm_reference, x, y, weight, bias, eps)


def residual_layernorm_reference(
    x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5
) -> Tensor:
    """`residual_layernorm` in plain PyTorch."""
    check_same_shape(x, y)
    check_affine(x, weight=weight, bias=bias)
    return (x + F.layer_norm(y, (y.shape[-1],), eps=eps) * weight + bias).to(x.dtype)


def layernorm_of_sum(
    x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5
) -> Tensor:
    """LN(x + y) * weight + bias, of x's dtype; weight, bias [C]. The kernel has no gradient."""
    return _affine(_LAYERNORM_OF_SUM, layernorm_of_sum_reference, x, y, weight, bias, eps)


def layernorm_of_sum_reference(
    x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5
) -> Tensor:
    """`layernorm_of_sum` in plain PyTorch."""
    check_same_shape(x, y)
    check_affine(x, weight=weight, bias=bias)
    return F.layer_norm(x + y, (x.shape[-1],), weight, bias, eps).to(x.dtype)


# What tracing and autograd need to know of the compiled ops (csrc/bindings.cpp)


def _save_adaln(ctx: native.ContextWithEps, inputs: native.Inputs, output: Tensor) -> None:
    x, shift, scale, ctx.eps = inputs
    ctx.save_for_backward(x, shift, scale)


def _adaln_backward(ctx: native.ContextWithEps, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *native.gradient("adaln", grad, *ctx.saved_tensors, ctx.eps), None


def _save_gate_residual(ctx: native.Context, inputs: native.Inputs, output: Tensor) -> None:
    x, y, gate = inputs
    ctx.save_for_backward(y, gate)


def _gate_residual_backward(ctx: native.Context, grad: Tensor) -> tuple[Tensor | None, ...]:
    y, gate = ctx.saved_tensors
    return grad, *native.gradient("gate_residual", grad, y, gate)


def _save_gate_residual_adaln(
    ctx: native.ContextWithEps, inputs: native.Inputs, output: Both
) -> None:
    x, y, gate, shift, scale, ctx.eps = inputs
    ctx.save_for_backward(output[0], y, gate, shift, scale)


def _gate_residual_adaln_backward(
    ctx: native.ContextWithEps, grad_sum: Tensor, grad_out: Tensor
) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    grads = native.gradient("gate_residual_adaln", grad_sum, grad_out, *saved, ctx.eps)
    grad_x, grad_y, grad_gate, grad_shift, grad_scale = grads
    return grad_x, grad_y, None if saved[2] is None else grad_gate, grad_shift, grad_scale, None


def _save_residual_layernorm(
    ctx: native.ContextWithEps, inputs: native.Inputs, output: Tensor
) -> None:
    x, y, weight, bias, ctx.eps = inputs
    ctx.save_for_backward(y, weight, bias)


def _residual_layernorm_backward(
    ctx: native.ContextWithEps, grad: Tensor
) -> tuple[Tensor | None, ...]:
    grads = native.gradient("residual_layernorm", grad, *ctx.saved_tensors, ctx.eps)
    return grad, *grads, None


def _like(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in tensors)


native.register(
    "adaln",
    fake=lambda x, shift, scale, eps: _like(x)[0],
    backward=_adaln_backward,
    setup_context=_save_adaln,
    backward_fake=lambda grad, x, shift, scale, eps: _like(x, shift, scale),
)
native.register(
    "gate_residual",
    fake=lambda x, y, gate: _like(x)[0],
    backward=_gate_residual_backward,
    setup_context=_save_gate_residual,
    backward_fake=lambda grad, y, gate: _like(y, gate),
)
native.register(
    "gate_residual_adaln",
    fake=lambda x, y, gate, shift, scale, eps: _like(x, x),
    backward=_gate_residual_adaln_backward,
    setup_context=_save_gate_residual_adaln,
    backward_fake=lambda grad_sum, grad_out, sum_, y, gate, shift, scale, eps: _like(
        sum_, y, sum_.new_empty(0) if gate is None else gate, shift, scale
    ),
)
native.register(
    "residual_layernorm",
    fake=lambda x, y, weight, bias, eps: _like(x)[0],
    backward=_residual_layernorm_backward,
    setup_context=_save_residual_layernorm,
    backward_fake=lambda grad, y, weight, bias, eps: _like(y, weight, bias),
)
native.register_fake("layernorm_of_sum", lambda x, y, weight, bias, eps: _like(x)[0])


def _plan_gated(x: Tensor, y: Tensor, gate: Tensor | None, **others: Tensor) -> Grouping:
    check_same_shape(x, y)
    return grouped(x, gate=gate, **others)


def _plan_affine(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor) -> Shape:
    check_same_shape(x, y)
    check_affine(x, weight=weight, bias=bias)
    return () if x.ndim == 3 else (1, prod(x.shape[:-1]), x.shape[-1])


def _affine(
    operator: native.Operator[Shape, Tensor],
    twin: Callable[..., Tensor],
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
) -> Tensor:
    plan = operator.plan(x, y, weight, bias)
    if plan is None:
        return twin(x, y, weight, bias, eps)
    call, _, GSC = plan
    if not GSC:
        return call(x, y, weight, bias, eps)
    return call(x.reshape(GSC), y.reshape(GSC), weight, bias, eps).reshape(x.shape)


def _problem(
    kernel: verify.Call, twin: verify.Call, tokens: int, rows: int
) -> Callable[..., verify.Problem]:
    """Two samples of three tokens: the first `tokens` tensors [2, 3, C], then [2, C], or [C]."""

    def small(x: Tensor, *others: Tensor | None) -> verify.Problem:
        C = x.shape[-1]
        sizes = [(2, 3, C)] * (tokens - 1) + [(2, C)[2 - rows :]] * (len(others) - tokens + 1)
        rest = [None if t is None else s for t, s in zip(others, sizes, strict=True)]
        return verify.Problem([(2, 3, C), *rest], kernel, twin)

    return small


_ADALN: native.Operator[Grouping, Tensor] = native.Operator(
    "adaln",
    plan=lambda x, shift, scale: grouped(x, shift=shift, scale=scale),
    problem=_problem(adaln, adaln_reference, 1, 2),
)
_GATE_RESIDUAL: native.Operator[Grouping, Tensor] = native.Operator(
    "gate_residual",
    plan=_plan_gated,
    problem=_problem(gate_residual, gate_residual_reference, 2, 2),
)
_GATE_RESIDUAL_ADALN: native.Operator[Grouping, Both] = native.Operator(
    "gate_residual_adaln",
    plan=lambda x, y, gate, shift, scale: _plan_gated(x, y, gate, shift=shift, scale=scale),
    problem=_problem(gate_residual_adaln, gate_residual_adaln_reference, 2, 2),
)
_RESIDUAL_LAYERNORM: native.Operator[Shape, Tensor] = native.Operator(
    "residual_layernorm",
    plan=_plan_affine,
    problem=_problem(residual_layernorm, residual_layernorm_reference, 2, 1),
)
_LAYERNORM_OF_SUM: native.Operator[Shape, Tensor] = native.Operator(
    "layernorm_of_sum",
    plan=_plan_affine,
    gradient=lambda device: False,
    problem=_problem(layernorm_of_sum, layernorm_of_sum_reference, 2, 1),
)
