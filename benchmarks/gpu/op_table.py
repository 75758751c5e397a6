"""Every operator, forward and with backward, against the same in plain PyTorch, compiled, and by
other libraries."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu import baselines
from benchmarks.gpu.results import Results
from benchmarks.gpu.timing import measure, sets_for
from syncflow.ops import adaln, euler_cfg, gelu, group_norm, patchify3d, qk_norm_rope, rotation
from syncflow.ops.temporal_attention import temporal_attention

Run = Callable[..., object]
MUST_RUN = ("ours", "eager", "sdpa")  # also on the CPU of a dry run


@dataclass(frozen=True)
class Case:
    """One operator at one shape. `bytes`: the least that must move forward, and forward and
    backward together; None: there is no backward pass to time. `others`: None stands for a library
    that is not installed."""

    op: str
    shape: str
    inputs: Callable[[], list[Tensor]]
    ours: Run
    eager: Run
    bytes: tuple[int, int | None]
    others: dict[str, Run | None] = field(default_factory=dict)


def cases(device: torch.device, dry: bool) -> Iterator[Case]:
    """At the sizes of XL/2; of a toy in a dry run."""
    H, D = (2, 72) if dry else (16, 72)
    C = H * D
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    size = dtype.itemsize
    draw = functools.partial(torch.randn, device=device, dtype=dtype)
    frames = (
        [(2, 8, 4)]
        if dry
        else [(2, 8, 256), (16, 8, 256), (2, 8, 1024), (2, 16, 256), (2, 32, 256), (2, 8, 64)]
    )
    for index, (B, T, S) in enumerate(frames):
        yield _temporal(B, T, S, H, D, draw, size, device, libraries=not index)
    for B, N in [(2, 32)] if dry else [(2, 2048), (16, 2048)]:
        yield from _norms(B, N, C, draw, size)
        yield _gelu(B * N, 4 * C, draw, size)
    B, N = (2, 16) if dry else (2, 2048)
    yield _packed(B, N, H, D, draw, size)
    yield from _ends(C, draw, size, device, dry)
    sizes = [(2, 64, 8)] if dry else [(16, 128, 256), (16, 256, 256), (16, 512, 64), (16, 512, 32)]
    for N, C, side in sizes:
        yield from _group_norms(N, C, side, draw, size)


def _temporal(B, T, S, H, D, draw, size, device, libraries: bool) -> Case:
    table = rotation.frame_rotation(T, D, 1e4, device, torch.float32)
    one = B * T * S * H * D * size

    def with_core(core: Callable) -> Run:
        return lambda qkv, q, k: baselines.temporal_attention(qkv, q, k, table, core)

    others = {"sdpa": with_core(F.scaled_dot_product_attention)}
    if libraries:
        others |= {n: with_core(baselines.forced(b)) for n, b in baselines.BACKENDS.items()}
        found = baselines.attention_libraries()
        others |= {n: core and with_core(core) for n, core in found.items()}
    return Case(
        "temporal_attention",
        f"{B}x{T}x{S}x{H}x{D}",
        lambda: [draw(B, T, S, 3, H, D), 1 + 0.1 * draw(D), 1 + 0.1 * draw(D)],
        temporal_attention,
        with_core(baselines.naive),
        (4 * one, 11 * one),
        others,
    )


def _norms(B, N, C, draw, size) -> Iterator[Case]:
    one, shape = B * N * C * size, f"{B}x{N}x{C}"

    def rows() -> list[Tensor]:
        return [0.5 * m for m in draw(3, B, C).unbind(0)]

    libraries = baselines.norm_libraries(C)

    def modulated(norm: Callable) -> Run:
        return lambda x, shift, scale: norm(x) * (1 + scale[:, None]) + shift[:, None]

    yield Case(
        "adaln",
        shape,
        lambda: [draw(B, N, C), *rows()[:2]],
        adaln.adaln,
        baselines.modulate,
        (2 * one, 5 * one),
        {n: norm and modulated(norm) for n, norm in libraries.items()},
    )
    yield Case(
        "gate_residual_adaln",
        shape,
        lambda: [draw(B, N, C), draw(B, N, C), *rows()],
        adaln.gate_residual_adaln,
        baselines.gate_residual_modulate,
        (4 * one, 10 * one),
    )
    yield Case(
        "gate_residual",
        shape,
        lambda: [draw(B, N, C), draw(B, N, C), rows()[0]],
        adaln.gate_residual,
        lambda x, y, gate: x + gate[:, None] * y,
        (3 * one, 6 * one),
    )
    yield Case(
        "residual_layernorm",
        shape,
        lambda: [draw(B, N, C), draw(B, N, C), draw(C), draw(C)],
        adaln.residual_layernorm,
        baselines.residual_layernorm,
        (3 * one, 6 * one),
    )


def _gelu(N, C, draw, size) -> Case:
    one = N * C * size
    return Case(
        "bias_gelu",
        f"{N}x{C}",
        lambda: [draw(N, C), draw(C)],
        gelu.bias_gelu,
        lambda x, bias: F.gelu(x + bias, approximate="tanh"),
        (2 * one, 5 * one),
    )


def _packed(B, N, H, D, draw, size) -> Case:
    one = B * N * H * D * size

    def eager(qkv: Tensor, q_weight: Tensor, k_weight: Tensor) -> Tensor:
        q, k, v = qkv.unbind(2)
        return torch.stack((baselines.rms_norm(q, q_weight), baselines.rms_norm(k, k_weight), v), 2)

    # Without a gradient the operator works in place, on two thirds of the tensor.
    return Case(
        "qk_norm_rope",
        f"{B}x{N}x{H}x{D}",
        lambda: [draw(B, N, 3, H, D), 1 + 0.1 * draw(D), 1 + 0.1 * draw(D)],
        qk_norm_rope.qk_norm_rope,
        eager,
        (4 * one, 14 * one),
    )


def _group_norms(N, C, side, draw, size) -> Iterator[Case]:
    """Of the picture's decoder: no backward pass. Statistics read what the norm reads again."""
    one, shape = N * C * side * side * size, f"{N}x{C}x{side}x{side}"

    def picture() -> Tensor:
        return draw(N, C, side, side).contiguous(memory_format=torch.channels_last)

    yield Case(
        "group_norm_silu",
        shape,
        lambda: [picture(), draw(C), draw(C)],
        lambda x, w, b: group_norm.group_norm_silu(x, 32, w, b),
        lambda x, w, b: F.silu(F.group_norm(x, 32, w, b)),
        (3 * one, None),
    )
    yield Case(
        "sum_group_norm_silu",
        shape,
        lambda: [picture(), picture(), draw(C), draw(C), draw(C)],
        lambda x, y, c, w, b: group_norm.sum_group_norm_silu(x, y, c, 32, w, b),
        lambda x, y, c, w, b: F.silu(F.group_norm(x + c.view(-1, 1, 1) + y, 32, w, b)),
        (5 * one, None),
    )


