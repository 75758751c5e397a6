"""Whether a device multiplies bfloat16 itself.

On a CPU without instructions for it (AVX2 alone, say) PyTorch unpacks every number, and what is
meant to be faster is several times slower than in float32.
"""

from __future__ import annotations

import torch

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
