"""Training of the two VAEs on raw clips."""

from __future__ import annotations

from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from syncflow.clip import AUDIO_HOP, to_model
from syncflow.data.encoders import weights_hash
from syncflow.data.shards import ClipShards
from syncflow.detect import contacts, fidelity, onsets
from syncflow.models.codec import ENCODING, AudioCodec, VideoCodec
from syncflow.models.posterior import DiagonalGaussian
from syncflow.models.vae import build_audio_vae, build_video_vae
from syncflow.training.checkpoints import weights
from syncflow.training.settings import AudioVAETask, VAETask, VideoVAETask
from syncflow.training.tasks import losses
from syncflow.training.tasks.buckets import epoch_indices
from syncflow.training.tasks.clips import Pieces, Sources
from syncflow.training.tasks.randomness import Source, one_generator
from syncflow.training.tasks.task import Task

_VALIDATION_CLIPS = 32
M = TypeVar("M", bound=nn.Module)


def _prepared(module: M, config: VAETask, part: str) -> M:
    if config.init:
        weights.fill(module, weights.load(config.init, part), f"init ({config.init})")
    if config.freeze_encoder:
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(not set(ENCODING) & set(name.split(".")))
    return module


def _kl(posterior: DiagonalGaussian) -> Tensor:
    """Nats per element of a latent, in float32."""
    with torch.autocast(posterior.mean.device.type, enabled=False):
        return (posterior.kl() / posterior.mean[0].numel()).mean()


def _draw(
    posterior: DiagonalGaussian, config: VAETask, channel_axis: int, generator: torch.Generator
) -> Tensor:
    """A posterior draw; for a frozen encoder its mean and ``latent_noise`` standard deviations."""
    if not config.freeze_encoder:
        return posterior.sample(generator)
    mean = posterior.mean
    others = [axis for axis in range(mean.ndim) if axis != channel_axis]
    spread = mean.std(others, keepdim=True)
    noise = torch.randn(mean.shape, generator=generator).to(mean)
    return mean + config.latent_noise * spread * noise


class VideoVAETraining(Task):
    """Video VAE: weighted reconstruction + KL, on random pieces of clips."""

    module: VideoCodec

    def __init__(self, config: VideoVAETask, device: str = "cpu") -> None:
        self.config, self.device = config, device
        self.module = _prepared(build_video_vae(config.model), config, "video_vae")
        encoder = weights_hash(self.module, ENCODING)
        self.train = Sources(config.data, config.frames, config.loop, encoder)
        self.validation = ClipShards(config.validation)
        if self.train.made and not config.freeze_encoder:
            raise ValueError("made latents are of one encoder: set freeze_encoder to train on them")

    def batch(self, index: int) -> Pieces:
        return self.train.batch(index)

    def loss(self, batch: Pieces, source: Source) -> tuple[Tensor, dict[str, Tensor | float]]:
        video, generator = batch.video.to(self.device), one_generator(source)
        made = batch.made_B.to(self.device)
        latent, kl = self._latents(video, made, batch.latent, generator)
        out = self.module.decode(latent, num_frames=video.shape[2])
        counts = self.train.nearness(batch, self.config.made_distance)
        counts = None if counts is None else counts.to(self.device)
        with torch.autocast(video.device.type, enabled=False):
            recon = losses.video_reconstruction(
                out, video, self.config.moving_weight, counts_B1F11=counts
            )
        loss = recon if self.config.freeze_encoder else recon + self.config.kl_weight * kl
        return loss, {"recon": recon.item(), "kl": kl.item()}

    def _latents(
        self, video: Tensor, made_B: Tensor, made: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """What the decoder is given, and the KL of what was encoded."""
        if made is None:
            posterior = self.module.encode(video)
            return _draw(posterior, self.config, 1, generator), _kl(posterior)
        made = made.to(video)
        if made_B.all():
            return made, video.new_zeros(())
        posterior = self.module.encode(video[~made_B])
        latent = made.new_empty(len(video), *made.shape[1:])
        latent[made_B], latent[~made_B] = made, _draw(posterior, self.config, 1, generator)
        return latent, _kl(posterior)

    def validate(self, module: nn.Module) -> dict[str, float]:
        codec = cast(VideoCodec, module)
        videos, outs, times = [], [], []
        for index in range(min(_VALIDATION_CLIPS, len(self.validation))):
            video = to_model(torch.from_numpy(self.validation.video(index)[None].copy()))
            latent = codec.encode(video.to(self.device)).mode()
            out = codec.decode(latent, num_frames=video.shape[2])
            videos.append(video)
            outs.append(out.clamp(-1, 1).cpu())
            times.append(self.validation.contact_times(index))
        video, out = torch.cat(videos), torch.cat(outs)
        pixels = ((out + 1) * 127.5).round().to(torch.uint8).movedim(2, 1)
        scores = contacts.score(list(pixels), times, self.validation.fps)
        return {
            "psnr": fidelity.psnr(out, video),
            "psnr_moving": fidelity.psnr(out, video, fidelity.moving_mask(video)),
            **scores,
        }


class AudioVAETraining(Task):
    """Audio VAE: multi-resolution spectral reconstruction + KL, on random pieces of soundtracks."""

    module: AudioCodec

    def __init__(self, config: AudioVAETask, device: str = "cpu") -> None:
        self.config, self.device = config, device
        self.train, self.validation = ClipShards(config.data), ClipShards(config.validation)
        self.module = _prepared(build_audio_vae(config.model), config, "audio_vae")

    def batch(self, index: int) -> Tensor:
        loop = self.config.loop
        picks = epoch_indices(len(self.train), loop.seed, index, loop.batch_size)
        rng = np.random.default_rng([loop.seed, 1, index])
        length = round(self.config.seconds * self.train.sample_rate / AUDIO_HOP) * AUDIO_HOP
        pieces = []
        for pick in picks:
            audio = self.train.audio(pick)
            first = AUDIO_HOP * int(rng.integers(0, (len(audio) - length) // AUDIO_HOP + 1))
            gain = 10 ** rng.uniform(-0.3, 0.0)
            pieces.append(audio[first : first + length] * gain)
        return torch.from_numpy(np.stack(pieces).astype(np.float32)).to(self.device)

    def loss(self, batch: Tensor, source: Source) -> tuple[Tensor, dict[str, Tensor | float]]:
        audio, generator = batch, one_generator(source)
        posterior = self.module.encode(audio)
        latent = _draw(posterior, self.config, 2, generator)
        out = self.module.decode(latent, num_samples=audio.shape[1])
        with torch.autocast(audio.device.type, enabled=False):
            recon = losses.audio_reconstruction(out, audio, self.config.band_weight)
            wave = ((out - audio).abs().mean(1) / (audio.abs().mean(1) + 2e-3)).mean()
        kl = _kl(posterior)
        loss = recon + self.config.wave_weight * wave + self.config.kl_weight * kl
        return loss, {"recon": recon.item(), "wave": wave.item(), "kl": kl.item()}

    def validate(self, module: nn.Module) -> dict[str, float]:
        codec = cast(AudioCodec, module)
        rows = range(min(_VALIDATION_CLIPS, len(self.validation)))
        audio = torch.from_numpy(np.stack([self.validation.audio(i) for i in rows]))
        times = [self.validation.contact_times(i) for i in range(len(audio))]
        latent = codec.encode(audio.to(self.device)).mode()
        out = codec.decode(latent, num_samples=audio.shape[1]).cpu()
        return {
            "spectral_db": fidelity.spectral_distance(out, audio),
            "loudness_db": float(20 * torch.log10(out.std() / audio.std())),
            **onsets.score(list(out), times),
        }
