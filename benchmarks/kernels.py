"""Time of every operator's kernel beside eager PyTorch: `python benchmarks/kernels.py`.

Prints median microseconds, forward alone (in inference mode, as `generate` runs) and forward with
backward, and their ratio, eager over kernel. Eager is the operator's plain PyTorch twin (for
attention: rearrange, norm, rotation and PyTorch's scaled_dot_product_attention). Both run in one
process, turn about, so that a busy machine slows both; where more processes run than there are
processors, `--clock cpu` counts the process's own time. `model` is one denoising pass of both
towers at the shipped model's size and batch 2 (a prompt and its null caption) beside the same
weights on twins alone. `overhead` is what an operator's wrapper costs beside its bare dispatch, on
tiny tensors (benchmarks/overhead.py).
"""

import argparse
import datetime
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import overhead
import torch
from evidence import ROOT, kernels_hash
from torch import Tensor

from syncflow import ops
from syncflow.ops import (
    adaln,
    cross_attention,
    gelu,
    native,
    patchify3d,
    qk_norm_rope,
    self_attention,
)
from syncflow.ops import euler_cfg as euler
from syncflow.ops import temporal_attention as temporal
from syncflow.ops.rotation import frame_rotation

OPERATORS = (
    *("temporal_attention", "self_attention", "qk_norm_rope", "cross_attention"),
    *("adaln", "gate_residual", "gate_residual_adaln", "residual_layernorm", "bias_gelu"),
    *("patchify3d", "unpatchify3d", "euler_cfg"),
)
# (samples, tokens, width)
TOKENS = [(2, 512, 192), (32, 128, 128), (2, 2048, 1152)]
# (B, T, S, heads, head dim)
TEMPORAL = [(2, 8, 64, 6, 32), (32, 8, 16, 4, 32), (1, 8, 256, 16, 72)]
# (B, N, heads, head dim): the shipped model's frames, sounds and clips, and one XL/2 frame
SELF = [(256, 16, 4, 32), (32, 100, 4, 32), (32, 128, 4, 32), (8, 256, 16, 72)]
# (rows, queries, keys, heads, head dim, a key of the row's own): the shipped model's picture and
# sound reading text, its sound reading the picture, and XL/2's picture reading text
CROSS = [
    (32, 128, 65, 4, 32, False),
    (32, 100, 128, 4, 32, True),
    (2, 512, 300, 16, 72, False),
]
# (latents, patch, width)
PATCHES = [((32, 8, 8, 8, 8), (1, 2, 2), 128), ((2, 4, 8, 32, 32), (1, 2, 2), 1152)]

# Shape, function, inputs, whether the kernel has a way back.
Case = tuple[str, Callable, list[Tensor], bool]
# Operators that take their first argument over: it is made good before every call.
IN_PLACE = ("bias_gelu",)


def cases(dtype: torch.dtype) -> dict[str, list[Case]]:
    """By operator, what to time."""
    found: dict[str, list[Case]] = {name: [] for name in OPERATORS}

    def add(name: str, shape: tuple, function: Callable, inputs: list[Tensor], grad: bool = True):
        label = "x".join(map(str, shape))
        found[name].append((label, function, inputs, grad))

    for B, T, S, H, D in TEMPORAL:
        inputs = [torch.randn(B, T, S, 3, H, D, dtype=dtype), torch.ones(D), torch.ones(D)]
        add("temporal_attention", (B, T, S, H, D), temporal.temporal_attention, inputs)
    for B, N, H, D in SELF:
        inputs = [torch.randn(B, N, 3, H, D, dtype=dtype), torch.ones(D), torch.ones(D)]
        table = frame_rotation(N, D, 1e4, inputs[0].device, torch.float32)
        add("self_attention", (B, N, H, D), self_attention.self_attention, inputs)
        add("qk_norm_rope", (B, N, H, D), _rotating(table), inputs)
    for B, N, M, H, D, own in CROSS:
        q, kv = torch.randn(B, N, H, D, dtype=dtype), torch.randn(B, M, 2, H, D, dtype=dtype)
        inputs = [q, *kv.permute(2, 0, 3, 1, 4).unbind(0)]
        inputs += [*torch.randn(2, B, H, 1, D, dtype=dtype)] if own else []
        add("cross_attention", (B, N, M, H, D), _reading, inputs)
    for B, N, C in TOKENS:
        x, y = torch.randn(2, B, N, C, dtype=dtype)
        shift, scale, gate = (0.1 * torch.randn(B, 6, C, dtype=dtype)).unbind(1)[:3]
        tensors = {
            "adaln": [x, shift, scale],
            "gate_residual": [x, y, gate],
            "gate_residual_adaln": [x, y, gate, shift, scale],
            "residual_layernorm": [x, y, torch.ones(C), torch.zeros(C)],
        }
        for name, inputs in tensors.items():
            add(name, (B, N, C), getattr(adaln, name), inputs)
        wide = torch.randn(B * N, 4 * C, dtype=dtype)
        add("bias_gelu", wide.shape, gelu.bias_gelu, [wide])
    for shape, patch, C in PATCHES:
        S, Z = shape[3] // patch[1] * shape[4] // patch[2], shape[1]
        weight, table = torch.randn(C, Z, *patch, dtype=dtype), torch.randn(S, C)
        inputs = [torch.randn(shape, dtype=dtype), weight, torch.zeros(C, dtype=dtype)]
        add("patchify3d", (*shape, C), _with_positions(table), inputs, False)
        tokens = torch.randn(shape[0], shape[2], S, Z * patch[0] * patch[1] * patch[2], dtype=dtype)
        add("unpatchify3d", shape, _back(patch, Z, shape[2:]), [tokens], False)
        inputs = [*torch.randn(3, *shape, dtype=dtype)]
        add("euler_cfg", shape, lambda *t: euler.euler_cfg(*t, 6.0, 0.02), inputs, False)
    return found


