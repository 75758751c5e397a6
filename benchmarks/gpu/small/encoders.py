"""Training steps of the text encoder and the two VAEs, on clips that lie on the device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu.small.graph import Tally
from benchmarks.gpu.small.optimizer import Optimizer
from benchmarks.gpu.small.pool import Raw
from benchmarks.gpu.small.world import Lesson
from syncflow import impacts
from syncflow.clip import AUDIO_HOP, to_model
from syncflow.detect.fidelity import spectral_distance
from syncflow.models.patch_vae import PatchVideoVAE
from syncflow.models.spectral_vae import SpectralAudioVAE
from syncflow.models.text.encoder import TextEncoder, TextPretrainer
from syncflow.training.losses import reconstruction

_LATENT_NOISE = 0.08
_FRAMES = 16
_SECONDS = 1.0


class TextSteps:
    """Teaches the text encoder to name what a caption says; eager, as bytes come from the host."""

    lr, warm_up, decay = 2e-3, 30, 0.5

    def __init__(self, encoder: TextEncoder, batch: int, device: torch.device) -> None:
        labels = {name: len(v) for name, v in impacts.attribute_values(4).items()}
        self.module = TextPretrainer(encoder, labels).to(device)
        self.batch, self.device = batch, device
        self.optimizer = Optimizer(self.module.named_parameters(), weight_decay=0.01, ema=0.99)
        self.tally = Tally(("loss",), device)
        self.rng = np.random.default_rng(0)
        self.right: dict[str, float] = {}

    def step(self, lessons: list[Lesson]) -> None:
        """One update on captions drawn from the lessons."""
        rows = self.rng.integers(len(lessons), size=self.batch)
        labels = torch.tensor([lessons[i].labels for i in rows])
        loss, self.right = self.module.loss([lessons[i].caption for i in rows], labels)
        self.optimizer.step(torch.autograd.grad(loss, self.optimizer.parameters, allow_unused=True))
        self.tally.add(loss)

    def finish(self) -> None:
        """The averaged weights, frozen."""
        self.module.load_state_dict(self.optimizer.averaged(), strict=False)
        self.module.eval().requires_grad_(False)


class VideoVAESteps:
    """Video VAE, encoder and decoder: moving pixels weighted, KL, noise on half of the latents."""

    lr, warm_up, decay = 2e-3, 50, 0.6
    kl_weight, moving_weight = 3e-4, 8.0

    def __init__(self, vae: PatchVideoVAE, raw: Raw, batch: int) -> None:
        self.vae, self.raw, self.batch = vae, raw, batch
        self.device = raw.count.device
        self.optimizer = Optimizer(vae.named_parameters(), weight_decay=0.01, ema=0.995)
        self.tally = Tally(("loss", "moving_mse", "kl"), self.device)

    def step(self) -> None:
        """One update on pieces of raw clips."""
        video, moving = self.raw.video(self.raw.rows(self.batch), _FRAMES)
        with autocast(self.device):
            posterior = self.vae.encode(video)
            latent = posterior.sample()
            # Half of the samples: as far from an encoder's latent as a sampler's may be.
            much = (torch.rand(len(video), device=self.device) - 0.5).clamp(min=0) * 2
            spread = latent.detach().std((0, 2, 3, 4), keepdim=True)
            noise = torch.randn_like(latent) * spread * (1.5 * _LATENT_NOISE)
            out = self.vae.decode(latent + noise * much[:, None, None, None, None])
        picture = reconstruction.video_reconstruction(out, video, self.moving_weight, moving)
        kl = (posterior.kl() / posterior.mean[0].numel()).mean()
        loss = picture + self.kl_weight * kl
        self.optimizer.step(torch.autograd.grad(loss, self.optimizer.parameters))
        self.tally.add(loss, moving_error(out, video, moving), kl)

    def finish(self) -> None:
        """The averaged weights become the VAE's, and stay."""
        freeze(self.vae, self.optimizer)


