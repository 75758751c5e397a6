"""Discriminators: of sounds by their spectra at several scales, of videos by patches.

Each gives for every scale a verdict and the features that lead to it (``adversarial.Verdicts``).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from syncflow.training.losses.adversarial import Verdicts


class _OneSpectrum(nn.Module):
    """Convolutions over real and imaginary part of one STFT, dilated in time."""

    window: Tensor

    def __init__(self, size: int, filters: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("window", torch.hann_window(size), persistent=False)
        layers = [nn.Conv2d(2, filters, (3, 9), padding=(1, 4))]
        for dilation in (1, 2, 4):
            layers.append(
                nn.Conv2d(
                    filters, filters, (3, 9), (1, 2), padding=(dilation, 4), dilation=(dilation, 1)
                )
            )
        layers.append(nn.Conv2d(filters, filters, (3, 3), padding=1))
        self.layers = nn.ModuleList(weight_norm(layer) for layer in layers)
        self.last = weight_norm(nn.Conv2d(filters, 1, (3, 3), padding=1))

    def forward(self, audio_BM: Tensor) -> tuple[Tensor, list[Tensor]]:
        spectrum_BFT = torch.stft(
            audio_BM,
            self.size,
            self.size // 4,
            window=self.window,
            normalized=True,
            center=False,
            return_complex=True,
        )
        x = torch.view_as_real(spectrum_BFT).permute(0, 3, 2, 1)  # [B, 2, T, F]
        features = []
        for layer in self.layers:
            x = nn.functional.leaky_relu(layer(x), 0.2)
            features.append(x)
        return self.last(x), features


class SpectralDiscriminator(nn.Module):
    """Encodec's multi-scale STFT discriminator (arXiv 2210.13438, section 3.4), mono.

    Args:
        windows: samples of each scale's STFT; the hop is a quarter.
        filters: channels of every layer.
    """

    def __init__(self, windows: Sequence[int], filters: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(_OneSpectrum(size, filters) for size in windows)

    def forward(self, audio_BM: Tensor) -> Verdicts:
        """Of sounds [B, M] in [-1, 1], at least as long as the longest window."""
        return [scale(audio_BM) for scale in self.scales]


class PatchDiscriminator(nn.Module):
    """Judges overlapping patches of a video: pix2pix's discriminator with one more axis.

    Group norm stands in for batch norm, which would tie the clips of a batch, and the processes
    that share it, together.

    Args:
        filters: channels of the first layer; each of the next ``layers`` has twice as many, up to
            eight times.
        layers: that halve height and width; the first two halve time too.
    """

    def __init__(self, filters: int, layers: int = 3) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        before = 3
        for index in range(layers + 1):
            width = filters * min(2**index, 8)
            last = index == layers
            steps = (1, 1, 1) if last else (2 if index < 2 else 1, 2, 2)
            parts: list[nn.Module] = [nn.Conv3d(before, width, 3, steps, padding=1)]
            if index:
                parts.append(nn.GroupNorm(min(32, width // 4), width))
            self.layers.append(nn.Sequential(*parts, nn.LeakyReLU(0.2)))
            before = width
        self.last = nn.Conv3d(before, 1, 3, padding=1)

    def forward(self, video_BCFHW: Tensor) -> Verdicts:
        """Of videos [B, 3, F, H, W] in [-1, 1]."""
        x, features = video_BCFHW, []
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return [(self.last(x), features)]
