"""The machine's own limits, which every other figure is held against."""

from __future__ import annotations

import torch

from benchmarks.gpu.timing import measure, sets_for


def ceilings(device: torch.device, tiny: bool) -> dict[str, float | None]:
    """Bytes a second of a large copy and of one as large as the operators' tensors; operations a
    second of a large matrix product."""
    n = 1 << 20 if tiny else 2 << 30
    source = torch.randint(0, 255, (n,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = measure([lambda: target.copy_(source)], tiny)
    # The same by a kernel: a copy in a graph may be left to the copy engines, which are slower.
    wide, other = source.view(torch.int32), target.view(torch.int32)
    streamed = measure([lambda: torch.bitwise_not(wide, out=other)], tiny)
    side = 64 if tiny else 8192
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    a, b = torch.randn(2, side, side, device=device, dtype=dtype)
    out = torch.empty_like(a)
    product = measure([lambda: torch.mm(a, b, out=out)], tiny)
    small = 1 << 16 if tiny else 2 * 2048 * 1152 * 2
    sets = [
        (torch.randn(small // 4, device=device), torch.empty(small // 4, device=device))
        for _ in range(sets_for(2 * small, tiny))
    ]
    copies = measure([lambda s=s: s[1].copy_(s[0]) for s in sets], tiny)
    streams = measure([lambda s=s: torch.neg(s[0], out=s[1]) for s in sets], tiny)
    return {
        "copy_bytes_per_s": copy and 2 * n / copy.median * 1e6,
        "kernel_bytes_per_s": streamed and 2 * n / streamed.median * 1e6,
        "copy_9MB_bytes_per_s": copies and 2 * small / copies.median * 1e6,
        "kernel_9MB_bytes_per_s": streams and 2 * small / streams.median * 1e6,
        "bf16_matmul_flop_per_s": product and 2 * side**3 / product.median * 1e6,
    }