class AudioVAESteps:
    """Audio VAE: multi-resolution spectra, bands and loudness; the waveform only at first."""

    lr, warm_up, decay = 2e-3, 50, 0.6
    kl_weight, band_weight, loudness_weight = 1e-4, 1.0, 0.2

    def __init__(self, vae: SpectralAudioVAE, raw: Raw, batch: int) -> None:
        self.vae, self.raw, self.batch = vae, raw, batch
        self.device = raw.count.device
        self.wave_weight = torch.full((), 0.3, device=self.device)
        self.optimizer = Optimizer(vae.named_parameters(), weight_decay=0.01, ema=0.995)
        self.tally = Tally(("loss", "spectra", "loudness_db", "kl"), self.device)
        self.samples = round(_SECONDS * 48000 / AUDIO_HOP) * AUDIO_HOP

    def progress(self, share: float) -> None:
        """Called now and then with the share of the time that has gone by."""
        self.wave_weight.fill_(0.3 if share < 0.4 else 0.0)

    def step(self) -> None:
        """One update on raw sounds."""
        audio = self.raw.audio(self.raw.rows(self.batch), self.samples)
        with autocast(self.device):
            posterior = self.vae.encode(audio)
            latent = posterior.sample()
            much = (torch.rand(len(audio), device=self.device) - 0.5).clamp(min=0) * 2
            spread = latent.detach().std((0, 1), keepdim=True)
            noise = torch.randn_like(latent) * spread * (1.5 * _LATENT_NOISE)
            out = self.vae.decode(latent + noise * much[:, None, None], self.samples)
        spectra = reconstruction.audio_reconstruction(out, audio, self.band_weight)
        wave = ((out - audio).abs().mean(1) / (audio.abs().mean(1) + 2e-3)).mean()
        loudness = reconstruction.level_difference(out, audio)
        kl = (posterior.kl() / posterior.mean[0].numel()).mean()
        loss = spectra + self.wave_weight * wave + self.kl_weight * kl
        loss = loss + self.loudness_weight * loudness.abs().mean() / 8.7
        self.optimizer.step(torch.autograd.grad(loss, self.optimizer.parameters))
        self.tally.add(loss, spectra, loudness.mean(), kl)

    def finish(self) -> None:
        """The averaged weights become the VAE's, and stay."""
        freeze(self.vae, self.optimizer)


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 on a GPU; without the cache of weights, which a CUDA graph must not keep."""
    on = device.type == "cuda"
    return torch.autocast(device.type, torch.bfloat16, enabled=on, cache_enabled=False)


def freeze(module: torch.nn.Module, optimizer: Optimizer) -> None:
    """Gives a module the averaged weights and ends its training."""
    module.load_state_dict(optimizer.averaged(), strict=False)
    module.eval().requires_grad_(False)


def moving_error(out: Tensor, video: Tensor, moving: Tensor) -> Tensor:
    """Mean square error of what moves, of the range [0, 1]: a scalar on the device."""
    square = ((out - video) / 2).square() * moving
    return square.sum() / (3 * moving.sum()).clamp(min=1)


@torch.no_grad()
def judge_video(vae: PatchVideoVAE, raw: Raw) -> dict[str, float]:
    """PSNR in dB of what moves in held-out clips, by level."""
    out: dict[str, float] = {}
    for level in (1, 2, 3, 4):
        rows = [i for i, record in enumerate(raw.records) if record.level == level]
        error = count = 0.0
        for first in range(0, len(rows), 16):
            rows_B = torch.tensor(rows[first : first + 16], device=raw.count.device)
            video = to_model(raw.video_NF3HW[rows_B])
            moving = raw.moving_NFHW[rows_B][:, None].float()
            again = vae.decode(vae.encode(video).mode()).clamp(-1, 1)
            error += float((((again - video) / 2).square() * moving).sum())
            count += float(3 * moving.sum())
        if count:
            out[f"psnr_moving_{level}"] = round(-10 * np.log10(error / count + 1e-12), 2)
    return out


@torch.no_grad()
def judge_audio(vae: SpectralAudioVAE, raw: Raw) -> dict[str, float]:
    """Spectral distance in dB and loudness in dB of held-out clips, by level."""
    out: dict[str, float] = {}
    for level in (1, 2, 3, 4):
        rows = [i for i, record in enumerate(raw.records) if record.level == level][:32]
        if not rows:
            continue
        audio = raw.audio_NM[torch.tensor(rows, device=raw.count.device)].float() / 32767
        again = vae.decode(vae.encode(audio).mode(), num_samples=audio.shape[1]).cpu()
        out[f"spectral_db_{level}"] = round(spectral_distance(again, audio.cpu()), 2)
        gain = 20 * torch.log10(again.std() / audio.cpu().std().clamp(min=1e-6) + 1e-6)
        out[f"loudness_db_{level}"] = round(float(gain), 2)
    return out
