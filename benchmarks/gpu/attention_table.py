"""Attention by every backend at the shapes of a guided XL/2 step and of training; and the large
matrix products with and without GELU in their epilogue, and in 8 bits."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu import baselines
from benchmarks.gpu.results import Results
from benchmarks.gpu.timing import measure, sets_for

# name: (B, queries, keys, heads, head dim, with a mask)
ATTENTION = {
    "spatial, 16 frames of 256": (16, 256, 256, 16, 72, False),
    "spatial, 128 frames of 256": (128, 256, 256, 16, 72, False),
    "spatial, 16 frames of 1024": (16, 1024, 1024, 16, 72, False),
    "text, 300 tokens": (2, 2048, 300, 16, 72, False),
    "text, 300 tokens masked": (2, 2048, 300, 16, 72, True),
    "text, 304 tokens masked": (2, 2048, 304, 16, 72, True),
    "text, 64 tokens": (2, 2048, 64, 16, 72, False),
    "adaptor, 2048 tokens": (2, 2048, 2048, 16, 72, False),
    "sound to picture": (2, 100, 2049, 16, 72, False),
    "sound to picture, 2048 keys": (2, 100, 2048, 16, 72, False),
    "sound to itself": (2, 100, 100, 16, 72, False),
    "shipped spatial": (16, 16, 16, 4, 32, False),
}
TOY = {"toy": (2, 8, 6, 2, 16, False), "toy masked": (2, 8, 6, 2, 16, True)}

# rows, inputs, outputs of the linear layers of a guided step
PRODUCTS = [
    (4096, 1152, 3456), (4096, 1152, 1152), (4096, 1152, 4608), (4096, 4608, 1152),
    (4096, 1152, 2304), (200, 1152, 3456), (200, 1152, 4608), (200, 4608, 1152),
]  # fmt: skip


def attention(results: Results, device: torch.device, tiny: bool) -> None:
    """A row per shape: microseconds by backend; queries, keys and values lie as a packed
    projection has them, [B, N, H, D]."""
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    cores: dict[str, Callable | None] = {"sdpa": F.scaled_dot_product_attention}
    cores |= {name: baselines.forced(backend) for name, backend in baselines.BACKENDS.items()}
    cores |= baselines.attention_libraries()
    for name, (B, N, M, H, D, masked) in (TOY if tiny else ATTENTION).items():
        bytes_ = 2 * B * (N + M) * H * D * dtype.itemsize

        def draw(B: int = B, N: int = N, M: int = M, H: int = H, D: int = D) -> list[Tensor]:
            q = torch.randn(B, N, 1, H, D, device=device, dtype=dtype)
            kv = torch.randn(B, M, 2, H, D, device=device, dtype=dtype)
            return [x.transpose(1, 2) for x in (q[:, :, 0], kv[:, :, 0], kv[:, :, 1])]

        mask = None
        if masked:
            mask = torch.zeros(B, 1, 1, M, device=device, dtype=dtype)
            mask[:, ..., M * 3 // 4 :] = torch.finfo(dtype).min

        def make(
            core: Callable, draw: Callable = draw, mask: Tensor | None = mask, bytes_: int = bytes_
        ) -> object:
            with torch.inference_mode():
                sets = [draw() for _ in range(sets_for(bytes_, tiny))]
                arguments = () if mask is None else (mask,)
                found = measure([lambda s=s: core(*s, *arguments) for s in sets], tiny)
            return "not run: rehearsal" if found is None else found.as_json()

        def row(make: Callable = make) -> dict[str, object]:
            times: dict[str, object] = {}
            for label, core in cores.items():
                try:
                    times[label] = "not run: not installed" if core is None else make(core)
                except Exception as error:
                    times[label] = f"not run: {str(error).strip().splitlines()[0][:100]}"
            return {"times": times}

        results.row(f"attention {name}", row)


def products(results: Results, device: torch.device, tiny: bool) -> None:
    """Linear layers: as F.linear runs them, with GELU after or inside, and in float8."""
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    for M, K, N in [(8, 16, 32)] if tiny else PRODUCTS:

        def row(M: int = M, K: int = K, N: int = N) -> dict[str, object]:
            count = 1 if tiny else 6
            xs = [torch.randn(M, K, device=device, dtype=dtype) for _ in range(count)]
            ws = [0.05 * torch.randn(N, K, device=device, dtype=dtype) for _ in range(count)]
            b = torch.randn(N, device=device, dtype=dtype)
            pairs = list(zip(xs, ws, strict=True))
            variants: dict[str, list[Callable[[], object]]] = {
                "linear": [lambda x=x, w=w: F.linear(x, w, b) for x, w in pairs],
                "linear, gelu inside": [
                    lambda x=x, w=w: torch._addmm_activation(b, x, w.t(), use_gelu=True)
                    for x, w in pairs
                ],
                "linear, gelu after": [
                    lambda x=x, w=w: F.gelu(F.linear(x, w, b), approximate="tanh") for x, w in pairs
                ],
            }
            if device.type == "cuda":
                variants |= eighths(pairs, b)
            times: dict[str, object] = {}
            with torch.inference_mode():
                for name, calls in variants.items():
                    try:
                        found = measure(calls, tiny)
                        times[name] = "not run: rehearsal" if found is None else found.as_json()
                    except Exception as error:
                        times[name] = f"not run: {str(error).strip().splitlines()[0][:200]}"
            return {"times": times, "flop": 2 * M * K * N}

        results.row(f"product {M}x{K}x{N}", row)


def eighths(pairs: list[tuple[Tensor, Tensor]], bias: Tensor) -> dict[str, list[Callable]]:
    """float8 products with a scale for each row, and with quantising the activations counted."""
    fp8 = torch.float8_e4m3fn

    def quantised(x: Tensor) -> tuple[Tensor, Tensor]:
        scale = x.abs().amax(-1, keepdim=True).float().clamp(min=1e-12) / 448
        return (x / scale).to(fp8), scale

    ready = [(*quantised(x), *quantised(w)) for x, w in pairs]

    def product(xq: Tensor, xs: Tensor, wq: Tensor, ws: Tensor) -> Tensor:
        return torch._scaled_mm(
            xq,
            wq.t(),
            scale_a=xs,
            scale_b=ws.t(),
            bias=bias,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )

    one = torch.ones((), device=bias.device)

    def whole(xq: Tensor, wq: Tensor) -> Tensor:
        return torch._scaled_mm(
            xq,
            wq.t(),
            scale_a=one,
            scale_b=one,
            bias=bias,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )

    return {
        "float8 by row": [lambda r=r: product(*r) for r in ready],
        "float8 by tensor": [lambda r=r: whole(r[0], r[2]) for r in ready],
        "float8 by row, quantised": [
            lambda x=x, r=r: product(*quantised(x), *r[2:])
            for (x, _), r in zip(pairs, ready, strict=True)
        ],
    }
