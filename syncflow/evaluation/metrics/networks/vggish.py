"""VGGish (Hershey et al., 2017) in the layout of its PyTorch release, and its log-mel input.

The release is ``vggish-10086976.pth``: six convolutions ``features.*`` and three linear layers
``embeddings.*``, converted from the AudioSet checkpoint.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from syncflow.evaluation.metrics.networks import loading

RATE = 16000
#: 25 ms every 10 ms, 64 mel bands of 125 .. 7500 Hz; an example is 96 frames (0.96 s).
WINDOW, HOP, BINS, BANDS, FRAMES = 400, 160, 512, 64, 96
_LOW_HZ, _HIGH_HZ, _FLOOR = 125.0, 7500.0, 0.01
#: Samples without which there is not one example.
SHORTEST = (FRAMES - 1) * HOP + WINDOW
NAME = "VGGish weights (vggish-10086976.pth)"
_CONVOLUTIONS = (0, 3, 6, 8, 11, 13)
_POOLED = (0, 3, 8, 13)


@lru_cache(maxsize=1)
def _filters() -> Tensor:
    """Triangles on the mel scale, [bins, BANDS]; the constant bin weighs nothing."""
    hertz = torch.linspace(0, RATE / 2, BINS // 2 + 1, dtype=torch.float64)
    mel = 1127 * torch.log1p(hertz / 700)
    low, high = (1127 * math.log1p(f / 700) for f in (_LOW_HZ, _HIGH_HZ))
    edges = torch.linspace(low, high, BANDS + 2, dtype=torch.float64)
    rise = (mel[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - mel[:, None]) / (edges[2:] - edges[1:-1])
    weight = torch.minimum(rise, fall).clamp_min(0)
    weight[0] = 0
    return weight


def examples(audio_M: Tensor, hop_seconds: float = FRAMES * HOP / RATE) -> Tensor:
    """Log-mel examples [N, 1, FRAMES, BANDS] of mono audio [M] at ``RATE``, in [-1, 1].

    Raises:
        ValueError: shorter than one example.
    """
    if audio_M.ndim != 1 or len(audio_M) < SHORTEST:
        raise ValueError(
            f"VGGish needs mono audio of at least {SHORTEST / RATE:g} s, got "
            f"{list(audio_M.shape)} samples at {RATE} Hz"
        )
    frames_NW = audio_M.double().unfold(0, WINDOW, HOP)
    window = torch.hann_window(WINDOW, periodic=True, dtype=torch.float64)
    spectrum = torch.fft.rfft(frames_NW * window, BINS).abs()
    logmel = torch.log(spectrum @ _filters() + _FLOOR)
    step = round(hop_seconds * RATE / HOP)
    return logmel.unfold(0, FRAMES, step).transpose(1, 2)[:, None].float()


class VGGish(nn.Module):
    """Examples [N, 1, FRAMES, BANDS] -> embeddings [N, 128], before the release's last ReLU."""

    def __init__(self, channels: list[int], widths: list[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for index, width in zip(_CONVOLUTIONS, channels, strict=True):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if index in _POOLED else []
            before = width
        self.features = nn.Sequential(*layers)
        flat = before * (FRAMES // 16) * (BANDS // 16)
        sizes = [flat, *widths]
        self.embeddings = nn.Sequential(
            nn.Linear(sizes[0], sizes[1]),
            nn.ReLU(),
            nn.Linear(sizes[1], sizes[2]),
            nn.ReLU(),
            nn.Linear(sizes[2], sizes[3]),
        )

    def forward(self, examples_N1FB: Tensor) -> Tensor:
        """Log-mel examples [N, 1, frames, bands] -> embeddings [N, E]."""
        # Channels last, as the TensorFlow original flattens.
        hidden = self.features(examples_N1FB).permute(0, 2, 3, 1).flatten(1)
        return self.embeddings(hidden)


@lru_cache(maxsize=1)
def load(path: str | Path) -> VGGish:
    """VGGish from published weights; sizes are read off them."""
    weights = loading.read(path, NAME)
    convolutions = tuple(f"features.{index}.weight" for index in _CONVOLUTIONS)
    linear = tuple(f"embeddings.{index}.weight" for index in (0, 2, 4))
    loading.need(weights, (*convolutions, *linear), path, NAME)
    # Another release keeps the whitening of its embeddings in the same file; it is not used here.
    weights = {k: v for k, v in weights.items() if k.startswith(("features.", "embeddings."))}
    network = VGGish([len(weights[k]) for k in convolutions], [len(weights[k]) for k in linear])
    return loading.fill(network, weights, path, NAME)
