"""How loud a sound is, ITU-R BS.1770-5: K-weighted, in gated blocks of 400 ms.

torchaudio's ``loudness`` is 0.27 LU from the standard's own test tone.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

#: The standard's filters, at 48 kHz: a shelf for the head, then a high pass.
_SHELF = (
    [1.53512485958697, -2.69169618940638, 1.19839281085285],
    [1.0, -1.69065929318241, 0.73248077421585],
)
_HIGH_PASS = ([1.0, -2.0, 1.0], [1.0, -1.99004745483398, 0.99007225036621])
_RATE = 48000
_BLOCK, _STEP = round(0.4 * _RATE), round(0.1 * _RATE)

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


def _level(power: float) -> float:
    return float(-0.691 + 10 * np.log10(power))


def _power(level: float) -> float:
    return 10 ** ((level + 0.691) / 10)
