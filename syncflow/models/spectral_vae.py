"""A small audio VAE between fixed spectral analysis and synthesis, for models trained on CPUs.

The same interface and rate (one latent per 960 samples) as the Encodec VAE of ``audio_vae.py``; see
docs/decisions.md. What a small network learns badly, the phases of ringing partials and the shape
of clicks, is given to two fixed bases: a bank of oscillators whose phase is tied to the time since
the clip's start, and a 2.5 ms MDCT. Letters: B batch, M samples, A latents (50 Hz), K synthesis
frames (400 Hz), C channels.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from syncflow.clip import AUDIO_HOP, audio_latents
from syncflow.config import SpectralVAEConfig
from syncflow.models.codec import AudioCodec
from syncflow.models.posterior import DiagonalGaussian
from syncflow.ops.kept import kept

_FRAME = 120  # samples of a synthesis frame
_FRAMES = AUDIO_HOP // _FRAME  # synthesis frames of a latent
_FINE, _COARSE = 480, 2048  # analysis windows: one for time, one for pitch


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution over time, LayerNorm, MLP, residual."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(
            channels, channels, 7, padding=3 * dilation, dilation=dilation, groups=channels
        )
        self.norm = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, 3 * channels)
        self.fc2 = nn.Linear(3 * channels, channels)
        nn.init.zeros_(self.fc2.weight)
        nn.init.zeros_(self.fc2.bias)

    def forward(self, x_BAC: Tensor) -> Tensor:
        """[B, A, C] -> the same."""
        h = self.depthwise(x_BAC.mT).mT
        out: Tensor = x_BAC + self.fc2(F.gelu(self.fc1(self.norm(h)), approximate="tanh"))
        return out


class Synthesis(nn.Module):
    """Fixed bases: oscillator bank and MDCT, coefficients at 400 Hz -> samples. Always fp32,
    because bf16 bases would add noise at -45 dB."""

    oscillator_basis: Tensor
    mdct_basis: Tensor

    def __init__(self, sample_rate: int, oscillators: int) -> None:
        super().__init__()
        self.sample_rate, self.omega_O = sample_rate, _frequencies(sample_rate, oscillators)
        n = torch.arange(_FRAME, dtype=torch.float64)
        fade = n / _FRAME
        phase_On = self.omega_O[:, None] * n
        wave = torch.cat([phase_On.cos(), -phase_On.sin()])  # real and imaginary parts, [2O, 120]
        self.register_buffer(
            "oscillator_basis",
            torch.cat([wave * (1 - fade), wave * fade]).float(),
            persistent=False,
        )
        m = torch.arange(2 * _FRAME, dtype=torch.float64)
        k = torch.arange(_FRAME, dtype=torch.float64)[:, None]
        window = torch.sin(math.pi / (2 * _FRAME) * (m + 0.5))
        mdct = torch.cos(math.pi / _FRAME * (m + 0.5 + _FRAME / 2) * (k + 0.5))
        self.register_buffer(
            "mdct_basis", (mdct * window * (2 / _FRAME) ** 0.5).float(), persistent=False
        )

    @property
    def num_coefficients(self) -> int:
        """Channels that a synthesis frame is made of."""
        return 2 * len(self.omega_O) + _FRAME

    def forward(self, coefficient_BKC: Tensor) -> Tensor:
        """[B,K,2*O+120] -> [B,K*120]."""
        batch, frames, _ = coefficient_BKC.shape
        num = len(self.omega_O)
        real, imag, mdct = coefficient_BKC.float().split([num, num, _FRAME], -1)
        cos, sin = _phases(frames, self.sample_rate, num, real.device)
        nxt_real, nxt_imag = (torch.cat([x[:, 1:], x[:, -1:]], 1) for x in (real, imag))
        envelope = torch.cat(
            [
                real * cos - imag * sin,
                real * sin + imag * cos,
                nxt_real * cos - nxt_imag * sin,
                nxt_real * sin + nxt_imag * cos,
            ],
            -1,
        )  # [B,K,4*O]
        tonal = envelope @ self.oscillator_basis
        left, right = (mdct @ self.mdct_basis).chunk(2, -1)
        overlap = torch.cat([left[:, 1:], torch.zeros_like(left[:, :1])], 1)
        # The half window before the first frame has no partner and is dropped.
        samples_BM: Tensor = (tonal + right + overlap).reshape(batch, frames * _FRAME)
        return samples_BM


def _frequencies(sample_rate: int, oscillators: int) -> Tensor:
    """Radians a sample of every oscillator, evenly spaced in pitch: [O], float64."""
    top = min(16000.0, 0.45 * sample_rate)
    hertz_O = torch.logspace(math.log10(80.0), math.log10(top), oscillators, dtype=torch.float64)
    return 2 * math.pi / sample_rate * hertz_O


@kept
def _phases(
    frames: int, sample_rate: int, oscillators: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every oscillator's phase where a synthesis frame begins, [K, O] each; not
    to be changed. They come from the host once: a CUDA graph may not wait for them."""
    start_K1 = torch.arange(frames, dtype=torch.float64)[:, None] * _FRAME
    angle_KO = torch.remainder(start_K1 * _frequencies(sample_rate, oscillators), 2 * math.pi)
    return angle_KO.cos().float().to(device), angle_KO.sin().float().to(device)


