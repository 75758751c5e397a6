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


def adaln(x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6) -> Tensor:
    """LN(x) * (1 + scale) + shift, of x's dtype. x [B, ..., C]; the others [B, C] or [B, T, C]."""
    plan = _ADALN.plan(x, shift, scale)
    if plan is None:
        return adaln_reference(x, shift, scale, eps)
    call, _, shapes = plan
    if not shapes:
        return call(x, shift, scale, eps)
    GSC, rows = shapes
    return call(x.reshape(GSC), *_spread(rows, shift, scale), eps).reshape(x.shape)


def adaln_reference(x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6) -> Tensor:
    """`adaln` in plain PyTorch."""
    _check_modulation(x, shift=shift, scale=scale)
    normed = F.layer_norm(x, (x.shape[-1],), eps=eps)
    return (normed * (1 + _over_tokens(scale, x)) + _over_tokens(shift, x)).to(x.dtype)


def gate_residual(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """x + gate * y, of x's dtype. x, y [B, ..., C]; gate [B, C] or [B, T, C]."""
    plan = _GATE_RESIDUAL.plan(x, y, gate)
    if plan is None:
        return gate_residual_reference(x, y, gate)
    call, _, shapes = plan
    if not shapes:
        return call(x, y, gate)
    GSC, rows = shapes
    return call(x.reshape(GSC), y.reshape(GSC), *_spread(rows, gate)).reshape(x.shape)


def gate_residual_reference(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """`gate_residual` in plain PyTorch."""
    _check_same_shape(x, y)
    _check_modulation(x, gate=gate)
    return (x + _over_tokens(gate, x) * y).to(x.dtype)


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
    sum_GSC, out_GSC = call(x.reshape(GSC), y.reshape(GSC), *_spread(rows, gate, shift, scale), eps)
    return sum_GSC.reshape(x.shape), out_GSC.reshape(x.shape)


def gate_residual_adaln_reference(
    x: Tensor, y: Tensor, gate: Tensor | None, shift: Tensor, scale: Tensor, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """`gate_residual_adaln` in plain PyTorch."""
    _check_same_shape(x, y)
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
    _check_same_shape(x, y)
    _check_affine(x, weight=weight, bias=bias)
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
    _check_same_shape(x, y)
    _check_affine(x, weight=weight, bias=bias)
    return F.layer_norm(x + y, (x.shape[-1],), weight, bias, eps).to(x.dtype)


# What tracing and autograd need to know of the compiled ops (csrc/bindings.cpp)


def _save_adaln(ctx, inputs, output):
    x, shift, scale, ctx.eps = inputs
    ctx.save_for_backward(x, shift, scale)


def _adaln_backward(ctx, grad):
    return *native.gradient("adaln", grad, *ctx.saved_tensors, ctx.eps), None


def _save_gate_residual(ctx, inputs, output):
    x, y, gate = inputs
    ctx.save_for_backward(y, gate)


def _gate_residual_backward(ctx, grad):
    y, gate = ctx.saved_tensors
    return grad, *native.gradient("gate_residual", grad, y, gate)


def _save_gate_residual_adaln(ctx, inputs, output):
    x, y, gate, shift, scale, ctx.eps = inputs
    ctx.save_for_backward(output[0], y, gate, shift, scale)


def _gate_residual_adaln_backward(ctx, grad_sum, grad_out):
    saved = ctx.saved_tensors
    grads = native.gradient("gate_residual_adaln", grad_sum, grad_out, *saved, ctx.eps)
    grad_x, grad_y, grad_gate, grad_shift, grad_scale = grads
    return grad_x, grad_y, None if saved[2] is None else grad_gate, grad_shift, grad_scale, None


def _save_residual_layernorm(ctx, inputs, output):
    x, y, weight, bias, ctx.eps = inputs
    ctx.save_for_backward(y, weight, bias)


def _residual_layernorm_backward(ctx, grad):
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


# Shapes


def _check_modulation(x: Tensor, **tensors: Tensor | None) -> None:
    right = None
    for name, m in tensors.items():
        # The usual case first: at small sizes these checks cost as much as the kernel.
        if m is None or m.shape == right:
            continue
        fits = 1 <= m.ndim <= x.ndim and m.shape[-1] == x.shape[-1]
        if fits and m.shape[:-1] == x.shape[: m.ndim - 1]:
            right = m.shape
            continue
        if not fits or any(a not in (1, b) for a, b in zip(m.shape[:-1], x.shape, strict=False)):
            raise ValueError(
                f"{name} of shape {tuple(m.shape)} does not modulate x of shape {tuple(x.shape)}: "
                f"its last axis must be x's, and each axis before it x's own, from the left, or 1"
            )


def _check_same_shape(x: Tensor, y: Tensor) -> None:
    if x.shape != y.shape:
        raise ValueError(f"x {tuple(x.shape)} and y {tuple(y.shape)} must have one shape")


def _check_affine(x: Tensor, **tensors: Tensor) -> None:
    for name, w in tensors.items():
        if w.shape != x.shape[-1:]:
            raise ValueError(
                f"{name} of shape {tuple(w.shape)} must be [{x.shape[-1]}], the last axis of x"
            )


def _over_tokens(m: Tensor, x: Tensor) -> Tensor:
    """m [B, C] or [B, T, C] with the token axes that x has and m lacks, each of length 1."""
    return m.reshape(*m.shape[:-1], *(1,) * (x.ndim - m.ndim), m.shape[-1])


# The plan of a call: () where the shapes are the kernel's own, else what to make of them. A view
# costs as much as the rest of a small call.

Shape = tuple[int, ...]
# How a modulation becomes [G, C]: a view of it, expanded, and made rows; None: as it is.
Rows = tuple[Shape, Shape, Shape] | None


def _grouped(x: Tensor, **modulations: Tensor | None) -> tuple[()] | tuple[Shape, list[Rows]]:
    """(G, S, C) for x and how each modulation becomes [G, C]: a group shares one modulation row."""
    _check_modulation(x, **modulations)
    shapes = {m.shape for m in modulations.values() if m is not None}
    if len(shapes) == 1:
        (shape,) = shapes
        if len(shape) == 2 and shape[0] == x.shape[0] and x.ndim > 2:
            if x.ndim == 3:
                return ()
            return (shape[0], prod(x.shape[1:-1]), shape[1]), [None] * len(modulations)
    depth = 0  # how many leading axes of x tell modulation rows apart
    for m in modulations.values():
        if m is not None:
            depth = max([depth] + [axis + 1 for axis, n in enumerate(m.shape[:-1]) if n != 1])
    lead, channels = tuple(x.shape[:depth]), x.shape[-1]
    rows: list[Rows] = []
    for m in modulations.values():
        row = None
        if m is not None:
            view = (*m.shape[:-1][:depth], *(1,) * max(0, depth - m.ndim + 1), channels)
            row = (view, (*lead, channels), (prod(lead), channels))
        rows.append(row)
    return (prod(lead), prod(x.shape[depth:-1]), channels), rows


def _spread(rows: list[Rows], *modulations: Tensor | None) -> list[Tensor | None]:
    """Each modulation as [G, C]."""
    return [
        m if row is None or m is None else m.reshape(row[0]).expand(row[1]).reshape(row[2])
        for m, row in zip(modulations, rows, strict=True)
    ]


def _plan_gated(
    x: Tensor, y: Tensor, gate: Tensor | None, **others: Tensor
) -> tuple[()] | tuple[Shape, list[Rows]]:
    _check_same_shape(x, y)
    return _grouped(x, gate=gate, **others)


def _plan_affine(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor) -> Shape:
    _check_same_shape(x, y)
    _check_affine(x, weight=weight, bias=bias)
    return () if x.ndim == 3 else (1, prod(x.shape[:-1]), x.shape[-1])


def _affine(
    operator: native.Operator,
    twin: Callable,
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
    kernel: Callable, twin: Callable, tokens: int, rows: int
) -> Callable[..., verify.Problem]:
    """Two samples of three tokens: the first `tokens` tensors [2, 3, C], then [2, C], or [C]."""

    def small(*tensors: Tensor | None) -> verify.Problem:
        C = tensors[0].shape[-1]
        sizes = [(2, 3, C)] * tokens + [(2, C)[2 - rows :]] * (len(tensors) - tokens)
        shapes = [None if t is None else s for t, s in zip(tensors, sizes, strict=True)]
        return verify.Problem(shapes, kernel, twin)

    return small


_ADALN = native.Operator(
    "adaln",
    plan=lambda x, shift, scale: _grouped(x, shift=shift, scale=scale),
    problem=_problem(adaln, adaln_reference, 1, 2),
)
_GATE_RESIDUAL = native.Operator(
    "gate_residual",
    plan=_plan_gated,
    problem=_problem(gate_residual, gate_residual_reference, 2, 2),
)
_GATE_RESIDUAL_ADALN = native.Operator(
    "gate_residual_adaln",
    plan=lambda x, y, gate, shift, scale: _plan_gated(x, y, gate, shift=shift, scale=scale),
    problem=_problem(gate_residual_adaln, gate_residual_adaln_reference, 2, 2),
)
_RESIDUAL_LAYERNORM = native.Operator(
    "residual_layernorm",
    plan=_plan_affine,
    problem=_problem(residual_layernorm, residual_layernorm_reference, 2, 1),
)
_LAYERNORM_OF_SUM = native.Operator(
    "layernorm_of_sum",
    plan=_plan_affine,
    gradient=lambda device: False,
    problem=_problem(layernorm_of_sum, layernorm_of_sum_reference, 2, 1),
)
