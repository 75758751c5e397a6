"""Video to latents and back: an image VAE per frame, then a causal VAE over time.

The layout is that of OpenSora-VAE-v1.2: `spatial_vae.module` is diffusers' `AutoencoderKL`,
`temporal_vae` compresses its latents 4x in time, `shift` and `scale` bring the result near a
standard normal.

Axis letters: B batch, F frames, H, W pixels, C latent channels, T latent frames, h, w latent size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, cast

import torch
from torch import Tensor, nn

from syncflow.json_types import JsonObject
from syncflow.models import frame_decoder
from syncflow.models.codec import VideoCodec
from syncflow.models.posterior import DiagonalGaussian
from syncflow.models.temporal_vae import TemporalVAE

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vae import DecoderOutput
    from diffusers.models.modeling_outputs import AutoencoderKLOutput

    from syncflow.config import OpenSoraVAEConfig

#: Frames that pass through the image VAE at once.
AT_ONCE, AT_ONCE_ON_GPU = 4, 16


class _Sizes(Protocol):
    scaling_factor: float


class _ImageVAE(Protocol):
    """What is used of diffusers' `AutoencoderKL`."""

    config: _Sizes
    decoder: frame_decoder.Decoder
    post_quant_conv: nn.Module | None

    def encode(self, x: Tensor) -> AutoencoderKLOutput: ...

    def decode(self, z: Tensor) -> DecoderOutput: ...


class FrameVAE(nn.Module):
    """Diffusers' `AutoencoderKL` applied to every frame, a few frames at a time.

    Args:
        arguments: of `AutoencoderKL`; the block types follow from `block_out_channels`.
        micro_batch_size: frames that pass through at once; bounds the memory.
    """

    def __init__(self, arguments: JsonObject, micro_batch_size: int = AT_ONCE) -> None:
        super().__init__()
        from diffusers import AutoencoderKL

        levels = len(arguments["block_out_channels"])
        self.module: _ImageVAE
        vae = AutoencoderKL(
            **{
                "down_block_types": ("DownEncoderBlock2D",) * levels,
                "up_block_types": ("UpDecoderBlock2D",) * levels,
                **arguments,
            }
        )
        self.module = cast("_ImageVAE", vae)
        self.micro_batch_size = micro_batch_size
        self.scaling_factor = self.module.config.scaling_factor
        self.stride = 2 ** (levels - 1)
        # Whether pictures are decoded by `frame_decoder` where nothing needs a gradient.
        self.fused = False

    def encode(self, video_BCFHW: Tensor) -> Tensor:
        """Mode of the posterior, scaled: `[B, C, F, H / stride, W / stride]`."""
        return self._per_frame(
            lambda x: self.module.encode(x).latent_dist.mode() * self.scaling_factor, video_BCFHW
        )

    def decode(self, latent_BCFhw: Tensor) -> Tensor:
        """`[B, 3, F, h * stride, w * stride]`."""
        return self._per_frame(lambda z: self._decode_frames(z / self.scaling_factor), latent_BCFhw)

    def fuse(self) -> None:
        """Decodes by `frame_decoder` from now on, if diffusers' decoder is one that it knows; to be
        called when weights have been loaded and moved."""
        self.fused = frame_decoder.can_decode(self.module.decoder)
        if self.fused:
            frame_decoder.prepare(self.module.decoder)

    def _decode_frames(self, z_NChw: Tensor) -> Tensor:
        if not self.fused or torch.is_grad_enabled():
            frames: Tensor = self.module.decode(z_NChw).sample
            return frames
        if self.module.post_quant_conv is not None:
            z_NChw = self.module.post_quant_conv(z_NChw)
        return frame_decoder.decode(self.module.decoder, z_NChw)

    def _per_frame(self, function: Callable[[Tensor], Tensor], x_BCFHW: Tensor) -> Tensor:
        frames = x_BCFHW.transpose(1, 2).flatten(0, 1).split(self.micro_batch_size)
        out_NCHW = torch.cat([function(part) for part in frames])
        out_BFCHW: Tensor = out_NCHW.unflatten(0, (x_BCFHW.shape[0], -1))
        return out_BFCHW.transpose(1, 2)


