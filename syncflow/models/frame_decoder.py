"""Diffusers' image decoder run as a GPU wants it; weights and module tree stay diffusers' own.

Activations lie channels-last throughout. A convolution's bias is not added by a pass of its own but
by the norm that follows, as is the sum of a residual block and its shortcut; nearest upsampling
before a 3x3 convolution becomes one 2x2 convolution that makes the four phases of the larger
picture, with 4/9 of the operations: of the three taps along an axis two always meet the same pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from syncflow.ops.group_norm import (
    group_norm_silu,
    phases_group_norm_silu,
    sum_group_norm_silu,
)

if TYPE_CHECKING:
    from diffusers.models.attention_processor import Attention
    from diffusers.models.resnet import ResnetBlock2D
    from diffusers.models.upsampling import Upsample2D


PHASES = "phase_weight"


class Resnet(Protocol):
    """What is read of diffusers' `ResnetBlock2D`."""

    norm1: nn.GroupNorm
    conv1: nn.Conv2d
    norm2: nn.GroupNorm
    conv2: nn.Conv2d
    conv_shortcut: nn.Conv2d | None


class SelfAttention(Protocol):
    """Of its `Attention` over the places of a picture."""

    group_norm: nn.GroupNorm
    heads: int
    to_q: nn.Linear
    to_k: nn.Linear
    to_v: nn.Linear
    to_out: nn.ModuleList


class Upsampler(Protocol):
    """Of its `Upsample2D`."""

    conv: nn.Conv2d


class Middle(Protocol):
    """Of its `UNetMidBlock2D`: one residual block, then attention, where there is one, and another
    for each."""

    resnets: Sequence[Resnet]
    attentions: Sequence[SelfAttention | None]


class Up(Protocol):
    """Of its `UpDecoderBlock2D`: residual blocks, then at most one doubling."""

    resnets: Sequence[Resnet]
    upsamplers: Sequence[Upsampler] | None


class Decoder(Protocol):
    """Of its VAE's `Decoder`."""

    conv_in: nn.Conv2d
    mid_block: Middle
    up_blocks: Sequence[Up]
    conv_norm_out: nn.GroupNorm
    conv_out: nn.Conv2d


class Pending(NamedTuple):
    """Activations whose last sums are not taken yet: x + add + bias; or x in phases, + bias."""

    x: Tensor
    add: Tensor | None = None
    bias: Tensor | None = None
    phases: bool = False

    def normed(self, norm: nn.GroupNorm, silu: bool = True) -> tuple[Tensor, Tensor]:
        """(the sum, its norm)."""
        gains = (norm.num_groups, norm.weight, norm.bias, norm.eps)
        if self.phases:
            return phases_group_norm_silu(self.x, self.bias, *gains, silu=silu)
        if self.add is None and self.bias is None:
            return self.x, group_norm_silu(self.x, *gains, silu=silu)
        return sum_group_norm_silu(self.x, self.add, self.bias, *gains, silu=silu)

    def taken(self) -> Tensor:
        """The sum, [N, C, h, w]; not for phases."""
        x = self.x if self.add is None else self.x + self.add
        return x if self.bias is None else x + self.bias.to(x.dtype).view(-1, 1, 1)


def can_decode(decoder: Any) -> TypeGuard[Decoder]:
    """Whether the decoder is of the parts that `decode` knows."""
    try:
        blocks = [*decoder.mid_block.resnets, *(r for up in decoder.up_blocks for r in up.resnets)]
        attentions = [a for a in decoder.mid_block.attentions if a is not None]
        ups = [u for up in decoder.up_blocks for u in (up.upsamplers or [])]
        return (
            all(_plain_block(block) for block in blocks)
            and all(_plain_attention(attention) for attention in attentions)
            and all(len(up.upsamplers or []) < 2 for up in decoder.up_blocks)
            and all(_plain_upsampler(up) for up in ups)
            and type(decoder.conv_norm_out) is nn.GroupNorm
            and type(decoder.conv_act) is nn.SiLU
        )
    except AttributeError:
        return False


def prepare(decoder: Decoder) -> None:
    """Keeps the phases' weights beside every upsampler's own; they are no part of the state dict
    and must be made again when weights are loaded."""
    for up in decoder.up_blocks:
        for upsampler in up.upsamplers or []:
            conv = upsampler.conv
            weight = phase_weight(conv.weight.detach())
            weight = weight.contiguous(memory_format=torch.channels_last)
            conv.register_buffer(PHASES, weight, persistent=False)


