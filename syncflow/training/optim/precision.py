"""Which numbers a run computes with, by what the device can.

On a CPU without instructions for bfloat16 a step is several times slower in it than in float32, and
Muon's iterations, which it runs in bfloat16, are most of what is left.
"""

from __future__ import annotations

from typing import Literal

import torch

from syncflow.models.codec import has_bfloat16
from syncflow.training.settings import LoopConfig


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
