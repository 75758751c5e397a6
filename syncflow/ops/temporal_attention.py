"""Attention along time, on the packed projection: RMSNorm of q and k, RoPE, softmax over T.

For each sample b, spatial place s and head h, with rows t = 0..T-1 of D numbers (Open-Sora v1.2's
temporal block):

    q_t = rope_t(q_weight * q_t / rms(q_t)),  k_t likewise,  rms(x) = sqrt(mean(x^2) + eps)
    out = softmax(q k^T / sqrt(D)) v

rope turns the interleaved pairs (2i, 2i+1) by t * theta^(-2i/D). Norm, rotation and softmax are
float32 (float64 for float64); the result has the dtype of qkv. Nothing but the result is written
to memory, and backward saves the inputs alone.
"""

from functools import partial

import torch
from torch import Tensor

from syncflow.ops import native, verify
from syncflow.ops.attention import attention
from syncflow.ops.kept import note
from syncflow.ops.qk_norm_rope import (
    PackedContext,
    check_packed,
    packed_gradients,
    packed_gradients_fake,
    qk_norm_rope_reference,
)
from syncflow.ops.rotation import frame_rotation


def temporal_attention(
    qkv_BTS3HD: Tensor,
    q_weight_D: Tensor | None,
    k_weight_D: Tensor | None,
    theta: float = 1e4,
    eps: float = 1e-6,
) -> Tensor:
    """Attention over T for every place and head of a packed projection.

    Args:
        qkv_BTS3HD: queries, keys and values [B, T, S, 3, H, D]; D even.
        q_weight_D, k_weight_D: gains of the per-head RMSNorm; None leaves q (or k) as it is.
        theta: base of the rotary frequencies.
        eps: added to the mean square.

    Returns:
        [B, T, S, H * D].
    """
    plan = _TEMPORAL_ATTENTION.plan(qkv_BTS3HD, q_weight_D, k_weight_D, extra=theta)
    if plan is None:
        return temporal_attention_reference(qkv_BTS3HD, q_weight_D, k_weight_D, theta, eps)
    call, _, rotation_TP2 = plan
    return call(qkv_BTS3HD, q_weight_D, k_weight_D, note(rotation_TP2), True, eps)


def temporal_attention_reference(
    qkv_BTS3HD: Tensor,
    q_weight_D: Tensor | None,
    k_weight_D: Tensor | None,
    theta: float = 1e4,
    eps: float = 1e-6,
) -> Tensor:
    """`temporal_attention` in plain PyTorch."""
    rotation_TP2 = _rotation(qkv_BTS3HD, theta)
    check_packed(qkv_BTS3HD, q_weight_D, k_weight_D, rotation_TP2)
    B, T, S, _, H, D = qkv_BTS3HD.shape
    qkv_NT3HD = qkv_BTS3HD.transpose(1, 2).flatten(0, 1)
    qkv_NT3HD = qk_norm_rope_reference(qkv_NT3HD, q_weight_D, k_weight_D, rotation_TP2, True, eps)
    out_NHTD = attention(*qkv_NT3HD.permute(2, 0, 3, 1, 4).unbind(0))
    return out_NHTD.reshape(B, S, H, T, D).permute(0, 3, 1, 2, 4).reshape(B, T, S, H * D)


def _rotation(qkv_BTS3HD: Tensor, theta: float) -> Tensor:
    if qkv_BTS3HD.ndim != 6 or qkv_BTS3HD.shape[3] != 3:
        raise ValueError(f"qkv must be [B, T, S, 3, H, D], not {tuple(qkv_BTS3HD.shape)}")
    T, D = qkv_BTS3HD.shape[1], qkv_BTS3HD.shape[-1]
    if D % 2:
        raise ValueError(f"the head dimension must be even for rotary pairs, not {D}")
    dtype = torch.float64 if qkv_BTS3HD.dtype == torch.float64 else torch.float32
    return frame_rotation(T, D, theta, qkv_BTS3HD.device, dtype)


def _save(ctx: PackedContext, inputs: native.Inputs, output: Tensor) -> None:
    *tensors, ctx.interleaved, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: PackedContext, grad: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    grads = native.gradient("temporal_attention", grad, *saved, ctx.interleaved, ctx.eps)
    return *packed_gradients(grads, saved), None, None, None


def _fake(qkv_BTS3HD: Tensor, *rest: object) -> Tensor:
    B, T, S, _, H, D = qkv_BTS3HD.shape
    return qkv_BTS3HD.new_empty(B, T, S, H * D)


native.register(
    "temporal_attention",
    fake=_fake,
    backward=_backward,
    setup_context=_save,
    backward_fake=lambda grad, qkv, q_weight, k_weight, *rest: packed_gradients_fake(
        qkv, q_weight, k_weight
    ),
)


def _plan(
    qkv_BTS3HD: Tensor, q_weight_D: Tensor | None, k_weight_D: Tensor | None, theta: float
) -> Tensor:
    """The table of rotations, which depends on sizes alone."""
    rotation_TP2 = _rotation(qkv_BTS3HD, theta)
    check_packed(qkv_BTS3HD, q_weight_D, k_weight_D, rotation_TP2)
    return rotation_TP2


def _problem(
    qkv_BTS3HD: Tensor, q_weight_D: Tensor | None, k_weight_D: Tensor | None, theta: float
) -> verify.Problem:
    T, D = qkv_BTS3HD.shape[1], qkv_BTS3HD.shape[-1]
    weights = [None if w is None else (D,) for w in (q_weight_D, k_weight_D)]
    return verify.Problem(
        [(1, T, 3, 3, 2, D), *weights],
        kernel=partial(temporal_attention, theta=theta),
        twin=partial(temporal_attention_reference, theta=theta),
    )


_TEMPORAL_ATTENTION: native.Operator[Tensor, Tensor] = native.Operator(
    "temporal_attention", _plan, problem=_problem
)
