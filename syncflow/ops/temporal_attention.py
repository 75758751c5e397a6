"""Attention along time, on the packed projection: RMSNorm of q and k, RoPE, softmax over T.

For each sample b, spatial place s and head h, with rows t = 0..T-1 of D numbers (Open-Sora v1.2's
temporal block):

    q_t = rope_t(q_weight * q_t / rms(q_t)),  k_t likewise,  rms(x) = sqrt(mean(x^2) + eps)
    out = softmax(q k^T / sqrt(D)) v

rope turns the interleaved pairs (2i, 2i+1) by t * theta^(-2i/D). Norm, rotation and softmax are
float32; the result has the dtype of qkv.
"""

import torch
from torch import Tensor

from syncflow.ops.attention import attention


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
    _check(qkv_BTS3HD, q_weight_D, k_weight_D)
    return temporal_attention_reference(qkv_BTS3HD, q_weight_D, k_weight_D, theta, eps)


def temporal_attention_reference(
    qkv_BTS3HD: Tensor,
    q_weight_D: Tensor | None,
    k_weight_D: Tensor | None,
    theta: float = 1e4,
    eps: float = 1e-6,
) -> Tensor:
    """`temporal_attention` in plain PyTorch."""
    _check(qkv_BTS3HD, q_weight_D, k_weight_D)
    B, T, S, _, H, D = qkv_BTS3HD.shape
    q_BSHTD, k_BSHTD, v_BSHTD = qkv_BTS3HD.permute(3, 0, 2, 4, 1, 5).unbind(0)
    cos_TD, sin_TD = rope_table(T, D, theta, qkv_BTS3HD.device, _compute_dtype(qkv_BTS3HD))
    q_BSHTD = _rotate(_rms_norm(q_BSHTD, q_weight_D, eps), cos_TD, sin_TD).to(qkv_BTS3HD.dtype)
    k_BSHTD = _rotate(_rms_norm(k_BSHTD, k_weight_D, eps), cos_TD, sin_TD).to(qkv_BTS3HD.dtype)
    out_NHTD = attention(q_BSHTD.flatten(0, 1), k_BSHTD.flatten(0, 1), v_BSHTD.flatten(0, 1))
    return out_NHTD.reshape(B, S, H, T, D).permute(0, 3, 1, 2, 4).reshape(B, T, S, H * D)


def rope_table(
    T: int, D: int, theta: float, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """cos and sin of t * theta^(-2i/D), each [T, D] with the angle of pair i at 2i and 2i+1."""
    inverse = theta ** (-torch.arange(0, D, 2, device=device, dtype=torch.float64) / D)
    angle_TD = torch.outer(
        torch.arange(T, device=device, dtype=torch.float64), inverse
    ).repeat_interleave(2, -1)
    return angle_TD.cos().to(dtype), angle_TD.sin().to(dtype)


def _check(qkv_BTS3HD: Tensor, q_weight_D: Tensor | None, k_weight_D: Tensor | None) -> None:
    if qkv_BTS3HD.ndim != 6 or qkv_BTS3HD.shape[3] != 3:
        raise ValueError(f"qkv must be [B, T, S, 3, H, D], not {tuple(qkv_BTS3HD.shape)}")
    D = qkv_BTS3HD.shape[-1]
    if D % 2:
        raise ValueError(f"the head dimension must be even for rotary pairs, not {D}")
    for name, weight in (("q_weight", q_weight_D), ("k_weight", k_weight_D)):
        if weight is not None and weight.shape != (D,):
            raise ValueError(
                f"{name} of shape {tuple(weight.shape)} must be [{D}], the head dimension of qkv"
            )


def _compute_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    x = x.to(_compute_dtype(x))
    if weight is None:
        return x
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def _rotate(x: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
    swapped = torch.stack((-x[..., 1::2], x[..., 0::2]), -1).flatten(-2)
    return x * cos_TD + swapped * sin_TD
