"""Parts that the two towers and the adaptors share.

Axis letters: B batch, T latent frames, S patches of a frame, A audio latents, L text tokens,
N or M tokens of any kind, H heads, D head dim, C width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Generic, TypeGuard, TypeVar, overload

import torch
from torch import Tensor, nn

from syncflow.ops.cross_attention import KeysValues, cross_attention
from syncflow.ops.gelu import bias_gelu, linear_gelu
from syncflow.ops.kept import kept
from syncflow.ops.rotation import rotation_table
from syncflow.ops.self_attention import self_attention
from syncflow.ops.temporal_attention import temporal_attention

if TYPE_CHECKING:
    Part = TypeVar("Part", bound=nn.Module)

    class ModuleList(nn.ModuleList, Generic[Part]):
        """PyTorch's list, whose elements a type checker knows."""

        def __init__(self, modules: Iterable[Part] = ()) -> None: ...
        @overload
        def __getitem__(self, idx: slice) -> ModuleList[Part]: ...
        @overload
        def __getitem__(self, idx: int) -> Part: ...
        def __getitem__(self, idx: int | slice) -> Part | ModuleList[Part]: ...
        def __iter__(self) -> Iterator[Part]: ...

else:
    ModuleList = nn.ModuleList


def sinusoid(value_B: Tensor, width: int = 256, max_period: float = 1e4) -> Tensor:
    """[B] -> [B, width]: cosines then sines of geometrically spaced frequencies, float32."""
    angle_BD = value_B.float()[:, None] * _rates(width // 2, max_period, value_B.device)
    return torch.cat([angle_BD.cos(), angle_BD.sin()], dim=-1)


@kept
def _rates(half: int, max_period: float, device: torch.device) -> Tensor:
    index_D = torch.arange(half, device=device, dtype=torch.float32)
    return torch.exp(index_D * (-math.log(max_period) / half))


class ScalarEmbedder(nn.Module):
    """A number per sample (a time in 0..1000, a frame rate) to a vector: [B] -> [B, C]."""

    def __init__(self, width: int, num_frequencies: int = 256) -> None:
        super().__init__()
        self.num_frequencies = num_frequencies
        self.mlp = nn.Sequential(
            nn.Linear(num_frequencies, width), nn.SiLU(), nn.Linear(width, width)
        )
        for linear in self.mlp:
            if isinstance(linear, nn.Linear):
                nn.init.normal_(linear.weight, std=0.02)
                nn.init.zeros_(linear.bias)

    def forward(self, value_B: Tensor) -> Tensor:
        """[B] -> [B, C], of the weights' dtype."""
        table = sinusoid(value_B, self.num_frequencies)
        out: Tensor = self.mlp(table.to(next(self.mlp.parameters()).dtype))
        return out


class Mlp(nn.Module):
    """Linear, GELU (tanh), Linear: [..., C_in] -> [..., C_out]."""

    def __init__(self, width: int, hidden: int, out: int | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, out or width)

    def forward(self, x: Tensor) -> Tensor:
        """[..., C_in] -> [..., C_out]."""
        if is_plain(self.fc1):
            hidden = linear_gelu(x, self.fc1.weight, self.fc1.bias)
        else:
            hidden = bias_gelu(self.fc1(x))
        out: Tensor = self.fc2(hidden)
        return out


def is_plain(linear: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a layer is its weight and bias and no more: no adapter around it, no hook that
    gathers its weight, and no gradient wanted."""
    hooks = linear._forward_hooks or linear._forward_pre_hooks
    return type(linear) is nn.Linear and not hooks and not torch.is_grad_enabled()


class RMSNorm(nn.Module):
    """Holds the gain of a per-head root-mean-square norm, which attention applies (eps 1e-6)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))


