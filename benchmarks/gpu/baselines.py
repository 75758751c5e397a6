"""What the kernels are measured against: the arithmetic as Open-Sora v1.2's eager code does it, one
PyTorch operator after another, on the same weights; and libraries, where they are installed."""

import importlib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LayerNorm without parameters, then the modulation; each step its own kernel."""
    normed = F.layer_norm(x, x.shape[-1:], eps=1e-6)
    return normed * (1 + scale[:, None]) + shift[:, None]


def gate_residual_modulate(x, y, gate, shift, scale) -> tuple[Tensor, Tensor]:
    """x [B, N, C] + gate y, and its modulated norm; the others [B, C]."""
    x = x + gate[:, None] * y
    return x, modulate(x, shift, scale)


def residual_layernorm(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x + LN(y), both [B, N, C]."""
    return x + F.layer_norm(y, y.shape[-1:], weight, bias, 1e-5)


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    """As in LLaMA: float32 inside, rounded before the gain."""
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
    return weight * wide.to(x.dtype)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Interleaved pairs of x [..., T, D] turned; table [T, D/2, 2] of (cos, sin)."""
    cos, sin = table.repeat_interleave(2, 1).unbind(-1)
    half = torch.stack((-x[..., 1::2], x[..., 0::2]), -1).flatten(-2)
    return (x * cos + half * sin).to(x.dtype)


def naive(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention by two products around a softmax, [B, H, N, D]."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return scores.float().softmax(-1).to(v.dtype) @ v


def temporal_attention(qkv_BTS3HD, q_weight, k_weight, table, core: Callable = naive) -> Tensor:
    """Rearranged to [B S, H, T, D], normed, rotated, attended, rearranged back."""
    B, T, S, _, H, D = qkv_BTS3HD.shape
    packed = qkv_BTS3HD.permute(0, 2, 1, 3, 4, 5).reshape(B * S, T, 3, H, D)
    q, k, v = packed.permute(2, 0, 3, 1, 4).unbind(0)
    q, k = rotate(rms_norm(q, q_weight), table), rotate(rms_norm(k, k_weight), table)
    out = core(q, k, v).transpose(1, 2).reshape(B, S, T, H * D)
    return out.transpose(1, 2).contiguous()


def spatial_attention(qkv_BTS3HD, q_weight, k_weight, core: Callable) -> Tensor:
    """The same within each frame: [B, T, S, H D]."""
    B, T, S, _, H, D = qkv_BTS3HD.shape
    q, k, v = qkv_BTS3HD.reshape(B * T, S, 3, H, D).permute(2, 0, 3, 1, 4).unbind(0)
    out = core(rms_norm(q, q_weight), rms_norm(k, k_weight), v)
    return out.transpose(1, 2).reshape(B, T, S, H * D)


def block(
    layer: torch.nn.Module, x, modulation, text, table, *, temporal: bool, core: Callable
) -> Tensor:
    """A block of the video tower (`models.video_tower.Block`) on its weights. text [B, L, C]: keys
    and values are computed in every call, as there. core: attention over [N, H, T, D] operands."""
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = (m[:, None] for m in modulation)
    B, T, S, C = x.shape
    attn, H = layer.attn, layer.attn.num_heads
    y = modulate(x, shift_a, scale_a)
    qkv = attn.qkv(y).unflatten(-1, (3, H, -1))
    weights = (attn.q_norm.weight, attn.k_norm.weight)
    if temporal:
        y = temporal_attention(qkv, *weights, table, core)
    else:
        y = spatial_attention(qkv, *weights, F.scaled_dot_product_attention)
    x = x + gate_a[:, None] * attn.proj(y)
    cross = layer.cross_attn
    q = cross.q_linear(x).view(B, T * S, H, -1).transpose(1, 2)
    k, v = cross.kv_linear(text).unflatten(-1, (2, H, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, T, S, C)
    x = x + cross.proj(y)
    y = modulate(x, shift_m, scale_m)
    y = layer.mlp.fc2(F.gelu(layer.mlp.fc1(y), approximate="tanh"))
    return x + gate_m[:, None] * y


def forced(backend: SDPBackend) -> Callable:
    """scaled_dot_product_attention by one backend alone; raises where it does not apply."""

    def core(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(q, k, v, mask)

    return core


BACKENDS = {
    "sdpa flash": SDPBackend.FLASH_ATTENTION,
    "sdpa cudnn": SDPBackend.CUDNN_ATTENTION,
    "sdpa efficient": SDPBackend.EFFICIENT_ATTENTION,
}


def library(name: str, attribute: str) -> Callable | None:
    """`attribute` of module `name`, or None where the module cannot be imported."""
    try:
        return getattr(importlib.import_module(name), attribute)
    except Exception:  # a broken installation is as good as none
        return None


def attention_libraries() -> dict[str, Callable | None]:
    """Cores over [N, H, T, D] operands; None: not installed."""
    flash = library("flash_attn", "flash_attn_func")
    flash3 = library("flash_attn_interface", "flash_attn_func")
    xformers = library("xformers.ops", "memory_efficient_attention")

    def heads_last(function: Callable) -> Callable:
        def core(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            out = function(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
            return (out[0] if isinstance(out, tuple) else out).transpose(1, 2)

        return core

    found = {"flash-attn 2": flash, "flash-attn 3": flash3, "xformers": xformers}
    return {name: f and heads_last(f) for name, f in found.items()}


def norm_libraries(channels: int) -> dict[str, Callable | None]:
    """LayerNorm without parameters by other libraries; None: not installed."""
    apex = library("apex.normalization", "FusedLayerNorm")
    liger = library("liger_kernel.transformers", "LigerLayerNorm")
    made: dict[str, Callable | None] = {"apex": None, "liger": None}
    if apex:
        made["apex"] = apex(channels, elementwise_affine=False, eps=1e-6)
    if liger:
        made["liger"] = liger(channels, eps=1e-6).cuda()
    return made