def _rotating(table: Tensor) -> Callable:
    # On a copy, since the operator takes its argument over.
    return lambda qkv, *w: qk_norm_rope.qk_norm_rope(qkv.clone(), *w, table)


def _reading(q: Tensor, k: Tensor, v: Tensor, *own: Tensor) -> Tensor:
    return cross_attention.cross_attention(q, (k, v), own=own or None)


def _with_positions(table: Tensor) -> Callable:
    return lambda *tensors: patchify3d.patchify3d(*tensors, table)


def _back(patch: tuple, channels: int, size: tuple) -> Callable:
    return lambda tokens: patchify3d.unpatchify3d(tokens, patch, channels, size)


def model_case() -> Case:
    """A denoising pass of the shipped model with random inputs: picture, context, sound."""
    from syncflow.config import ModelConfig
    from syncflow.model_io.model_folder import CONFIG, SHIPPED
    from syncflow.models.ddit import DDiT

    config = ModelConfig.load(SHIPPED / CONFIG)
    model = DDiT(config.ddit).eval()
    spec = config.geometry.spec
    B, E = 2, config.ddit.video.caption_channels
    text = model.prepare(torch.randn(B, 65, E), torch.ones(B, 65, dtype=torch.bool), spec)
    video = torch.randn(B, config.ddit.video.in_channels, *spec.video_latent_shape)
    audio = torch.randn(B, spec.audio_latent_length, config.ddit.audio.in_channels)
    t = torch.full((B,), 0.5)

    def denoise(video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        v_video, features = model.video_velocity(video, t, text)
        context = model.audio_context(features, text)
        return v_video, model.audio_velocity(audio, t, context, text)

    return "shipped, 2 rows", denoise, [video, audio], False


def once(function: Callable, tensors: list[Tensor], backward: bool, clock: Callable) -> float:
    """Seconds of one call."""
    leaves = [t.detach().requires_grad_(backward) for t in tensors]
    with torch.inference_mode(not backward):
        start = clock()
        out = function(*leaves)
        out = out if isinstance(out, tuple) else (out,)
        if backward:
            torch.autograd.grad(out, leaves, [torch.ones_like(o) for o in out])
        return clock() - start


def measure(
    function: Callable,
    tensors: list[Tensor],
    backward: bool,
    seconds: float,
    clock: Callable,
    in_place: bool,
) -> tuple[float, float]:
    """Median microseconds of (kernel, eager)."""
    kept = tensors[0].clone() if in_place else tensors[0]

    def timed() -> float:
        if in_place:
            tensors[0].copy_(kept)
        return once(function, tensors, backward, clock)

    times: tuple[list[float], list[float]] = ([], [])
    stop = clock() + seconds
    while clock() < stop or len(times[0]) < 7:
        # The first of two finds the caches as the other path has left them, and does not count.
        for _ in range(2):
            kernel = timed()
        with ops.reference_ops():
            for _ in range(2):
                eager = timed()
        times[0].append(kernel)
        times[1].append(eager)
    kernel, eager = (statistics.median(t) * 1e6 for t in times)
    return kernel, eager


def timings(names: list[str], dtypes: list[str], seconds: float, clock: Callable) -> Iterator[dict]:
    """One row for every operator, shape, dtype and pass."""
    for dtype in dtypes:
        found = cases(getattr(torch, dtype))
        if dtype == "float32":
            found["model"] = [model_case()]
        for name in names or found:
            rows = found.get(name, [])
            for shape, function, tensors, has_gradient in rows:
                for backward in (False, True)[: 1 + has_gradient]:
                    kernel, eager = measure(
                        function, tensors, backward, seconds, clock, name in IN_PLACE
                    )
                    label = "fwd+bwd" if backward else "fwd"
                    yield {
                        **{"op": name, "shape": shape, "dtype": dtype, "pass": label},
                        **{"kernel_us": kernel, "eager_us": eager, "ratio": eager / kernel},
                    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("ops", nargs="*", help="operators, model or overhead; all by default")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=0.5, help="time spent on each number")
    parser.add_argument("--rounds", type=int, default=1, help="how often all of it is measured")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    dtypes = ("float32", "bfloat16", "float16")
    parser.add_argument("--dtypes", nargs="+", choices=dtypes, default=["float32", "bfloat16"])
    parser.add_argument("--out", type=Path, help="a JSON file for every round and what it ran on")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    status = native.status()
    if not status["active"]:
        parser.error(f"the kernels are not active: {status['reason']}")
    unknown = set(arguments.ops) - {*OPERATORS, "model", "overhead"}
    if unknown:
        parser.error(f"no operator is called {unknown.pop()!r}; there are {', '.join(OPERATORS)}")
    if arguments.ops == ["model"] and "float32" not in arguments.dtypes:
        parser.error("model is measured in float32 alone")
    if arguments.out and arguments.out.is_dir():
        parser.error(f"--out {arguments.out} is a folder; a file is meant")
    if arguments.out and not arguments.out.absolute().parent.is_dir():
        parser.error(f"--out {arguments.out}: there is no such folder")
    clock = time.perf_counter if arguments.clock == "wall" else time.process_time
    machine = (
        f"{_processor()}, {status['cpu_capability']}, torch {torch.__version__}, "
        f"{arguments.threads} thread(s), {arguments.clock} clock"
    )
    load = [round(n, 2) for n in os.getloadavg()]
    print(f"{machine}, load {load[0]}")
    heads = ("kernel us", "eager us", "ratio")
    print(f"{'op':20} {'shape':22} {'dtype':9} {'pass':8} " + " ".join(f"{h:>10}" for h in heads))
    rounds: list[list[dict]] = []
    names = [name for name in arguments.ops if name != "overhead"]
    for _ in range(arguments.rounds if names or not arguments.ops else 0):
        rounds.append([])
        for row in timings(names, arguments.dtypes, arguments.seconds, clock):
            rounds[-1].append(row)
            numbers = f"{row['kernel_us']:10.0f} {row['eager_us']:10.0f} {row['ratio']:10.2f}"
            print(f"{_title(row)} {numbers}", flush=True)
    wrappers = []
    if not arguments.ops or "overhead" in arguments.ops:
        heads = ("wrapper us", "dispatch us", "ratio")
        print(f"\n{'op':20} {'mode':16}" + " ".join(f"{h:>11}" for h in heads))
        for row in overhead.rows(arguments.seconds):
            wrappers.append(row)
            figures = (row["wrapper_us"], row["dispatch_us"], row["ratio"])
            numbers = " ".join(f"{figure:11.2f}" for figure in figures)
            print(f"{row['op']:20} {row['mode']:16}{numbers}", flush=True)
    if len(rounds) > 1:
        print("\nratio, lowest, median and highest of the rounds")
        for same in zip(*rounds, strict=True):
            ratios = [row["ratio"] for row in same]
            numbers = (min(ratios), statistics.median(ratios), max(ratios))
            print(f"{_title(same[0])} " + " ".join(f"{n:10.2f}" for n in numbers))
    if arguments.out:
        result = {
            "suite": "cpu",
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": shlex.join(["python", *sys.argv]),
            "machine": machine,
            "load": load,
            "csrc_cpu": kernels_hash(ROOT, "cpu"),
            "rounds": rounds,
            "overhead": wrappers,
        }
        temporary = arguments.out.with_suffix(".new")
        temporary.write_text(json.dumps(result, indent=1) + "\n")
        temporary.replace(arguments.out)
        print(f"written: {arguments.out}")


def _title(row: dict) -> str:
    return f"{row['op']:20} {row['shape']:22} {row['dtype']:9} {row['pass']:8}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