class SelfAttention(nn.Module):
    """The video tower's attention: within a frame, or along time with rotary positions.

    Queries and keys are normalised per head. [B, T, S, C] -> [B, T, S, C].
    """

    def __init__(self, width: int, num_heads: int, is_temporal: bool, qk_norm: bool) -> None:
        super().__init__()
        self.num_heads, self.is_temporal = num_heads, is_temporal
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = RMSNorm(width // num_heads) if qk_norm else None
        self.k_norm = RMSNorm(width // num_heads) if qk_norm else None
        self.proj = nn.Linear(width, width)

    def forward(self, x_BTSC: Tensor) -> Tensor:
        """[B, T, S, C] -> the same, over S or, in a temporal block, over T."""
        qkv_BTS3HD = self.qkv(x_BTSC).unflatten(-1, (3, self.num_heads, -1))
        weights: tuple[Tensor | None, Tensor | None] = (None, None)
        if self.q_norm is not None and self.k_norm is not None:
            weights = (self.q_norm.weight, self.k_norm.weight)
        if self.is_temporal:
            y_BTSC = temporal_attention(qkv_BTS3HD, *weights)
        else:
            y_BTSC = self_attention(qkv_BTS3HD.flatten(0, 1), *weights).view(x_BTSC.shape)
        out_BTSC: Tensor = self.proj(y_BTSC)
        return out_BTSC


class CrossAttention(nn.Module):
    """Queries from one sequence, keys and values from another.

    ``keys_values`` runs once per context and ``forward`` once per step: that split is what makes a
    context reusable. A context of batch B serves a batch of K*B whose neighbours share a context.
    """

    def __init__(self, width: int, num_heads: int, context_width: int | None = None) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_linear = nn.Linear(width, width)
        self.kv_linear = nn.Linear(context_width or width, 2 * width)
        self.proj = nn.Linear(width, width)

    def keys_values(self, context_BMC: Tensor) -> KeysValues:
        """[B, M, C] -> keys and values, each [B, H, M, D]."""
        return self.split(self.kv_linear(context_BMC))

    def split(self, kv_BMC: Tensor) -> KeysValues:
        """[B, M, 2 H D] -> keys and values, each [B, H, M, D]."""
        kv_BM2HD = kv_BMC.unflatten(-1, (2, self.num_heads, -1))
        k_BHMD, v_BHMD = kv_BM2HD.permute(2, 0, 3, 1, 4).unbind(0)
        return k_BHMD, v_BHMD

    def forward(
        self,
        x: Tensor,
        keys_values: KeysValues,
        term_BM: Tensor | None = None,
        rotation_NP2: Tensor | None = None,
        own: KeysValues | None = None,
    ) -> Tensor:
        """x [B*K, ..., C] -> the same; the other arguments are those of `ops.cross_attention`."""
        q_RNHD = self.q_linear(x).unflatten(-1, (self.num_heads, -1)).flatten(1, -3)
        out_RNC = cross_attention(q_RNHD, keys_values, term_BM, rotation_NP2, own)
        out: Tensor = self.proj(out_RNC.view(x.shape))
        return out


def additive_mask(mask_BM: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """True = may be attended -> a term for the scores, [B, M].

    The least finite number and not -inf: a row without any token then gives a mean, not NaN.
    """
    if mask_BM is None:
        return None
    term_BM = torch.zeros(mask_BM.shape, dtype=dtype, device=mask_BM.device)
    return term_BM.masked_fill_(~mask_BM.bool(), torch.finfo(dtype).min)


def seconds_rotation(
    seconds_N: Tensor, head_dim: int, frequency: float, theta: float, dtype: torch.dtype
) -> Tensor:
    """Rotary positions on a clock in seconds, as `ops.rotation` takes them: [N, D/2, 2].

    Pair i of D/2 turns ``frequency * theta ** (-2 i / D)`` times a second, so equal times of any
    two sequences meet at equal phases, whatever their rates.
    """
    rate_P = frequency * theta ** (
        -torch.arange(0, head_dim, 2, device=seconds_N.device, dtype=torch.float64) / head_dim
    )
    return rotation_table(2 * math.pi * seconds_N.double()[:, None] * rate_P, dtype)


@kept
def plane_positions(
    height: int, width: int, channels: int, scale: float, base_size: int, device: torch.device
) -> Tensor:
    """Sine-cosine positions of a grid of patches, [S, C] float32, as Open-Sora v1.2 has them.

    The first half of the channels tells the column and the second the row; each half is sines then
    cosines. Positions are divided by ``scale`` and stretched to ``base_size`` on both axes. Not to
    be changed: the table is kept.
    """
    half = channels // 2
    rate_D = 1e4 ** (-torch.arange(0, half, 2, device=device, dtype=torch.float32) / half)

    def embed(length: int) -> Tensor:
        grid = torch.arange(length, device=device, dtype=torch.float32) / scale
        angle = torch.outer(grid * (base_size / length), rate_D)
        return torch.cat([angle.sin(), angle.cos()], dim=-1)

    column_HWD = embed(width)[None].expand(height, -1, -1)
    row_HWD = embed(height)[:, None].expand(-1, width, -1)
    return torch.cat([column_HWD, row_HWD], dim=-1).flatten(0, 1)
