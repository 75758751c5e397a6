"""What every VAE offers, whatever its kind, and in which numbers to run one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from syncflow.models.posterior import DiagonalGaussian

#: CPU capabilities of which any one multiplies bfloat16 itself.
_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "avx10_1", "bf16", "arm_bf16", "sve_bf16")
#: By these names the VAEs of every kind call what makes a latent.
ENCODING = ("encoder", "quant_conv", "moments")


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 itself; what is no CPU is taken to.

    On a CPU without instructions for it (AVX2 alone, say) PyTorch unpacks every number, and what is
    meant to be faster is several times slower than in float32.
    """
    if device.type != "cpu":
        return True
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else None
    if known is None:  # PyTorch 2.9
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return any(known.get(name) for name in _INSTRUCTIONS)


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
