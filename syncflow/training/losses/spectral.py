"""The reconstruction loss of Encodec: mel spectra at several scales."""

from __future__ import annotations

import torch
from torch import Tensor

from syncflow.detect.fidelity import mel_filters

_BANDS, _FLOOR = 64, 1e-5
_POWERS = range(6, 12)  # windows of 64 to 2048 samples


def mel_distance(out_BM: Tensor, audio_BM: Tensor, sample_rate: int) -> Tensor:
    """L1 distance of mel spectra, and L2 of their logarithms weighed by sqrt(window / 2), over
    windows of 64 to 2048 samples (arXiv 2210.13438, equation 4). Scalar, fp32."""
    out_BM, audio_BM = out_BM.float(), audio_BM.float()
    total, weights = out_BM.new_zeros(()), 0.0
    for power in _POWERS:
        size = 2**power
        window = torch.hann_window(size, device=out_BM.device)
        # Bands narrower than a bin would be empty: of short windows there are fewer.
        bands = min(_BANDS, size // 8)
        filters = mel_filters(sample_rate, size, bands).to(out_BM.device)
        ours, theirs = (
            filters
            @ torch.stft(
                x, size, size // 4, window=window, normalized=True, return_complex=True
            ).abs()
            for x in (out_BM, audio_BM)
        )
        linear = (ours - theirs).abs().mean()
        logs = torch.log10(ours.clamp(min=_FLOOR)) - torch.log10(theirs.clamp(min=_FLOOR))
        weight = (size / 2) ** 0.5
        # The root has no gradient at 0, where a silent crop is reproduced.
        root = (logs.square().mean((1, 2)) + 1e-12).sqrt().mean()
        total, weights = total + linear + weight * root, weights + 1 + weight
    return total / weights
