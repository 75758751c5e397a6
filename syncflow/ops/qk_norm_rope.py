"""Queries and keys made ready on the packed projection: RMSNorm per head, then RoPE.

    q = rope(q_weight * q / rms(q)),  k likewise,  v as it is;  rms(x) = sqrt(mean(x^2) + eps)

Either weight may be None (that operand is not normed), and so may the rotation. Arithmetic is
float32 (float64 for float64); the result has the dtype of qkv, so that attention reads it as it
lies, with no permutation or copy.
"""

from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from syncflow.ops import native, verify
from syncflow.ops.rotation import rotate


def qk_norm_rope(
    qkv_BN3HD: Tensor,
    q_weight_D: Tensor | None,
    k_weight_D: Tensor | None,
    rotation_NP2: Tensor | None = None,
    interleaved: bool = True,
    eps: float = 1e-6,
) -> Tensor:
    """Packed queries, keys and values with queries and keys normed and rotated.

    Takes qkv over: where nothing needs a gradient, its memory holds the result.

    Args:
        qkv_BN3HD: [B, N, 3, H, D].
        q_weight_D, k_weight_D: gains of the per-head RMSNorm.
        rotation_NP2: a table of `syncflow.ops.rotation`, [N, D/2, 2].
        interleaved: which elements are pairs, see there.
        eps: added to the mean square.

    Returns:
        [B, N, 3, H, D].
    """
    if q_weight_D is None and k_weight_D is None and rotation_NP2 is None:
        check_packed(qkv_BN3HD, None, None, None)
        return qkv_BN3HD
    given = (qkv_BN3HD, q_weight_D, k_weight_D, rotation_NP2)
    plan = _QK_NORM_ROPE.plan(*given, extra=interleaved)
    if plan is None:
        return qk_norm_rope_reference(*given, interleaved, eps)
    call, inplace, _ = plan
    if inplace is None or qkv_BN3HD.stride(-1) != 1:
        return call(*given, interleaved, eps)
    inplace(*given, interleaved, eps)
    return qkv_BN3HD


def qk_norm_rope_reference(
    qkv_BN3HD: Tensor,
    q_weight_D: Tensor | None,
    k_weight_D: Tensor | None,
    rotation_NP2: Tensor | None = None,
    interleaved: bool = True,
    eps: float = 1e-6,
) -> Tensor:
    """`qk_norm_rope` in plain PyTorch."""
    check_packed(qkv_BN3HD, q_weight_D, k_weight_D, rotation_NP2)
    q_BNHD, k_BNHD, v_BNHD = qkv_BN3HD.unbind(2)

    def ready(x_BNHD: Tensor, weight_D: Tensor | None) -> Tensor:
        x_BNHD = _rms_norm(x_BNHD, weight_D, eps)
        if rotation_NP2 is not None:
            x_BNHD = rotate(x_BNHD, rotation_NP2, interleaved)
        return x_BNHD.to(qkv_BN3HD.dtype)

    return torch.stack((ready(q_BNHD, q_weight_D), ready(k_BNHD, k_weight_D), v_BNHD), 2)


def check_packed(
    qkv: Tensor, q_weight_D: Tensor | None, k_weight_D: Tensor | None, rotation: Tensor | None
) -> None:
    """Raises ValueError for shapes that do not belong together; qkv is [B, N, (S,) 3, H, D]."""
    if qkv.ndim not in (5, 6) or qkv.shape[-3] != 3:
        raise ValueError(
            f"qkv must be [B, N, 3, H, D] or [B, T, S, 3, H, D], not {tuple(qkv.shape)}"
        )
    D = qkv.shape[-1]
    for name, weight in (("q_weight", q_weight_D), ("k_weight", k_weight_D)):
        if weight is not None and weight.shape != (D,):
            raise ValueError(
                f"{name} of shape {tuple(weight.shape)} must be [{D}], the head dimension of qkv"
            )
    if rotation is None:
        return
    if D % 2:
        raise ValueError(f"the head dimension must be even for rotary pairs, not {D}")
    if rotation.shape != (qkv.shape[1], D // 2, 2):
        raise ValueError(
            f"rotation of shape {tuple(rotation.shape)} must be {(qkv.shape[1], D // 2, 2)} "
            f"for qkv {tuple(qkv.shape)}"
        )


def _rms_norm(x: Tensor, weight_D: Tensor | None, eps: float) -> Tensor:
    x = x.to(torch.float64 if x.dtype == torch.float64 else torch.float32)
    if weight_D is None:
        return x
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight_D


class PackedContext(native.ContextWithEps, Protocol):
    """Of the ops on a packed projection."""

    interleaved: bool


def _save(ctx: PackedContext, inputs: native.Inputs, output: Tensor) -> None:
    *tensors, ctx.interleaved, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: PackedContext, grad: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    grads = native.gradient("qk_norm_rope", grad, *saved, ctx.interleaved, ctx.eps)
    return *packed_gradients(grads, saved), None, None, None


def packed_gradients(
    grads: tuple[Tensor, Tensor, Tensor], saved: tuple[Tensor | None, ...]
) -> list[Tensor | None]:
    """Gradients of qkv and the two weights, None where there is no weight."""
    return [None if t is None else grad for grad, t in zip(grads, saved[:3], strict=True)]


def packed_gradients_fake(
    qkv: Tensor, q_weight_D: Tensor | None, k_weight_D: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """What the backward ops on a packed projection return, uninitialised."""
    none = qkv.new_empty(0, dtype=torch.float64 if qkv.dtype == torch.float64 else torch.float32)
    q_grad, k_grad = (torch.empty_like(none if w is None else w) for w in (q_weight_D, k_weight_D))
    return qkv.new_empty(qkv.shape), q_grad, k_grad


native.register(
    "qk_norm_rope",
    fake=lambda qkv, *rest: qkv.new_empty(qkv.shape),
    backward=_backward,
    setup_context=_save,
    backward_fake=lambda grad, qkv, q_weight, k_weight, *rest: packed_gradients_fake(
        qkv, q_weight, k_weight
    ),
)
native.register_fake("qk_norm_rope_", lambda *arguments: None)


def _plan(
    qkv: Tensor,
    q_weight_D: Tensor | None,
    k_weight_D: Tensor | None,
    rotation: Tensor | None,
    interleaved: bool,
) -> tuple[()]:
    check_packed(qkv, q_weight_D, k_weight_D, rotation)
    return ()


def packed_problem(
    qkv: Tensor, q_weight_D: Tensor | None, k_weight_D: Tensor | None, rotation: Tensor | None
) -> list[tuple[int, ...] | None]:
    """Shapes of a small call with heads of this size: one sample, five tokens, two heads."""
    N, D = min(qkv.shape[1], 5), qkv.shape[-1]
    weights = [None if w is None else (D,) for w in (q_weight_D, k_weight_D)]
    return [(1, N, 3, 2, D), *weights, None if rotation is None else (N, D // 2, 2)]


def _problem(
    qkv: Tensor,
    q_weight_D: Tensor | None,
    k_weight_D: Tensor | None,
    rotation: Tensor | None,
    interleaved: bool,
) -> verify.Problem:
    return verify.Problem(
        packed_problem(qkv, q_weight_D, k_weight_D, rotation),
        kernel=partial(qk_norm_rope, interleaved=interleaved),
        twin=partial(qk_norm_rope_reference, interleaved=interleaved),
        kind=interleaved,
    )


_QK_NORM_ROPE: native.Operator[tuple[()], Tensor] = native.Operator(
    "qk_norm_rope", _plan, problem=_problem, inplace="qk_norm_rope_"
)
