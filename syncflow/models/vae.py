"""Builds the VAEs that a model's config names; they share one interface.

Video: ``encode(video_BCFHW) -> DiagonalGaussian``, ``decode(latent_BCThw, num_frames=) -> video``.
Audio: ``encode(audio_BM) -> DiagonalGaussian``, ``decode(latent_BAD, num_samples=) -> audio``.
"""

from __future__ import annotations

from syncflow.config import AudioVAEConfig, PatchVAEConfig, SpectralVAEConfig, VideoVAEConfig
from syncflow.models.codec import AudioCodec, VideoCodec


def build_video_vae(config: VideoVAEConfig) -> VideoCodec:
    """The video VAE of ``config.kind``, with fresh weights."""
    if isinstance(config, PatchVAEConfig):
        from syncflow.models.patch_vae import PatchVideoVAE

        return PatchVideoVAE(config)
    from syncflow.models.video_vae import VideoVAE

    return VideoVAE(config)


def build_audio_vae(config: AudioVAEConfig) -> AudioCodec:
    """The audio VAE of ``config.kind``, with fresh weights."""
    if isinstance(config, SpectralVAEConfig):
        from syncflow.models.spectral_vae import SpectralAudioVAE

        return SpectralAudioVAE(config)
    from syncflow.models.audio_vae import AudioVAE

    return AudioVAE(config, norm=config.norm, causal=config.causal)
