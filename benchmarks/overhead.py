"""Cost of an operator's wrapper beside its dispatch: microseconds of one call on tiny tensors.

`python benchmarks/kernels.py overhead` prints it. Dispatch is the compiled operator called by
itself, `torch.ops.syncflow.<name>.default`, with arguments that are ready for it; the wrapper is
the public function, and the goal is twice the dispatch at most. Both are the best of many short
runs, turn about, so that a busy machine counts little.
"""

import time
from collections.abc import Callable, Iterator

import torch

from syncflow.ops import (
    adaln,
    cross_attention,
    euler_cfg,
    gelu,
    native,
    patchify3d,
    qk_norm_rope,
    rotation,
    self_attention,
    temporal_attention,
)

MODES = {"inference_mode": torch.inference_mode, "no_grad": torch.no_grad}
# Wrapper, the same work by itself.
Pair = tuple[Callable[[], object], Callable[[], object]]


def pairs() -> dict[str, Pair]:
    """By public function, calls of tiny tensors. Make them within the mode that is timed."""
    x, y = torch.randn(2, 1, 2, 8)
    shift, scale, gate = torch.randn(3, 1, 8)
    w, b = torch.ones(8), torch.zeros(8)
    wide, weight = torch.randn(2, 8), torch.randn(8, 8)
    six, gain = torch.randn(1, 2, 1, 3, 1, 8), torch.ones(8)
    five = torch.randn(1, 2, 3, 1, 8)
    table = rotation.frame_rotation(2, 8, 1e4, five.device, torch.float32)
    q, k, v = torch.randn(1, 2, 1, 8), *torch.randn(2, 1, 1, 3, 8)
    latents, kernel = torch.randn(1, 1, 1, 2, 2), torch.randn(8, 1, 1, 2, 2)
    tokens, size = torch.randn(1, 1, 1, 4), ((1, 2, 2), 1, (1, 2, 2))

    def op(name: str) -> Callable:
        return native.overload(name)

    def linear_gelu() -> None:
        op("bias_gelu_")(torch.nn.functional.linear(wide, weight, b), None)

    def by(name: str, *given: object) -> Callable[[], object]:
        function = op(name)
        return lambda: function(*given)

    def call(function: Callable, *given: object) -> Callable[[], object]:
        return lambda: function(*given)

    return {
        "adaln": (call(adaln.adaln, x, shift, scale), by("adaln", x, shift, scale, 1e-6)),
        "gate_residual": (
            call(adaln.gate_residual, x, y, gate),
            by("gate_residual", x, y, gate),
        ),
        "gate_residual_adaln": (
            call(adaln.gate_residual_adaln, x, y, gate, shift, scale),
            by("gate_residual_adaln", x, y, gate, shift, scale, 1e-6),
        ),
        "residual_layernorm": (
            call(adaln.residual_layernorm, x, y, w, b),
            by("residual_layernorm", x, y, w, b, 1e-5),
        ),
        "bias_gelu": (call(gelu.bias_gelu, wide, b), by("bias_gelu_", wide, b)),
        "linear_gelu": (call(gelu.linear_gelu, wide, weight, b), linear_gelu),
        "temporal_attention": (
            call(temporal_attention.temporal_attention, six, gain, gain),
            by("temporal_attention", six, gain, gain, table, True, 1e-6),
        ),
        "qk_norm_rope": (
            call(qk_norm_rope.qk_norm_rope, five, gain, gain, table),
            by("qk_norm_rope_", five, gain, gain, table, True, 1e-6),
        ),
        # The operators of these two on a CPU take other shapes, or there is none.
        "self_attention": (
            call(self_attention.self_attention, five, gain, gain, table),
            lambda: op("temporal_attention")(
                five.unsqueeze(2), gain, gain, table, True, 1e-6
            ).squeeze(2),
        ),
        "turned": (
            call(rotation.turned, q, table, False),
            lambda: rotation.rotate(q, table, False).to(q.dtype),
        ),
        "cross_attention": (
            call(cross_attention.cross_attention, q, (k, v)),
            by("cross_attention", q, k, v, None, None, None, None),
        ),
        "patchify3d": (
            call(patchify3d.patchify3d, latents, kernel),
            by("patchify3d", latents, kernel, None, None),
        ),
        "unpatchify3d": (
            call(patchify3d.unpatchify3d, tokens, *size),
            by("unpatchify3d", tokens, *size),
        ),
        "euler_cfg": (
            call(euler_cfg.euler_cfg, x, y, None, 6.0, 0.02),
            by("euler_cfg", x, y, None, 6.0, 0.02),
        ),
    }


def best(pair: Pair, rounds: int = 60, calls: int = 50) -> list[float]:
    """Microseconds of a call of (wrapper, dispatch)."""
    least = [float("inf")] * 2
    for _ in range(rounds):
        for which, function in enumerate(pair):
            start = time.perf_counter()
            for _ in range(calls):
                function()
            least[which] = min(least[which], (time.perf_counter() - start) / calls * 1e6)
    return least


def rows(seconds: float) -> Iterator[dict]:
    """One row for every public function and mode; about `seconds` on each."""
    for mode, inside in MODES.items():
        with inside():
            for name, pair in pairs().items():
                start = time.perf_counter()
                best(pair, rounds=1)
                rounds = max(20, int(seconds / (time.perf_counter() - start)))
                wrapper, dispatch = best(pair, rounds)
                yield {
                    **{"op": name, "mode": mode, "wrapper_us": wrapper, "dispatch_us": dispatch},
                    "ratio": wrapper / dispatch,
                }
