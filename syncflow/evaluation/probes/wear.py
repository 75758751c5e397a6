"""Worn clips: what decoders do to pictures and sound, imitated, so that detectors learn to bear it.

Only fitting and tests use this. Generated clips blur, drag ghosts from frame to frame, let fast
objects fade and add noise; generated sound gains a noise floor, soft attacks and echoes before and
after.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def picture(video_F3HW: Tensor, amount: float, seed: int) -> Tensor:
    """A worn copy of ``uint8 [F,3,H,W]``; ``amount`` 0 changes nothing, 1 is a poor decoder."""
    if amount <= 0:
        return video_F3HW
    generator = torch.Generator().manual_seed(seed)
    clean_F3HW = video_F3HW.float() / 255
    blur_F3HW = F.avg_pool2d(clean_F3HW, 3, 1, 1, count_include_pad=False)
    worn_F3HW = torch.lerp(clean_F3HW, blur_F3HW, min(1.0, amount))
    before_F3HW = torch.cat([worn_F3HW[:1], worn_F3HW[:-1]])
    after_F3HW = torch.cat([worn_F3HW[1:], worn_F3HW[-1:]])
    ghost = 0.3 * amount * torch.rand(len(worn_F3HW), 1, 1, 1, generator=generator)
    worn_F3HW = (1 - ghost) * worn_F3HW + ghost * (before_F3HW + after_F3HW) / 2
    # Some frames lose the object in part: they lean towards the picture without it.
    still_3HW = worn_F3HW.median(dim=0).values
    fade = torch.rand(len(worn_F3HW), 1, 1, 1, generator=generator)
    fade = 0.7 * amount * (fade > 0.85).float()
    worn_F3HW = torch.lerp(worn_F3HW, still_3HW.expand_as(worn_F3HW), fade)
    size = worn_F3HW.shape[-2:]
    small = torch.randn(len(worn_F3HW), 3, size[0] // 4, size[1] // 4, generator=generator)
    grain = F.interpolate(small, size, mode="bilinear") + torch.randn(
        worn_F3HW.shape, generator=generator
    )
    return ((worn_F3HW + 0.015 * amount * grain).clamp(0, 1) * 255).round().to(torch.uint8)


def sound(audio_M: Tensor, amount: float, seed: int) -> Tensor:
    """A worn copy of ``float [M]`` at 48 kHz; ``amount`` as in :func:`picture`."""
    if amount <= 0:
        return audio_M
    generator = torch.Generator().manual_seed(seed)
    window = torch.hann_window(960)
    spectrum = torch.stft(audio_M.float(), 960, 240, window=window, return_complex=True)
    loud = spectrum.abs()
    # Magnitudes spread over neighbouring frames (soft attacks) and wobble; phases get lost in part.
    soft = F.avg_pool1d(loud[None], 3, 1, 1, count_include_pad=False)[0]
    wobble = torch.exp(0.3 * amount * torch.randn(loud.shape, generator=generator))
    turn = amount * torch.randn(loud.shape, generator=generator)
    phase = torch.polar(torch.lerp(loud, soft, 0.4 * amount) * wobble, spectrum.angle() + turn)
    worn_M = torch.istft(phase, 960, 240, window=window, length=len(audio_M))
    noise_M = torch.randn(len(audio_M), generator=generator)
    return (worn_M + 0.002 * amount * noise_M).clamp(-1, 1)
