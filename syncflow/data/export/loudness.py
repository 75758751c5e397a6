"""Sound at an asked-for loudness: ITU-R BS.1770, integrated, with true peaks that do not clip."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from syncflow import loudness

#: LUFS that can be asked for.
LEAST, MOST = -70.0, -5.0
#: The greatest true peak, dBTP (EBU R 128).
PEAK_DB = -1.0
_BLOCK_SECONDS = 0.4
_OVERSAMPLING = 4


def measure(audio_M: Tensor, sample_rate: int) -> float:
    """Integrated loudness of float [M] in LUFS; -inf for silence and for less than 0.4 s."""
    if len(audio_M) < math.ceil(_BLOCK_SECONDS * sample_rate):
        return -math.inf
    found = loudness.lufs(audio_M, sample_rate)
    return found if found > loudness.SILENCE else -math.inf


def true_peak(audio_M: Tensor, sample_rate: int) -> float:
    """The greatest value between the samples too, by four times oversampling (BS.1770 annex 2)."""
    from torchaudio.functional import resample

    audio_M = audio_M.detach().cpu().double()
    finer = resample(audio_M, sample_rate, _OVERSAMPLING * sample_rate)
    return max(float(finer.abs().max()), float(audio_M.abs().max()))


def normalise(audio_M: Tensor, sample_rate: int, lufs: float) -> tuple[Tensor, float]:
    """``audio_M`` at ``lufs``, or as near as its peaks allow, and the loudness reached.

    Only the gain changes, nothing is compressed: sound with high peaks, as impacts have, may stay
    quieter than asked for. Silence stays as it is.

    Raises:
        ValueError: a loudness that is not between -70 and -5 LUFS.
    """
    check(lufs)
    found = measure(audio_M, sample_rate)
    if found == -math.inf:
        return audio_M, found
    most = 10 ** (PEAK_DB / 20) / true_peak(audio_M, sample_rate)
    gain = min(10 ** ((lufs - found) / 20), most)
    return (audio_M.double() * gain).to(torch.float32), found + 20 * math.log10(gain)


def check(lufs: float) -> None:
    """Raises ValueError unless it can be asked for."""
    if not LEAST <= lufs <= MOST:
        raise ValueError(f"loudness must be {LEAST:g} to {MOST:g} LUFS, got {lufs:g}")