class VideoVAE(VideoCodec):
    """The video VAE of Open-Sora v1.2 (the paper's, section 3.1); key for key the released layout.

    Args:
        config: kind "opensora"; `spatial` and `temporal` are the arguments of `AutoencoderKL` and
            `TemporalVAE`, `shift` and `scale` one number per latent channel.
        micro_batch_size: frames that pass through the image VAE at once.

    Raises:
        ValueError: the lengths of `shift` and `scale` are not the latent channels.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, config: OpenSoraVAEConfig, micro_batch_size: int = AT_ONCE) -> None:
        super().__init__()
        self.config = config
        self.spatial_vae = FrameVAE(config.spatial.model_dump(), micro_batch_size)
        self.temporal_vae = TemporalVAE(
            in_out_channels=config.spatial.latent_channels, **config.temporal.model_dump()
        )
        self.latent_channels = config.temporal.embed_dim
        for name in ("shift", "scale"):
            values = getattr(config, name)
            if len(values) != self.latent_channels:
                raise ValueError(
                    f"{name} has {len(values)} values for {self.latent_channels} latent channels"
                )
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1, 1))

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, in which coding is done."""
        return next(self.parameters()).dtype

    def for_gpu(self, device: torch.device, dtype: torch.dtype) -> None:
        """Moves the weights, and lays them out as a GPU's convolutions want them; the state dict
        stays what it is."""
        self.to(device, dtype)
        self.spatial_vae.to(memory_format=torch.channels_last)
        self.temporal_vae.to(memory_format=torch.channels_last_3d)
        self.spatial_vae.micro_batch_size = AT_ONCE_ON_GPU
        self.spatial_vae.fuse()

    def num_latent_frames(self, num_frames: int, micro_frame_size: int | None = None) -> int:
        """Latent frames T of so many frames; every piece of `micro_frame_size` rounds up."""
        return sum(self._latent_frames(n) for n in _pieces(num_frames, micro_frame_size))

    def encode(self, video_BCFHW: Tensor, micro_frame_size: int | None = None) -> DiagonalGaussian:
        """Posterior over shifted and scaled latents `[B, C, T, H / 8, W / 8]`.

        Args:
            video_BCFHW: video in [-1, 1].
            micro_frame_size: encode pieces of so many frames on their own, as the released model
                does with 17; not given, all frames at once.

        Raises:
            ValueError: not `[B, 3, F, H, W]`, or a size that is no multiple of the stride.
        """
        stride = self.spatial_vae.stride
        shape = tuple(video_BCFHW.shape)
        if len(shape) != 5 or shape[1] != 3 or 0 in shape:
            raise ValueError(f"video must be [B, 3, F, H, W], got {shape}")
        if shape[3] % stride or shape[4] % stride:
            raise ValueError(f"height and width must be multiples of {stride}, got {shape[3:]}")
        frames_BCFhw = self.spatial_vae.encode(video_BCFHW.to(self.dtype))
        pieces = frames_BCFhw.split(_pieces(shape[2], micro_frame_size), dim=2)
        posteriors = [self.temporal_vae.encode(piece) for piece in pieces]
        whole = DiagonalGaussian(
            torch.cat([p.mean for p in posteriors], dim=2),
            torch.cat([p.logvar for p in posteriors], dim=2),
        )
        return whole.affine(self.shift, self.scale)

    def decode(
        self,
        latent_BCThw: Tensor,
        num_frames: int | None = None,
        micro_frame_size: int | None = None,
    ) -> Tensor:
        """Video `[B, 3, F, h * 8, w * 8]` in about [-1, 1] (not clamped).

        Args:
            latent_BCThw: shifted and scaled latents.
            num_frames: F; as many as the latents hold when not given.
            micro_frame_size: that of `encode`.

        Raises:
            ValueError: the latents do not have the frames that `num_frames` encode to.
        """
        if latent_BCThw.ndim != 5 or latent_BCThw.shape[1] != self.latent_channels:
            raise ValueError(
                f"latents must be [B, {self.latent_channels}, T, h, w], "
                f"got {tuple(latent_BCThw.shape)}"
            )
        num_latents = latent_BCThw.shape[2]
        if num_frames is None:
            num_frames = self._max_frames(num_latents, micro_frame_size)
        expected = self.num_latent_frames(num_frames, micro_frame_size)
        if num_latents != expected:
            raise ValueError(
                f"{num_frames} frames (micro_frame_size {micro_frame_size}) have {expected} "
                f"latent frames, got {num_latents}"
            )
        frames = _pieces(num_frames, micro_frame_size)
        raw_BCThw = latent_BCThw * self.scale + self.shift
        raw_BCThw = raw_BCThw.to(self.dtype)
        pieces = raw_BCThw.split([self._latent_frames(n) for n in frames], dim=2)
        frames_BCFhw = torch.cat(
            [self.temporal_vae.decode(z, n) for z, n in zip(pieces, frames, strict=True)], dim=2
        )
        return self.spatial_vae.decode(frames_BCFhw)

    def _latent_frames(self, num_frames: int) -> int:
        return -(-num_frames // self.temporal_vae.time_stride)

    def _max_frames(self, num_latents: int, micro_frame_size: int | None) -> int:
        stride = self.temporal_vae.time_stride
        if micro_frame_size is None:
            return num_latents * stride
        whole, rest = divmod(num_latents, self._latent_frames(micro_frame_size))
        return whole * micro_frame_size + rest * stride


def _pieces(num_frames: int, micro_frame_size: int | None) -> list[int]:
    """Lengths of the pieces that are coded on their own."""
    size = micro_frame_size or num_frames
    if num_frames < 1 or size < 1:
        raise ValueError(
            f"frames and micro_frame_size must be positive, got {num_frames}, {micro_frame_size}"
        )
    whole, rest = divmod(num_frames, size)
    return [size] * whole + [rest] * bool(rest)
