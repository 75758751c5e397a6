"""Which numbers a run computes with, by what the device can.

On a CPU without instructions for bfloat16 (AVX2 alone, say) PyTorch unpacks every number: a step
is several times slower than in float32, and Muon's iterations, which it runs in bfloat16, are most
of what is left.
"""

from __future__ import annotations

from typing import Literal

import torch

from syncflow.training.settings import LoopConfig

#: CPU capabilities of which any one multiplies bfloat16 itself.
_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "avx10_1", "bf16", "arm_bf16", "sve_bf16")


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 itself; what is no CPU is taken to."""
    if device.type != "cpu":
        return True
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else None
    if known is None:  # PyTorch 2.9
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return any(known.get(name) for name in _INSTRUCTIONS)


def chosen(config: LoopConfig, device: torch.device) -> Literal["bf16", "fp32"]:
    """The precision of a run; "auto" is bf16 where the device multiplies it itself."""
    if config.precision != "auto":
        return config.precision
    return "bf16" if has_bfloat16(device) else "fp32"


def told(config: LoopConfig, device: torch.device) -> str:
    """What a run's first line says of it."""
    has = has_bfloat16(device)
    why = f"this {device.type} {'has' if has else 'has no'} bfloat16 instructions"
    text = f"computes in {chosen(config, device)} ({why})"
    if config.optimizer == "muon":
        text += f", Muon's iterations in {'bf16' if has else 'fp32'}"
    return text
