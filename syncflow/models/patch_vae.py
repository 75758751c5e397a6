"""The small video VAE that trains on two CPU cores: patches instead of full-size convolutions.

The same interface, strides (4 in time, 8 in space) and Gaussian posterior as the Open-Sora VAE of
``video_vae.py``; see docs/decisions.md for why the shipped model uses it. Letters: B batch, F
frames, N = B * frames of the current resolution, h w rows and columns, C channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from syncflow.clip import VIDEO_STRIDE
from syncflow.config import PatchVAEConfig
from syncflow.models.codec import VideoCodec
from syncflow.models.posterior import DiagonalGaussian

_PATCH = (2, 4, 4)
_MERGE = tuple(stride // patch for stride, patch in zip(VIDEO_STRIDE, _PATCH, strict=True))


class SpatialConv(nn.Module):
    """3x3 convolution, channels last; the weight is kept as a matrix so that Muon can train it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels * 9) / (channels * 9) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x_NhwC: Tensor) -> Tensor:
        """[N, h, w, C] -> the same."""
        channels = x_NhwC.shape[-1]
        weight = self.weight.view(channels, channels, 3, 3)
        return F.conv2d(x_NhwC.movedim(-1, 1), weight, self.bias, padding=1).movedim(1, -1)


class TemporalLinear(nn.Module):
    """Linear over a frame and its two neighbours (edges repeat)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * channels, channels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x_BFhwC: Tensor) -> Tensor:
        """[B, F, h, w, C] -> the same."""
        before = torch.cat([x_BFhwC[:, :1], x_BFhwC[:, :-1]], 1)
        after = torch.cat([x_BFhwC[:, 1:], x_BFhwC[:, -1:]], 1)
        out: Tensor = self.linear(torch.cat([before, x_BFhwC, after], -1))
        return out


class ResBlock(nn.Module):
    """x + temporal(space(x)), each behind a LayerNorm and SiLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.space, self.time = SpatialConv(channels), TemporalLinear(channels)

    def forward(self, x_BFhwC: Tensor) -> Tensor:
        """[B, F, h, w, C] -> the same."""
        h = self.space(F.silu(self.norm1(x_BFhwC)).flatten(0, 1)).unflatten(0, x_BFhwC.shape[:2])
        out: Tensor = x_BFhwC + self.time(F.silu(self.norm2(h)))
        return out


def fold(x_BFhwC: Tensor, block: tuple[int, ...]) -> Tensor:
    """Blocks of (time, height, width) into channels: [B,F,h,w,C] -> [B,F/p,h/q,w/r,p*q*r*C]."""
    p, q, r = block
    batch, frames, rows, cols, channels = x_BFhwC.shape
    x = x_BFhwC.reshape(batch, frames // p, p, rows // q, q, cols // r, r, channels)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4)


def unfold(x_BFhwC: Tensor, block: tuple[int, ...]) -> Tensor:
    """Inverse of ``fold``."""
    p, q, r = block
    batch, frames, rows, cols, _ = x_BFhwC.shape
    x = x_BFhwC.reshape(batch, frames, rows, cols, p, q, r, -1)
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(batch, frames * p, rows * q, cols * r, -1)


class PatchVideoVAE(VideoCodec):
    """Video VAE, 4x in time and 8x8 in space, for small models.

    ``config.width`` channels at half the stride, three times as many at the full stride,
    ``config.depth`` residual blocks on each in the decoder.
    """

    def __init__(self, config: PatchVAEConfig) -> None:
        super().__init__()
        self.config = config
        fine, coarse, z = config.width, 3 * config.width, config.latent_channels
        pixels = 3 * _PATCH[0] * _PATCH[1] * _PATCH[2]
        merged = fine * _MERGE[0] * _MERGE[1] * _MERGE[2]
        self.encoder = nn.ModuleDict(
            {
                "patch": nn.Linear(pixels, fine),
                "fine": ResBlock(fine),
                "merge": nn.Linear(merged, coarse),
                "coarse": nn.Sequential(*(ResBlock(coarse) for _ in range(config.depth))),
                "out": nn.Sequential(nn.LayerNorm(coarse), nn.Linear(coarse, 2 * z)),
            }
        )
        self.decoder = nn.ModuleDict(
            {
                "input": nn.Linear(z, coarse),
                "coarse": nn.Sequential(*(ResBlock(coarse) for _ in range(config.depth))),
                "split": nn.Linear(coarse, merged),
                "fine": nn.Sequential(*(ResBlock(fine) for _ in range(config.depth))),
                "out": nn.Sequential(nn.LayerNorm(fine), nn.Linear(fine, pixels)),
            }
        )

    def encode(self, video_BCFHW: Tensor, micro_frame_size: int | None = None) -> DiagonalGaussian:
        """Video [B,3,F,H,W] in [-1,1] -> posterior over latents [B,Cz,T,h,w].

        ``micro_frame_size`` cuts the frames into pieces that are encoded on their own.
        """
        if micro_frame_size is not None:
            parts = [self.encode(part) for part in video_BCFHW.split(micro_frame_size, 2)]
            return DiagonalGaussian(
                torch.cat([part.mean for part in parts], 2),
                torch.cat([part.logvar for part in parts], 2),
            )
        _, channels, frames, height, width = video_BCFHW.shape
        if channels != 3 or height % VIDEO_STRIDE[1] or width % VIDEO_STRIDE[2]:
            raise ValueError(
                f"video must be [B,3,F,H,W] with H and W divisible by {VIDEO_STRIDE[1]}, "
                f"got {list(video_BCFHW.shape)}"
            )
        x = video_BCFHW.movedim(1, -1)
        missing = -frames % VIDEO_STRIDE[0]
        if missing:
            x = torch.cat([x, x[:, -1:].expand(-1, missing, -1, -1, -1)], 1)
        x = self.encoder["patch"](fold(x, _PATCH))
        x = self.encoder["merge"](fold(self.encoder["fine"](x), _MERGE))
        x = self.encoder["out"](self.encoder["coarse"](x)).float().movedim(-1, 1)
        mean, logvar = x.chunk(2, 1)
        return DiagonalGaussian(mean, logvar)

    def decode(
        self,
        latent_BCThw: Tensor,
        num_frames: int | None = None,
        micro_frame_size: int | None = None,
    ) -> Tensor:
        """Latents [B,Cz,T,h,w] -> video [B,3,F,H,W]; ``num_frames`` cuts the padded tail."""
        if micro_frame_size is not None:
            parts = latent_BCThw.split(-(-micro_frame_size // VIDEO_STRIDE[0]), 2)
            # Each piece without the frames that filled up its last latent.
            pieces = [self.decode(part, micro_frame_size) for part in parts]
            return torch.cat(pieces, 2)[:, :, :num_frames]
        x = self.decoder["input"](latent_BCThw.movedim(1, -1))
        x = unfold(self.decoder["split"](self.decoder["coarse"](x)), _MERGE)
        x = unfold(self.decoder["out"](self.decoder["fine"](x)), _PATCH)
        return x.float().movedim(-1, 1)[:, :, :num_frames]
