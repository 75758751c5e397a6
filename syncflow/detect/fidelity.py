"""How near a copy is to what it is of: pictures in PSNR, sound as a distance of spectra.

The one owner of both for validation while a VAE trains, for reports and for benchmarks.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from syncflow.clip import SAMPLE_RATE, Clip, to_model

#: Window and hop of the spectra, samples; and the amplitude below which a bin is silent (-80 dB).
_WINDOW, _HOP, _FLOOR = 1024, 256, 1e-4
_MEL_BANDS = 80


def moving_mask(video_BCFHW: Tensor, threshold: float = 0.16) -> Tensor:
    """1 where a pixel differs from its median over time by more than ``threshold`` (of the range
    [-1,1]), [B,1,F,H,W]: the part of the picture that carries the contacts."""
    still = video_BCFHW[:, :, ::2].median(2, keepdim=True).values
    return ((video_BCFHW - still).abs().amax(1, keepdim=True) > threshold).float()


def psnr(out: Tensor, target: Tensor, mask: Tensor | None = None, span: float = 2.0) -> float:
    """Peak signal-to-noise ratio in dB, at most 120, of videos whose values lie within a range of
    ``span`` (2 for [-1,1], 255 for uint8), over ``mask`` if given; nan if that is empty."""
    square = ((out - target) / span).square()
    if mask is None:
        mean = square.mean()
    else:
        mask = mask.expand_as(square)
        mean = (square * mask).sum() / mask.sum()
    return float(-10 * torch.log10(mean + 1e-12))


def log_spectrum(audio_BM: Tensor) -> Tensor:
    """Magnitudes of [M] or [B,M] in dB, [.., bins, frames]; what is below -80 dB is silence."""
    window = torch.hann_window(_WINDOW)
    spectrum = torch.stft(audio_BM.float(), _WINDOW, _HOP, window=window, return_complex=True)
    return 20 * torch.log10(spectrum.abs() * (2 / window.sum()) + _FLOOR)


def spectral_distance(out_BM: Tensor, audio_BM: Tensor) -> float:
    """Mean difference of log magnitudes in dB, over all bins; [M] or [B,M], in [-1,1]."""
    return float((log_spectrum(out_BM) - log_spectrum(audio_BM)).abs().mean())


@lru_cache(maxsize=16)
def mel_filters(sample_rate: int, window: int, bands: int) -> Tensor:
    """Triangles of unit height on the mel scale (2595 log10(1 + f / 700)) from 0 to half the sample
    rate, [bands, window // 2 + 1]."""
    top = 2595 * math.log10(1 + sample_rate / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, bands + 2, dtype=torch.float64) / 2595) - 1)
    bins = torch.linspace(0, sample_rate / 2, window // 2 + 1, dtype=torch.float64)
    left, mid, right = (edges[i : i + bands, None] for i in range(3))
    up, down = (bins - left) / (mid - left), (right - bins) / (right - mid)
    return torch.minimum(up, down).clamp_min(0).float()


def mel_distance(out_BM: Tensor, audio_BM: Tensor, sample_rate: int = SAMPLE_RATE) -> float:
    """Mean difference in dB of 80 mel bands (amplitudes; below -80 dB is silence); [M] or [B,M]."""
    window = torch.hann_window(_WINDOW)
    filters = mel_filters(sample_rate, _WINDOW, _MEL_BANDS)
    levels = [
        20
        * torch.log10(
            filters
            @ torch.stft(x.float(), _WINDOW, _HOP, window=window, return_complex=True).abs()
            * (2 / window.sum())
            + _FLOOR
        )
        for x in (out_BM, audio_BM)
    ]
    return float((levels[0] - levels[1]).abs().mean())


def si_sdr(out_BM: Tensor, audio_BM: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio (arXiv 1811.02508) in dB of each sound [B],
    between -60 and 60; both [B,M]. A silent original has none: nan."""
    out_BM = out_BM.double() - out_BM.double().mean(1, keepdim=True)
    audio_BM = audio_BM.double() - audio_BM.double().mean(1, keepdim=True)
    power_B1 = audio_BM.square().sum(1, keepdim=True)
    target_BM = (out_BM * audio_BM).sum(1, keepdim=True) / power_B1 * audio_BM
    rest_B = (out_BM - target_BM).square().sum(1)
    ratio_B = target_BM.square().sum(1) / (rest_B + 1e-20)
    return (10 * torch.log10(ratio_B)).clamp(-60, 60).float()


def measure(original: Clip, copy: Clip) -> dict[str, float]:
    """``psnr`` and ``psnr_moving`` (dB, of all pixels and of those that move; nan where none does)
    and ``spectral_db`` (dB), over the frames and samples that both have."""
    frames = min(len(original.video), len(copy.video))
    samples = min(len(original.audio), len(copy.audio))
    theirs, ours = (to_model(clip.video[:frames])[None] for clip in (original, copy))
    moving = psnr(ours, theirs, moving_mask(theirs)) if frames else math.nan
    return {
        "psnr": psnr(ours, theirs),
        "psnr_moving": moving,
        "spectral_db": spectral_distance(copy.audio[:samples], original.audio[:samples]),
    }
