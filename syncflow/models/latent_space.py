"""Between pixels or samples and the normalised latents that the towers see; one clip at a time, so
that memory does not grow with the batch, and in float32, as the VAEs are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from syncflow.clip import to_model, to_pixels
from syncflow.models.codec import AudioCodec, VideoCodec


class Scale(NamedTuple):
    """Statistics of the latents' channels, shaped to broadcast over a batch of latents."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of_video(cls, mean: Sequence[float] | None, std: Sequence[float] | None) -> Scale:
        """For [B, Cz, T, h, w]; None is 0 and 1."""
        values = (mean or [0.0], std or [1.0])
        return cls(*(torch.tensor(value).reshape(1, -1, 1, 1, 1) for value in values))

    @classmethod
    def of_audio(cls, mean: Sequence[float] | None, std: Sequence[float] | None) -> Scale:
        """For [B, A, D]; None is 0 and 1."""
        values = (mean or [0.0], std or [1.0])
        return cls(*(torch.tensor(value).reshape(1, 1, -1) for value in values))

    def normalize(self, latent: Tensor) -> Tensor:
        """Latents of mean 0 and deviation 1 in every channel, float32, where they lie."""
        return (latent.float() - self.mean.to(latent.device)) / self.std.to(latent.device)

    def denormalize(self, latent: Tensor) -> Tensor:
        """The VAE's own latents again, float32."""
        return latent.float() * self.std.to(latent.device) + self.mean.to(latent.device)


def encode_video(
    vae: VideoCodec, clips_FCHW: Iterable[Tensor], scale: Scale, device: torch.device
) -> Tensor:
    """uint8 frames -> normalised latents [P, Cz, T, h, w], the mode of each posterior."""
    latents = [vae.encode(to_model(clip)[None].to(device)).mode() for clip in clips_FCHW]
    return scale.normalize(torch.cat(latents))


def encode_audio(
    vae: AudioCodec, sounds_M: Iterable[Tensor], scale: Scale, device: torch.device
) -> Tensor:
    """Sounds of one length in [-1, 1] -> normalised latents [P, A, D], the mode of each."""
    latents = [vae.encode(sound[None].to(device, torch.float32)).mode() for sound in sounds_M]
    return scale.normalize(torch.cat(latents))


def decode_video(
    vae: VideoCodec,
    latent_CTHW: Tensor,
    scale: Scale,
    num_frames: int,
    run: Callable[..., tuple[Tensor, ...]] | None = None,
) -> Tensor:
    """One normalised latent -> uint8 [F, 3, H, W], on the CPU. ``run(function, tensors, *rest)``,
    where given, is how a function of tensors on the device is run."""
    raw_BCTHW = scale.denormalize(latent_CTHW[None])
    if run is None:
        return pixels_of(raw_BCTHW, vae, num_frames)[0].cpu()
    return run(pixels_of, (raw_BCTHW,), vae, num_frames)[0].cpu()


def pixels_of(raw_BCTHW: Tensor, vae: VideoCodec, num_frames: int) -> tuple[Tensor]:
    """One raw latent [1, Cz, T, h, w] -> uint8 [F, 3, H, W], on the device."""
    return (to_pixels(vae.decode(raw_BCTHW, num_frames=num_frames)[0].float()),)


def decode_audio(vae: AudioCodec, latent_AD: Tensor, scale: Scale, num_samples: int) -> Tensor:
    """One normalised latent -> float32 [M] in [-1, 1], on the CPU."""
    audio = vae.decode(scale.denormalize(latent_AD[None]), num_samples=num_samples)
    return audio[0].float().clamp(-1, 1).cpu()