class SpectralAudioVAE(AudioCodec):
    """Audio VAE at 50 Hz: log spectrograms -> ConvNeXt -> latent -> ConvNeXt -> fixed synthesis."""

    fine_window: Tensor
    coarse_window: Tensor

    def __init__(self, config: SpectralVAEConfig) -> None:
        super().__init__()
        self.config = config
        width, z, upper = config.width, config.latent_channels, config.width // 2
        self.register_buffer("fine_window", torch.hann_window(_FINE), persistent=False)
        self.register_buffer("coarse_window", torch.hann_window(_COARSE), persistent=False)
        self.encoder = nn.ModuleDict(
            {
                "fine": nn.Linear(_FRAMES * (_FINE // 2 + 1), width),
                "coarse": nn.Linear(_COARSE // 2 + 1, width),
                "blocks": nn.Sequential(*(ConvNeXtBlock(width) for _ in range(2))),
                "out": nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * z)),
            }
        )
        self.synthesis = Synthesis(config.sample_rate, config.oscillators)
        self.decoder = nn.ModuleDict(
            {
                "input": nn.Linear(z, width),
                "blocks": nn.Sequential(*(ConvNeXtBlock(width) for _ in range(config.depth))),
                "split": nn.Linear(width, _FRAMES * upper),
                "upper": nn.Sequential(*(ConvNeXtBlock(upper, 3**i) for i in range(3))),
                "norm": nn.LayerNorm(upper),
                "out": nn.Linear(upper, self.synthesis.num_coefficients),
            }
        )
        last = cast(nn.Linear, self.decoder["out"])
        nn.init.normal_(last.weight, std=0.03 / upper**0.5)
        nn.init.zeros_(last.bias)

    def _spectrum(self, audio_BM: Tensor, window: Tensor, hop: int, frames: int) -> Tensor:
        size = len(window)
        # The first window is centred on the middle of the first hop.
        left = (size - hop) // 2
        padded = F.pad(audio_BM, (left, size - hop - left + hop))
        spec = torch.stft(padded, size, hop, window=window, center=False, return_complex=True)[
            ..., :frames
        ]
        magnitude = spec.abs() / window.sum() * 2
        return (torch.log(magnitude + 1e-4) + 6.0).mT / 3.0

    def encode(self, audio_BM: Tensor) -> DiagonalGaussian:
        """Mono audio [B,M] in [-1,1] -> posterior over latents [B,A,D], A = ceil(M / 960)."""
        if audio_BM.ndim != 2:
            raise ValueError(f"audio must be [B,M] (mono), got {list(audio_BM.shape)}")
        length = audio_latents(audio_BM.shape[1])
        audio = F.pad(audio_BM.float(), (0, length * AUDIO_HOP - audio_BM.shape[1]))
        fine = self._spectrum(audio, self.fine_window, _FRAME, length * _FRAMES)
        coarse = self._spectrum(audio, self.coarse_window, AUDIO_HOP, length)
        x = self.encoder["fine"](fine.reshape(len(audio), length, -1))
        x = self.encoder["blocks"](x + self.encoder["coarse"](coarse))
        mean, logvar = self.encoder["out"](x).float().chunk(2, -1)
        return DiagonalGaussian(mean, logvar)

    @torch.no_grad()
    def raise_level(self, decibels: float) -> None:
        """Makes all that is decoded louder by so much, to the sample: what a loss of spectra leaves
        too quiet on average."""
        last = cast(nn.Linear, self.decoder["out"])
        for value in (last.weight, last.bias):
            value.mul_(10 ** (decibels / 40))  # of what is squared

    def decode(self, latent_BAD: Tensor, num_samples: int | None = None) -> Tensor:
        """Latents [B,A,D] -> audio [B,M]; ``num_samples`` cuts the padded tail."""
        x = self.decoder["blocks"](self.decoder["input"](latent_BAD))
        x = self.decoder["split"](x).reshape(len(x), -1, self.config.width // 2)
        x = self.decoder["out"](self.decoder["norm"](self.decoder["upper"](x))).float()
        # Squaring gives the coefficients the dynamic range of sound.
        with torch.autocast(x.device.type, enabled=False):
            audio_BM: Tensor = self.synthesis(x * x.abs())
            return audio_BM[:, :num_samples]
