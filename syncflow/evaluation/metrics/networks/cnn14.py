"""Cnn14 of PANNs (Kong et al., 2020) in the layout of its published weights.

``Cnn14_mAP=0.431.pth`` (32 kHz) or ``Cnn14_16k_mAP=0.438.pth``: the file carries its own Fourier
and mel matrices, whose sizes tell which one it is.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from syncflow.evaluation.metrics.networks import loading

NAME = "Cnn14 weights of PANNs (Cnn14_mAP=0.431.pth)"
_BLOCKS = 6
_STFT = "spectrogram_extractor.stft.conv_real.weight"
_MEL = "logmel_extractor.melW"
#: Window -> (sample rate, hop) of the published variants.
_VARIANTS = {1024: (32000, 320), 512: (16000, 160)}


class _Filters(nn.Module):
    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(shape))


class _Stft(nn.Module):
    def __init__(self, window: int) -> None:
        super().__init__()
        shape = (window // 2 + 1, 1, window)
        self.conv_real, self.conv_imag = _Filters(shape), _Filters(shape)


class _Spectrogram(nn.Module):
    def __init__(self, window: int) -> None:
        super().__init__()
        self.stft = _Stft(window)


class _Bands(nn.Module):
    def __init__(self, window: int, bands: int) -> None:
        super().__init__()
        self.melW = nn.Parameter(torch.zeros(window // 2 + 1, bands))


class _Block(nn.Module):
    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x: Tensor, pool: int) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.avg_pool2d(x, pool) if pool > 1 else x


class Cnn14(nn.Module):
    """Audio [B, M] at ``rate`` in [-1, 1] -> logits [B, classes]."""

    def __init__(
        self, window: int, bands: int, widths: list[int], hidden: int, classes: int
    ) -> None:
        super().__init__()
        self.rate, self.hop = _VARIANTS[window]
        self.window = window
        self.spectrogram_extractor = _Spectrogram(window)
        self.logmel_extractor = _Bands(window, bands)
        self.bn0 = nn.BatchNorm2d(bands)
        for index, (before, width) in enumerate(zip([1, *widths], widths, strict=False), 1):
            setattr(self, f"conv_block{index}", _Block(before, width))
        self.fc1 = nn.Linear(widths[-1], hidden)
        self.fc_audioset = nn.Linear(hidden, classes)

    def logmel(self, audio_BM: Tensor) -> Tensor:
        """[B, frames, bands] in dB."""
        stft, half = self.spectrogram_extractor.stft, self.window // 2
        padded = F.pad(audio_BM[:, None], (half, half), mode="reflect")
        real, imaginary = (
            F.conv1d(padded, part.weight, stride=self.hop)
            for part in (stft.conv_real, stft.conv_imag)
        )
        power = (real.square() + imaginary.square()).transpose(1, 2)
        return 10 * torch.log10((power @ self.logmel_extractor.melW).clamp_min(1e-10))

    def forward(self, audio_BM: Tensor) -> Tensor:
        """Logits of AudioSet's classes [B, 527] of mono sound [B, M] at the network's rate."""
        x = self.logmel(audio_BM)[:, None]
        x = self.bn0(x.transpose(1, 3)).transpose(1, 3)
        for index in range(1, _BLOCKS + 1):
            x = getattr(self, f"conv_block{index}")(x, 2 if index < _BLOCKS else 1)
        x = x.mean(3)
        x = x.amax(2) + x.mean(2)
        return self.fc_audioset(F.relu(self.fc1(x)))


@lru_cache(maxsize=1)
def load(path: str | Path) -> Cnn14:
    """Cnn14 from published weights."""
    weights = loading.read(path, NAME)
    convolutions = tuple(f"conv_block{index}.conv1.weight" for index in range(1, _BLOCKS + 1))
    sizes = (_STFT, _MEL, *convolutions, "fc1.weight", "fc_audioset.weight")
    loading.need(weights, sizes, path, NAME)
    window = weights[_STFT].shape[-1]
    if window not in _VARIANTS:
        known = ", ".join(map(str, _VARIANTS))
        raise ValueError(f"'{path}' is not {NAME}: its window is {window}, known are {known}")
    network = Cnn14(
        window,
        weights[_MEL].shape[1],
        [len(weights[key]) for key in convolutions],
        len(weights["fc1.weight"]),
        len(weights["fc_audioset.weight"]),
    )
    return loading.fill(network, weights, path, NAME)
