"""Which material a sound is made by: a small convolutional probe on log-mel spectra."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from syncflow.clip import SAMPLE_RATE
from syncflow.evaluation.probes import probe, wear

RATE, WINDOW, HOP, BANDS = SAMPLE_RATE, 2048, 960, 64
_CODE = (sys.modules[__name__], wear)


@lru_cache(maxsize=1)
def _filters() -> Tensor:
    """Mel triangles 40 Hz .. 20 kHz, [BANDS, WINDOW//2+1]."""

    def mel(hertz: float) -> float:
        return 2595 * math.log10(1 + hertz / 700)

    edges = 700 * (10 ** (torch.linspace(mel(40), mel(20000), BANDS + 2) / 2595) - 1)
    hertz = torch.arange(WINDOW // 2 + 1) * RATE / WINDOW
    rise = (hertz - edges[:-2, None]) / (edges[1:-1, None] - edges[:-2, None])
    fall = (edges[2:, None] - hertz) / (edges[2:, None] - edges[1:-1, None])
    weight = torch.minimum(rise, fall).clamp_min(0)
    return weight / weight.sum(1, keepdim=True).clamp_min(1e-3)


def features(audio_M: Tensor) -> Tensor:
    """Log-mel spectrum [BANDS, frames] of ``float [M]`` at 48 kHz, without the clip's loudness."""
    if audio_M.ndim != 1 or not audio_M.is_floating_point():
        raise ValueError(f"audio must be float [M], got {audio_M.dtype} {list(audio_M.shape)}")
    audio_M = audio_M.detach().cpu().float()
    audio_M = audio_M / audio_M.abs().max().clamp_min(1e-4)
    spectrum = torch.stft(
        audio_M, WINDOW, HOP, window=torch.hann_window(WINDOW), return_complex=True
    ).abs()
    # -70 dB of the loudest is the floor: what a decoder leaves below it says nothing about matter.
    decibels = 20 * torch.log10(_filters() @ spectrum + 1e-6)
    decibels = (decibels - decibels.max()).clamp_min(-70.0)
    return decibels / 35 + 1


class MaterialNet(nn.Module):
    """Log-mel [B, BANDS, frames] -> logits [B, labels]; frames are pooled by learned attention."""

    def __init__(self, labels: int, width: int = 32) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, width // 2, 5, (2, 2), 2),
            nn.BatchNorm2d(width // 2),
            nn.ReLU(),
            nn.Conv2d(width // 2, width, 3, (2, 2), 1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, (2, 1), 1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.score = nn.Linear(width * BANDS // 8, 1)
        self.mix = nn.Linear(width * BANDS // 8, 64)
        self.head = nn.Linear(64, labels)

    def forward(self, mel_BKN: Tensor) -> Tensor:
        """Log-mel spectra [B, bands, frames] -> logits [B, labels]."""
        hidden_BNC = self.conv(mel_BKN[:, None]).flatten(1, 2).transpose(1, 2)
        weight_BN1 = self.score(hidden_BNC).softmax(1)
        return self.head(F.relu(self.mix((weight_BN1 * hidden_BNC).sum(1))))


def _augment(mel_BKN: Tensor, generator: torch.Generator) -> Tensor:
    """Tilted spectra, raised floors: what codecs and rooms change without changing the matter."""
    count = len(mel_BKN)
    tilt = torch.linspace(-1, 1, BANDS)[None, :, None]
    amount = 0.15 * torch.randn(count, 1, 1, generator=generator)
    floor = -1 + 0.8 * torch.rand(count, 1, 1, generator=generator) ** 2
    noise = 0.05 * torch.randn(mel_BKN.shape, generator=generator)
    return torch.maximum(mel_BKN + amount * tilt, floor) + noise


def _examples(split: str, clips: int, levels: Sequence[int]) -> tuple[list[Tensor], list[str]]:
    """Features and materials of clips that sound of one material; in training, half are worn."""
    from syncflow import impacts

    inputs, labels = [], []
    for level in levels:
        for index, seed in enumerate(impacts.SEEDS[split][:clips]):
            scene = impacts.sample_scene(seed, level, split)
            if "second" in scene.attributes or scene.attributes["kind"] == "splash":
                continue  # two materials, or the sound of water
            audio_M = torch.from_numpy(impacts.sound(scene))
            if split == "train":
                audio_M = wear.sound(audio_M, 0.5 * (index % 2), seed)
            inputs.append(features(audio_M))
            labels.append(scene.attributes["material"])
    return inputs, labels


def load(cache: str | Path | None, settings: probe.ProbeSettings | None = None) -> probe.Probe:
    """The material probe: from folder ``cache`` if it was trained before, else trained now (about a
    minute) and kept there. ``None`` keeps nothing."""
    from syncflow import impacts

    settings = settings or probe.ProbeSettings()
    labels = [str(value) for value in impacts.attribute_values(max(settings.levels))["material"]]
    heard = [
        round(float(impacts.sound(impacts.sample_scene(seed, level)).std()), 6)
        for level in settings.levels
        for seed in range(8)
    ]
    name = f"material-{probe.fingerprint(settings, _CODE, labels, heard)}"
    return probe.learned(cache, name, labels, settings, MaterialNet, _examples, _augment)


def predict(trained: probe.Probe, audio: Sequence[Tensor]) -> list[str]:
    """The likeliest material of every soundtrack ``float [M]``."""
    return trained.predict([features(audio_M) for audio_M in audio])
