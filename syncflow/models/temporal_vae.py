"""The causal temporal VAE of Open-Sora v1.2, over per-frame latents: 4x in time, nothing in space.

A MAGVIT-v2 style network (arXiv 2310.05737): convolutions over time look only backwards, strided
ones halve the frame rate, depth-to-time doubles it. Module names follow the released weights.

Axis letters: B batch, C channels, F frames, T latent frames, h, w latent height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from syncflow.models.posterior import DiagonalGaussian
from syncflow.ops.group_norm import group_norm_silu


class CausalConv3d(nn.Module):
    """A 3-D convolution whose output frame never sees a later input frame.

    Zeros stand in for the past in front and, as usual, around the picture.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        time_stride: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.past = kernel - time_stride
        self.conv = nn.Conv3d(
            in_channels,
            out_channels,
            kernel,
            stride=(time_stride, 1, 1),
            padding=(0, kernel // 2, kernel // 2),
            bias=bias,
        )

    def forward(self, x_BCFhw: Tensor) -> Tensor:
        """`[B, C, F, h, w]` to `[B, C', F / time_stride, h, w]`."""
        if self.past:
            x_BCFhw = F.pad(x_BCFhw, (0, 0, 0, 0, self.past, 0))
        out: Tensor = self.conv(x_BCFhw)
        return out

    def after(self, norm: nn.GroupNorm, x_BCFhw: Tensor) -> Tensor:
        """The convolution of silu(norm(x)): the norm puts the zeros in front itself."""
        normed = group_norm_silu(
            x_BCFhw, norm.num_groups, norm.weight, norm.bias, norm.eps, front=self.past
        )
        out: Tensor = self.conv(normed)
        return out


class ResBlock(nn.Module):
    """Two causal convolutions behind GroupNorm and SiLU, beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, num_groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(num_groups, in_channels)
        self.conv1 = CausalConv3d(in_channels, out_channels, 3, bias=False)
        self.norm2 = nn.GroupNorm(num_groups, out_channels)
        self.conv2 = CausalConv3d(out_channels, out_channels, 3, bias=False)
        self.conv3 = None
        if in_channels != out_channels:
            self.conv3 = CausalConv3d(in_channels, out_channels, 1, bias=False)

    def forward(self, x_BCFhw: Tensor) -> Tensor:
        """[B, C, F, h, w] -> [B, C', F, h, w]."""
        hidden = self.conv1.after(self.norm1, x_BCFhw)
        hidden = self.conv2.after(self.norm2, hidden)
        return hidden + (x_BCFhw if self.conv3 is None else self.conv3(x_BCFhw))


def _res_blocks(in_channels: int, out_channels: int, num: int, num_groups: int) -> nn.ModuleList:
    widths = [in_channels] + [out_channels] * num
    return nn.ModuleList(ResBlock(before, after, num_groups) for before, after in pairwise(widths))


def _run(blocks: nn.Module, x: Tensor) -> Tensor:
    for block in blocks.children():
        x = block(x)
    return x


class TemporalEncoder(nn.Module):
    """Per-frame latents to the moments of the posterior, `time_stride` frames to one."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        downsample: Sequence[bool],
        num_res_blocks: int,
        num_groups: int,
    ) -> None:
        super().__init__()
        self.conv_in = CausalConv3d(in_channels, widths[0], 3, bias=False)
        self.block_res_blocks = nn.ModuleList()
        self.conv_blocks = nn.ModuleList()
        before = widths[0]
        for level, width in enumerate(widths):
            self.block_res_blocks.append(_res_blocks(before, width, num_res_blocks, num_groups))
            if level < len(downsample):
                halve = CausalConv3d(width, width, 3, time_stride=2)
                self.conv_blocks.append(halve if downsample[level] else nn.Identity())
            before = width
        self.res_blocks = _res_blocks(before, before, num_res_blocks, num_groups)
        self.norm1 = nn.GroupNorm(num_groups, before)
        self.conv2 = CausalConv3d(before, out_channels, 1)

    def forward(self, x_BCFhw: Tensor) -> Tensor:
        """`[B, C, F, h, w]`, F divisible by the time stride, to `[B, C', T, h, w]`."""
        x = self.conv_in(x_BCFhw)
        for level, blocks in enumerate(self.block_res_blocks):
            x = _run(blocks, x)
            if level < len(self.conv_blocks):
                x = self.conv_blocks[level](x)
        x = _run(self.res_blocks, x)
        return self.conv2.after(self.norm1, x)


class TemporalDecoder(nn.Module):
    """Latents back to per-frame latents; levels have the encoder's numbers and run backwards."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        upsample: Sequence[bool],
        num_res_blocks: int,
        num_groups: int,
    ) -> None:
        super().__init__()
        top = widths[-1]
        self.conv1 = CausalConv3d(in_channels, top, 3)
        self.res_blocks = _res_blocks(top, top, num_res_blocks, num_groups)
        above = [*widths[1:], top]
        self.block_res_blocks = nn.ModuleList(
            _res_blocks(above[level], width, num_res_blocks, num_groups)
            for level, width in enumerate(widths)
        )
        self.conv_blocks = nn.ModuleList(
            CausalConv3d(widths[level + 1], 2 * widths[level + 1], 3) if double else nn.Identity()
            for level, double in enumerate(upsample)
        )
        self.upsample = tuple(upsample)
        self.norm1 = nn.GroupNorm(num_groups, widths[0])
        self.conv_out = CausalConv3d(widths[0], out_channels, 3)

    def forward(self, z_BCThw: Tensor) -> Tensor:
        """`[B, C, T, h, w]` to `[B, C', T * time_stride, h, w]`."""
        x = _run(self.res_blocks, self.conv1(z_BCThw))
        for level in reversed(range(len(self.block_res_blocks))):
            x = _run(self.block_res_blocks[level], x)
            if level > 0 and self.upsample[level - 1]:
                x = _depth_to_time(self.conv_blocks[level - 1](x))
        return self.conv_out.after(self.norm1, x)


def _depth_to_time(x_BCFhw: Tensor) -> Tensor:
    """`[B, 2C, F, h, w]` to `[B, C, 2F, h, w]`: neighbouring channels become successive frames."""
    if x_BCFhw.is_contiguous(memory_format=torch.channels_last_3d) and not x_BCFhw.is_contiguous():
        # The layout stays as it is, which flattening would not see to.
        x_BFhwC2 = x_BCFhw.movedim(1, -1).unflatten(-1, (-1, 2))
        x_BFhwC: Tensor = x_BFhwC2.movedim(-1, 2).flatten(1, 2)
        return x_BFhwC.movedim(-1, 1)
    x_BC2Fhw: Tensor = x_BCFhw.unflatten(1, (-1, 2))
    return x_BC2Fhw.movedim(2, 3).flatten(2, 3)


class TemporalVAE(nn.Module):
    """Encoder, decoder and the 1x1x1 convolutions beside the latent.

    Args:
        filters: channels of the first level.
        num_res_blocks: residual blocks of a level.
        channel_multipliers: width of each level, in units of `filters`.
        temporal_downsample: after which levels (all but the last) the frame rate is halved.
        num_groups: of every GroupNorm.
        latent_embed_dim: channels inside the 1x1x1 convolutions.
        embed_dim: channels of the latent.
        in_out_channels: channels of the per-frame latents.

    Raises:
        ValueError: `temporal_downsample` does not have one entry less than there are levels.
    """

    def __init__(
        self,
        *,
        filters: int = 128,
        num_res_blocks: int = 4,
        channel_multipliers: Sequence[int] = (1, 2, 2, 4),
        temporal_downsample: Sequence[bool] = (False, True, True),
        num_groups: int = 32,
        latent_embed_dim: int = 4,
        embed_dim: int = 4,
        in_out_channels: int = 4,
    ) -> None:
        super().__init__()
        if len(temporal_downsample) != len(channel_multipliers) - 1:
            raise ValueError(
                f"temporal_downsample has {len(temporal_downsample)} entries, but "
                f"{len(channel_multipliers)} channel_multipliers need one less than that"
            )
        widths = [filters * multiplier for multiplier in channel_multipliers]
        rest = (widths, temporal_downsample, num_res_blocks, num_groups)
        self.time_stride: int = 2 ** sum(map(bool, temporal_downsample))
        self.encoder = TemporalEncoder(in_out_channels, 2 * latent_embed_dim, *rest)
        self.quant_conv = CausalConv3d(2 * latent_embed_dim, 2 * embed_dim, 1)
        self.post_quant_conv = CausalConv3d(embed_dim, latent_embed_dim, 1)
        self.decoder = TemporalDecoder(latent_embed_dim, in_out_channels, *rest)

    def encode(self, x_BCFhw: Tensor) -> DiagonalGaussian:
        """Posterior over `[B, embed_dim, ceil(F / time_stride), h, w]`.

        Frames of zeros fill up F in front, where a causal network takes them for the past.
        """
        x_BCFhw = F.pad(x_BCFhw, (0, 0, 0, 0, -x_BCFhw.shape[2] % self.time_stride, 0))
        return DiagonalGaussian(*self.quant_conv(self.encoder(x_BCFhw)).chunk(2, dim=1))

    def decode(self, z_BCThw: Tensor, num_frames: int) -> Tensor:
        """The last `num_frames` of the decoded `[B, C, T * time_stride, h, w]`."""
        x_BCFhw = self.decoder(self.post_quant_conv(z_BCThw))
        out: Tensor = x_BCFhw[:, :, x_BCFhw.shape[2] - num_frames :]
        return out
