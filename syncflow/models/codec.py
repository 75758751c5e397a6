"""What every VAE offers, whatever its kind."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from syncflow.models.posterior import DiagonalGaussian

#: By these names the VAEs of every kind call what makes a latent.
ENCODING = ("encoder", "quant_conv", "moments")


class VideoCodec(nn.Module):
    """A video VAE, down-sampling 4x in time and 8x in space (``clip.VIDEO_STRIDE``)."""

    def encode(self, video_BCFHW: Tensor, micro_frame_size: int | None = None) -> DiagonalGaussian:
        """Video in [-1,1] -> posterior over latents [B,Cz,T,h,w]; ``micro_frame_size`` encodes so
        many frames at a time."""
        raise NotImplementedError

    def decode(
        self,
        latent_BCThw: Tensor,
        num_frames: int | None = None,
        micro_frame_size: int | None = None,
    ) -> Tensor:
        """Latents -> video [B,3,F,H,W] in [-1,1]."""
        raise NotImplementedError

    def for_gpu(self, device: torch.device, dtype: torch.dtype) -> None:
        """Moves the weights; ``dtype`` is for kinds that code well in less than float32."""
        self.to(device, torch.float32)


class AudioCodec(nn.Module):
    """An audio VAE, one latent per ``clip.AUDIO_HOP`` samples."""

    def encode(self, audio_BM: Tensor) -> DiagonalGaussian:
        """Mono audio [B,M] in [-1,1] -> posterior over latents [B,A,D]."""
        raise NotImplementedError

    def decode(self, latent_BAD: Tensor, num_samples: int | None = None) -> Tensor:
        """Latents -> audio [B,M]."""
        raise NotImplementedError
