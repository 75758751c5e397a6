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

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from syncflow.ops import native


def adaln(x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6) -> Tensor:
    """LN(x) * (1 + scale) + shift, of x's dtype. x [B, ..., C]; the others [B, C] or [B, T, C]."""
    if not native.usable("adaln", x, shift, scale):
        return adaln_reference(x, shift, scale, eps)
    GSC, modulations_GC = _grouped(x, shift=shift, scale=scale)
    out_GSC = torch.ops.syncflow.adaln(_shaped(x, GSC), *modulations_GC, eps)
    return _shaped(out_GSC, x.shape)


def adaln_reference(x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6) -> Tensor:
    """`adaln` in plain PyTorch."""
    _check_modulation(x, shift=shift, scale=scale)
    normed = F.layer_norm(x, (x.shape[-1],), eps=eps)
    return (normed * (1 + _over_tokens(scale, x)) + _over_tokens(shift, x)).to(x.dtype)


def gate_residual(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """x + gate * y, of x's dtype. x, y [B, ..., C]; gate [B, C] or [B, T, C]."""
    if not native.usable("gate_residual", x, y, gate):
        return gate_residual_reference(x, y, gate)
    _check_same_shape(x, y)
    GSC, (gate_GC,) = _grouped(x, gate=gate)
    sum_GSC = torch.ops.syncflow.gate_residual(_shaped(x, GSC), _shaped(y, GSC), gate_GC)
    return _shaped(sum_GSC, x.shape)


def gate_residual_reference(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """`gate_residual` in plain PyTorch."""
    _check_same_shape(x, y)
    _check_modulation(x, gate=gate)
    return (x + _over_tokens(gate, x) * y).to(x.dtype)


def gate_residual_adaln(
    x: Tensor, y: Tensor, gate: Tensor | None, shift: Tensor, scale: Tensor, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """x' = x + gate * y and adaln(x', shift, scale), both of x's dtype. gate=None adds y itself."""
    if not native.usable("gate_residual_adaln", x, y, gate, shift, scale):
        return gate_residual_adaln_reference(x, y, gate, shift, scale, eps)
    _check_same_shape(x, y)
    GSC, modulations_GC = _grouped(x, gate=gate, shift=shift, scale=scale)
    sum_GSC, out_GSC = torch.ops.syncflow.gate_residual_adaln(
        _shaped(x, GSC), _shaped(y, GSC), *modulations_GC, eps
    )
    return _shaped(sum_GSC, x.shape), _shaped(out_GSC, x.shape)


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
    if not native.usable("residual_layernorm", x, y, weight, bias):
        return residual_layernorm_reference(x, y, weight, bias, eps)
    _check_same_shape(x, y)
    _check_affine(x, weight=weight, bias=bias)
    GSC = x.shape if x.ndim == 3 else (1, prod(x.shape[:-1]), x.shape[-1])
    out_GSC = torch.ops.syncflow.residual_layernorm(
        _shaped(x, GSC), _shaped(y, GSC), weight, bias, eps
    )
    return _shaped(out_GSC, x.shape)


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
    given = (x, y, weight, bias)
    if native.differentiable(*given) or not native.usable("layernorm_of_sum", *given):
        return layernorm_of_sum_reference(x, y, weight, bias, eps)
    _check_same_shape(x, y)
    _check_affine(x, weight=weight, bias=bias)
    GSC = (1, prod(x.shape[:-1]), x.shape[-1])
    out_GSC = torch.ops.syncflow.layernorm_of_sum(
        _shaped(x, GSC), _shaped(y, GSC), weight, bias, eps
    )
    return _shaped(out_GSC, x.shape)


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
    return *torch.ops.syncflow.adaln_backward(grad, *ctx.saved_tensors, ctx.eps), None


def _save_gate_residual(ctx, inputs, output):
    x, y, gate = inputs
    ctx.save_for_backward(y, gate)


def _gate_residual_backward(ctx, grad):
    y, gate = ctx.saved_tensors
    return grad, *torch.ops.syncflow.gate_residual_backward(grad, y, gate)


def _save_gate_residual_adaln(ctx, inputs, output):
    x, y, gate, shift, scale, ctx.eps = inputs
    ctx.save_for_backward(output[0], y, gate, shift, scale)


def _gate_residual_adaln_backward(ctx, grad_sum, grad_out):
    saved = ctx.saved_tensors
    grads = torch.ops.syncflow.gate_residual_adaln_backward(grad_sum, grad_out, *saved, ctx.eps)
    grad_x, grad_y, grad_gate, grad_shift, grad_scale = grads
    return grad_x, grad_y, None if saved[2] is None else grad_gate, grad_shift, grad_scale, None


def _save_residual_layernorm(ctx, inputs, output):
    x, y, weight, bias, ctx.eps = inputs
    ctx.save_for_backward(y, weight, bias)


def _residual_layernorm_backward(ctx, grad):
    grads = torch.ops.syncflow.residual_layernorm_backward(grad, *ctx.saved_tensors, ctx.eps)
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


def _shaped(t: Tensor, shape: tuple[int, ...]) -> Tensor:
    # A view costs as much as all the checks of a small call.
    return t if t.shape == shape else t.reshape(shape)


def _grouped(
    x: Tensor, **modulations: Tensor | None
) -> tuple[tuple[int, ...], list[Tensor | None]]:
    """(G, S, C) for x and each modulation as [G, C]: a group's tokens share one modulation row."""
    _check_modulation(x, **modulations)
    shapes = {m.shape for m in modulations.values() if m is not None}
    if len(shapes) == 1:
        (shape,) = shapes
        if len(shape) == 2 and shape[0] == x.shape[0] and x.ndim > 2:
            S = x.shape[1] if x.ndim == 3 else prod(x.shape[1:-1])
            return (shape[0], S, shape[1]), list(modulations.values())
    depth = 0  # how many leading axes of x tell modulation rows apart
    for m in modulations.values():
        if m is not None:
            depth = max([depth] + [axis + 1 for axis, n in enumerate(m.shape[:-1]) if n != 1])
    lead, channels = x.shape[:depth], x.shape[-1]
    rows = []
    for m in modulations.values():
        if m is not None:
            m = m.reshape(*m.shape[:-1][:depth], *(1,) * max(0, depth - m.ndim + 1), channels)
            m = m.expand(*lead, channels).reshape(prod(lead), channels)
        rows.append(m)
    return (prod(lead), prod(x.shape[depth:-1]), channels), rows
