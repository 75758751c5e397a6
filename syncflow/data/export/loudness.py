"""How loud a sound is, and sound at an asked-for loudness: ITU-R BS.1770-5, K-weighted, in gated
blocks of 400 ms, with true peaks that do not clip.

torchaudio's ``loudness`` is 0.27 LU from the standard's own test tone.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

#: LUFS that can be asked for.
LEAST, MOST = -70.0, -5.0
#: The greatest true peak, dBTP (EBU R 128).
PEAK_DB = -1.0
_BLOCK_SECONDS = 0.4
_OVERSAMPLING = 4
#: The standard's filters, at 48 kHz: a shelf for the head, then a high pass.
_SHELF = (
    [1.53512485958697, -2.69169618940638, 1.19839281085285],
    [1.0, -1.69065929318241, 0.73248077421585],
)
_HIGH_PASS = ([1.0, -2.0, 1.0], [1.0, -1.99004745483398, 0.99007225036621])
_RATE = 48000
_BLOCK, _STEP = round(_BLOCK_SECONDS * _RATE), round(0.1 * _RATE)

#: The absolute gate: what is below counts as silence.
SILENCE = -70.0


def lufs(audio_M: Tensor, rate: int) -> float:
    """Integrated loudness of mono ``float [M]``, at least ``SILENCE``. What is shorter than a block
    is filled up with silence."""
    from scipy.signal import lfilter

    if rate != _RATE:
        from torchaudio.functional import resample

        audio_M = resample(audio_M.float(), rate, _RATE)
    samples = audio_M.detach().cpu().double().numpy()
    samples = np.pad(samples, (0, max(0, _BLOCK - len(samples))))
    for numerator, denominator in (_SHELF, _HIGH_PASS):
        samples = lfilter(numerator, denominator, samples)
    energy = np.concatenate([[0.0], np.cumsum(samples**2)])
    first_B = np.arange(0, len(samples) - _BLOCK + 1, _STEP)
    power_B = (energy[first_B + _BLOCK] - energy[first_B]) / _BLOCK
    loud_B = power_B > _power(SILENCE)
    if not loud_B.any():
        return SILENCE
    gate = _level(power_B[loud_B].mean()) - 10
    return max(SILENCE, _level(power_B[loud_B & (power_B > _power(gate))].mean()))


def measure(audio_M: Tensor, sample_rate: int) -> float:
    """Integrated loudness of float [M] in LUFS; -inf for silence and for less than 0.4 s."""
    if len(audio_M) < math.ceil(_BLOCK_SECONDS * sample_rate):
        return -math.inf
    found = lufs(audio_M, sample_rate)
    return found if found > SILENCE else -math.inf


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


def _level(power: float) -> float:
    return float(-0.691 + 10 * np.log10(power))


def _power(level: float) -> float:
    return 10 ** ((level + 0.691) / 10)
