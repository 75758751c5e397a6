"""Reconstruction losses of the small VAEs."""

from __future__ import annotations

import torch
from torch import Tensor

from syncflow.detect.fidelity import moving_mask


def video_reconstruction(
    out_BCFHW: Tensor,
    video_BCFHW: Tensor,
    moving_weight: float,
    moving_B1FHW: Tensor | None = None,
    counts_B1F11: Tensor | None = None,
) -> Tensor:
    """L1 + 2 L2 with moving pixels weighted, and the same of spatial differences, which keeps
    edges sharp. Scalar. ``moving_B1FHW``: the ``moving_mask``, where it is known already;
    ``counts_B1F11``: how much each frame counts, where not all alike."""
    moving = moving_mask(video_BCFHW) if moving_B1FHW is None else moving_B1FHW
    weight = 1 + moving_weight * moving
    if counts_B1F11 is not None:
        weight = weight * counts_B1F11
    error = (out_BCFHW - video_BCFHW) / 2
    loss = (weight * (error.abs() + 2 * error.square())).mean()
    across = (weight[..., 1:] * error.diff(dim=-1).abs()).mean()
    down = (weight[..., 1:, :] * error.diff(dim=-2).abs()).mean()
    return loss + 0.5 * (across + down)


def audio_reconstruction(out_BM: Tensor, audio_BM: Tensor, band_weight: float = 0.0) -> Tensor:
    """Multi-resolution spectral loss: log magnitude, relative magnitude and log magnitude weighted
    by energy, which keeps the partials that name a material. Scalar, fp32.

    ``band_weight`` adds the log energy of 24 bands: the others forgive a decoder that is too quiet
    where it cannot hit a partial's exact frequency.
    """
    out_BM, audio_BM = out_BM.float(), audio_BM.float()
    total = out_BM.new_zeros(())
    for size in (128, 512, 2048):
        window = torch.hann_window(size, device=out_BM.device)
        ours, theirs = (
            torch.stft(x, size, size // 4, window=window, return_complex=True).abs()
            / window.sum()
            * 2
            for x in (out_BM, audio_BM)
        )
        log_error = (torch.log(ours + 1e-4) - torch.log(theirs + 1e-4)).abs()
        relative = (ours - theirs).abs().mean((1, 2)) / (theirs.mean((1, 2)) + 3e-4)
        weight = theirs.sqrt()
        weighted = (weight * log_error).sum((1, 2)) / (weight.sum((1, 2)) + 1e-3)
        total = total + log_error.mean() * 0.5 + relative.mean() + 0.5 * weighted.mean()
        if band_weight:
            total = total + band_weight * _band_error(ours, theirs)
    return total / 3


def level_difference(out_BM: Tensor, audio_BM: Tensor) -> Tensor:
    """By how many dB each sound is louder than it should be, ``[B]``; silence is -70 dB."""
    ours_B, theirs_B = (
        10 * torch.log10(x.float().square().mean(1) + 1e-7) for x in (out_BM, audio_BM)
    )
    return ours_B - theirs_B


def _band_error(ours_BFT: Tensor, theirs_BFT: Tensor, bands: int = 24) -> Tensor:
    """Mean difference of log band energies; the bands' widths grow with frequency."""
    bins = ours_BFT.shape[1]
    place = torch.log1p(torch.arange(bins, device=ours_BFT.device) * 300.0 / bins)
    which = (place / place[-1] * (bands - 1e-3)).long()
    sums = []
    for x in (ours_BFT, theirs_BFT):
        energy = x.new_zeros(x.shape[0], bands, x.shape[2]).index_add_(1, which, x.square())
        sums.append(torch.log(energy + 1e-8))
    return 0.5 * (sums[0] - sums[1]).abs().mean()
