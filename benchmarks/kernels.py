"""Time of each operator's kernel beside its plain PyTorch twin: `python benchmarks/kernels.py`.

Prints medians in microseconds, forward alone and forward with backward, and their ratio, twin /
kernel. Both run in one process, turn about, so that a busy machine slows both.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from syncflow import ops
from syncflow.ops import adaln, native, temporal_attention

SHAPES = [(32, 128, 128), (2, 2048, 1152)]
TEMPORAL_SHAPES = [(2, 8, 64, 6, 32), (32, 8, 16, 4, 32), (1, 8, 256, 16, 72)]


def cases(dtype: torch.dtype) -> dict[str, list[tuple[str, Callable, list[Tensor]]]]:
    """op -> [(shape, function, inputs)]."""
    found: dict[str, list[tuple[str, Callable, list[Tensor]]]] = {}
    for B, N, C in SHAPES:
        x, y = torch.randn(2, B, N, C, dtype=dtype)
        shift, scale, gate = (0.1 * torch.randn(B, 6, C, dtype=dtype)).unbind(1)[:3]
        weight, bias = torch.ones(C), torch.zeros(C)
        inputs = {
            "adaln": [x, shift, scale],
            "gate_residual": [x, y, gate],
            "gate_residual_adaln": [x, y, gate, shift, scale],
            "residual_layernorm": [x, y, weight, bias],
        }
        for name, tensors in inputs.items():
            found.setdefault(name, []).append((f"{B}x{N}x{C}", getattr(adaln, name), tensors))
    for B, T, S, H, D in TEMPORAL_SHAPES:
        tensors = [torch.randn(B, T, S, 3, H, D, dtype=dtype), torch.ones(D), torch.ones(D)]
        function = temporal_attention.temporal_attention
        found.setdefault("temporal_attention", []).append(
            (f"{B}x{T}x{S}x{H}x{D}", function, tensors)
        )
    return found


def once(function: Callable, tensors: list[Tensor], backward: bool) -> float:
    """Seconds of one call."""
    leaves = [t.detach().requires_grad_(backward) for t in tensors]
    start = time.perf_counter()
    with torch.set_grad_enabled(backward):
        out = function(*leaves)
        out = out if isinstance(out, tuple) else (out,)
        if backward:
            torch.autograd.grad(out, leaves, [torch.ones_like(o) for o in out])
    return time.perf_counter() - start


def measure(
    function: Callable, tensors: list[Tensor], backward: bool, seconds: float
) -> tuple[float, float]:
    """Median microseconds of (kernel, twin)."""
    times: tuple[list[float], list[float]] = ([], [])
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop or len(times[0]) < 7:
        times[0].append(once(function, tensors, backward))
        with ops.reference_ops():
            times[1].append(once(function, tensors, backward))
    kernel, twin = (statistics.median(t[2:]) * 1e6 for t in times)
    return kernel, twin


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("ops", nargs="*", help="names of operators; all of them by default")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.5, help="time spent on each number")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    status = native.status()
    if not status["active"]:
        parser.error(f"the kernels are not active: {status['reason']}")
    print(f"torch {torch.__version__}, {status['cpu_capability']}, {arguments.threads} thread(s)")
    heads = ("kernel us", "twin us", "ratio")
    print(f"{'op':20} {'shape':16} {'dtype':9} {'pass':8} " + " ".join(f"{h:>10}" for h in heads))
    for dtype in (torch.bfloat16, torch.float32):
        for name, rows in cases(dtype).items():
            if arguments.ops and name not in arguments.ops:
                continue
            for shape, function, tensors in rows:
                for backward in (False, True):
                    kernel, twin = measure(function, tensors, backward, arguments.seconds)
                    label = "fwd+bwd" if backward else "fwd"
                    print(
                        f"{name:20} {shape:16} {str(dtype)[6:]:9} {label:8} "
                        f"{kernel:10.0f} {twin:10.0f} {twin / kernel:10.2f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