def phase_weight(weight_OIkk: Tensor) -> Tensor:
    """3x3 after nearest doubling -> 2x2 that makes all phases: [2 * 2 * O, I, 2, 2]."""
    taps = torch.tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])
    taps = taps.to(weight_OIkk.device, torch.promote_types(weight_OIkk.dtype, torch.float32))
    wide = torch.einsum("apk,bql,oikl->aboipq", taps, taps, weight_OIkk.to(taps.dtype))
    return wide.flatten(0, 2).to(weight_OIkk.dtype)


def decode(decoder: Decoder, z_NChw: Tensor) -> Tensor:
    """`decoder(z)`: latents [N, C, h, w] -> pictures, twice as high and wide for each upsampler."""
    state = Pending(decoder.conv_in(z_NChw))
    mid = decoder.mid_block
    state = _block(mid.resnets[0], state)
    for attention, block in zip(mid.attentions, mid.resnets[1:], strict=True):
        if attention is not None:
            state = _attention(attention, state)
        state = _block(block, state)
    for up in decoder.up_blocks:
        for block in up.resnets:
            state = _block(block, state)
        for upsampler in up.upsamplers or []:
            state = _doubled(upsampler.conv, state.taken())
    _, hidden = state.normed(decoder.conv_norm_out)
    return _few_channels(decoder.conv_out, hidden)


def _block(block: Resnet, state: Pending) -> Pending:
    x, hidden = state.normed(block.norm1)
    norm = block.norm2
    gains = (norm.num_groups, norm.weight, norm.bias, norm.eps)
    convolved = _without_bias(block.conv1, hidden)
    hidden = group_norm_silu(convolved, *gains, before_C=block.conv1.bias)
    shortcut, bias = x, block.conv2.bias
    if block.conv_shortcut is not None:
        shortcut = _without_bias(block.conv_shortcut, x)
        if block.conv_shortcut.bias is not None:
            assert bias is not None  # `can_decode` has seen to it
            bias = bias.float() + block.conv_shortcut.bias.float()
    return Pending(_without_bias(block.conv2, hidden), shortcut, bias)


def _attention(attention: SelfAttention, state: Pending) -> Pending:
    x, hidden = state.normed(attention.group_norm, silu=False)
    N, C, h, w = x.shape
    hidden_NLC = hidden.flatten(2).transpose(1, 2)
    heads = [
        product(hidden_NLC).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        for product in (attention.to_q, attention.to_k, attention.to_v)
    ]
    out = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
    out_NLC = attention.to_out[0](out)
    return Pending(out_NLC.transpose(1, 2).unflatten(2, (h, w)), x)


def _doubled(conv: nn.Conv2d, x: Tensor) -> Pending:
    weight = getattr(conv, PHASES, None)
    if weight is None:
        larger = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return Pending(_without_bias(conv, larger), None, conv.bias)
    return Pending(F.conv2d(x, weight, padding=1), None, conv.bias, phases=True)


def _without_bias(conv: nn.Conv2d, x: Tensor) -> Tensor:
    return F.conv2d(x, conv.weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)


def _few_channels(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Tensor cores want 8 channels to write; the rest are zeros and cut off."""
    missing = -conv.out_channels % 8
    if x.dtype == torch.float32 or not missing or conv.bias is None:
        picture: Tensor = conv(x)
        return picture
    weight = F.pad(conv.weight, (0, 0, 0, 0, 0, 0, 0, missing))
    weight = weight.contiguous(memory_format=torch.channels_last)
    bias = F.pad(conv.bias, (0, missing))
    return F.conv2d(x, weight, bias, conv.stride, conv.padding)[:, : conv.out_channels]


def _plain_block(block: ResnetBlock2D) -> bool:
    return (
        type(block).__name__ == "ResnetBlock2D"
        and block.time_emb_proj is None
        and block.time_embedding_norm in ("default", "group")
        and block.upsample is None
        and block.downsample is None
        and block.output_scale_factor == 1
        and isinstance(block.nonlinearity, nn.SiLU)
        and block.dropout.p == 0
        and type(block.norm1) is nn.GroupNorm
        and type(block.norm2) is nn.GroupNorm
        and block.conv2.bias is not None
    )


def _plain_attention(attention: Attention) -> bool:
    return (
        type(attention.group_norm) is nn.GroupNorm
        and attention.spatial_norm is None
        and attention.norm_q is None
        and attention.norm_k is None
        and attention.residual_connection
        and attention.rescale_output_factor == 1
        and attention.to_out[1].p == 0
    )


def _plain_upsampler(up: Upsample2D) -> bool:
    conv = up.conv
    return (
        type(up).__name__ == "Upsample2D"
        and up.norm is None
        and up.use_conv
        and not up.use_conv_transpose
        and up.interpolate
        and conv.kernel_size == (3, 3)
        and conv.padding == (1, 1)
        and conv.stride == (1, 1)
        and conv.groups == 1
    )