def _ends(C, draw, size, device, dry) -> Iterator[Case]:
    """The first and last kernels of a step: no backward pass is timed."""
    B, Z, T, L = (2, 4, 8, 8) if dry else (2, 4, 8, 32)
    S = L * L // 4
    latents, tokens = B * Z * T * L * L * 4, B * T * S * C * size
    f32 = functools.partial(torch.randn, device=device)

    def eager_patches(x: Tensor, weight: Tensor, bias: Tensor, positions: Tensor) -> Tensor:
        out = F.conv3d(x.to(weight.dtype), weight, bias, stride=(1, 2, 2))
        return out.flatten(3).permute(0, 2, 3, 1) + positions

    yield Case(
        "patchify3d",
        f"{B}x{Z}x{T}x{L}x{L}->{C}",
        lambda: [f32(B, Z, T, L, L), draw(C, Z, 1, 2, 2), draw(C), draw(S, C)],
        patchify3d.patchify3d,
        eager_patches,
        (latents + tokens, None),
    )
    yield Case(
        "unpatchify3d",
        f"{B}x{T}x{S}x{8 * Z}",
        lambda: [draw(B, T, S, 8 * Z)],
        lambda x: patchify3d.unpatchify3d(x, (1, 2, 2), Z, (T, L, L)),
        lambda x: patchify3d.unpatchify3d_reference(x, (1, 2, 2), Z, (T, L, L)),
        (latents * size // 4 + latents, None),
    )
    yield Case(
        "euler_cfg",
        f"{B}x{Z}x{T}x{L}x{L}",
        lambda: [f32(B, Z, T, L, L) for _ in range(3)],
        lambda x, c, n: euler_cfg.euler_cfg(x, c, n, 6.0, 0.02),
        lambda x, c, n: x + 0.02 * (n + 6.0 * (c - n)),
        (4 * latents, None),
    )


def key(case: Case, backward: bool) -> str:
    """Name of the row."""
    return f"op {case.op} {case.shape} {('forward', 'forward+backward')[backward]}"


def table(results: Results, device: torch.device, tiny: bool) -> None:
    """A row per operator, shape and pass; microseconds by implementation."""
    for case in cases(device, tiny):
        for backward, bytes_ in enumerate(case.bytes):
            if bytes_ is not None:
                implementations = {"ours": case.ours, "eager": case.eager, **case.others}
                results.row(
                    key(case, bool(backward)),
                    lambda c=case, b=backward, n=bytes_, i=implementations: {
                        "min_bytes": n,
                        "times": {k: timed(k, c, f, bool(b), tiny) for k, f in i.items()},
                    },
                )


def compiled(results: Results, device: torch.device, tiny: bool, autotune: bool) -> None:
    """The baselines under torch.compile: compiling takes seconds each, so the first shape of every
    operator stands for the others; max-autotune cannot be interrupted and comes last."""
    mode, label = ("max-autotune-no-cudagraphs", "autotune") if autotune else (None, "compile")
    seen = set()
    for case in cases(device, tiny):
        if case.op in seen:
            continue
        seen.add(case.op)
        for backward, bytes_ in enumerate(case.bytes):
            if bytes_ is None:
                continue

            def make(case: Case = case, backward: bool = bool(backward)) -> dict[str, object]:
                function = freshly_compiled(case.eager, mode)
                times = {label: timed(label, case, function, backward, tiny)}
                if not tiny:
                    assert_compiled(label)
                return {"times": times}

            results.row(f"{label} {key(case, bool(backward))[3:]}", make, 60 if autotune else 15)


def freshly_compiled(function: Run, mode: str | None = None) -> Run:
    """One graph, or an error. Dynamo compiles one code object for all closures of a function and
    after eight of them is silently eager: it starts from nothing here."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    return torch.compile(function, fullgraph=True, dynamic=False, mode=mode)


def assert_compiled(label: str) -> None:
    """AssertionError where some of what was compiled fell back to eager calls."""
    frames = torch._dynamo.utils.counters["frames"]
    assert frames["ok"] and frames["ok"] == frames["total"], f"{label} ran eagerly: {dict(frames)}"


def timed(
    name: str, case: Case, function: Run | None, backward: bool, tiny: bool
) -> dict[str, object] | str:
    """A time, or why there is none."""
    if function is None:
        return "not run: not installed"
    if tiny and name in ("compile", "autotune"):
        return "not run: rehearsal"
    try:
        sets = [case.inputs() for _ in range(sets_for(case.bytes[0], tiny))]
        found = measure([_call(function, tensors, backward) for tensors in sets], tiny)
    except Exception as error:
        if name in MUST_RUN:
            raise
        return f"not run: {type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"
    return "not run: rehearsal" if found is None else found.as_json()


def _call(function: Run, tensors: list[Tensor], backward: bool) -> Callable[[], object]:
    """Forward without gradients, or forward and backward."""
    if not backward:

        def forward() -> object:
            with torch.no_grad():
                return function(*tensors)

        return forward
    leaves = [t.detach().clone().requires_grad_() for t in tensors]
    grads: list[Tensor] = []

    def both() -> object:
        out = function(*leaves)
        out = out if isinstance(out, tuple) else (out,)
        if not grads:
            grads.extend(torch.randn_like(o) for o in out)
        return torch.autograd.grad(out, leaves, grads)

    return both
