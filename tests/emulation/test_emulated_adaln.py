"""The CUDA kernels of the adaLN family on the emulated device, against float64."""

import ctypes

import pytest
import torch
from emulator import DTYPES, ONCE, READ, WRITE, AdalnArgs, Device, compiler, pointer, rows
from torch import Tensor

from syncflow import ops
from syncflow.ops import adaln as family

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler (set CXX)")

SHAPES = [  # groups, tokens, channels: each kernel, with rows and vectors left over
    (2, 7, 64),
    (3, 5, 264),
    (2, 9, 1152),
    (1, 3, 1536),
    (2, 20, 1),
    (2, 3, 97),
    (1, 17, 130),
    (1, 2, 2304),
]
DT = [torch.float32, torch.bfloat16, torch.float16]
OUT = WRITE | ONCE


@pytest.fixture(scope="module")
def device() -> Device:
    return Device()


def draw(shape: tuple[int, int, int], dtype: torch.dtype, small: torch.dtype, seed: int):
    """x, y [G,S,C], and shift, scale, gate [G,C], slices of one table."""
    groups, tokens, channels = shape
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, groups, tokens, channels, generator=generator).to(dtype)
    table = (0.5 * torch.randn(groups, 6, channels, generator=generator)).to(small)
    return x + 0.5, y, *table.unbind(1)[:3]


def reference(function, tensors: list[Tensor | None], grads: list[Tensor]) -> list[Tensor]:
    """Outputs, then gradients of the inputs, all in float64."""
    leaves = [None if t is None else t.double().requires_grad_() for t in tensors]
    with ops.reference_ops():
        out = function(*leaves)
    out = list(out) if isinstance(out, tuple) else [out]
    given = [t for t in leaves if t is not None]
    found = torch.autograd.grad(out, given, [g.double() for g in grads])
    return [o.detach() for o in out] + list(found)


def check(got: Tensor, exact: Tensor, what: str, dtype: torch.dtype | None = None) -> None:
    """Relative error in norm: a few roundings of the result's dtype or of `dtype`."""
    error = (got.double() - exact).norm() / exact.norm().clamp_min(1e-30)
    allowed = {torch.float32: 3e-6, torch.bfloat16: 6e-3, torch.float16: 8e-4}[dtype or got.dtype]
    assert error < allowed or exact.norm() < 1e-6, f"{what}: relative error {error:.2e}"


class Family:
    """One operator's forward and backward pass on the emulated device."""

    def __init__(self, device: Device, shape, dtype, small, seed=0):
        self.device, self.seed = device, seed
        self.x, self.y, self.shift, self.scale, self.gate = draw(shape, dtype, small, seed)
        self.args = AdalnArgs(*shape, eps=1e-5, type=DTYPES[dtype])

    def operand(self, name: str, flags: int, tensor: Tensor) -> tuple[Tensor, int]:
        setattr(self.args, name, rows(tensor) if name in SMALL else pointer(tensor))
        return tensor, flags

    def forward(self, *inputs: str, outputs: tuple[str, ...]) -> list[Tensor]:
        used = {name: self.operand(name, READ, getattr(self, name)) for name in inputs}
        for name in outputs:
            used[name] = self.operand(name, OUT, torch.empty_like(self.x))
        self.device.call("adaln_forward", self.args, self.seed, **used)
        self.check_traffic([n for n in ("x", "y", *outputs) if n in used])
        return [used[name][0] for name in outputs]

    def backward(self, given: dict[str, Tensor], outputs: tuple[str, ...]) -> list[Tensor]:
        args, lib = self.args, self.device.library
        args.chunks = lib.adaln_chunk_count(args.groups, args.tokens)
        used = {name: self.operand(name, READ, tensor) for name, tensor in given.items()}
        for name in outputs:
            small = name in ("grad_gate", "grad_shift", "grad_scale")
            like = self.shift if small else self.x
            tensor = torch.empty(like.shape, dtype=like.dtype)
            used[name] = self.operand(name, OUT, tensor)
            if small:
                setattr(args, f"{name}_is_float", int(tensor.dtype == torch.float32))
        partial = torch.empty(args.groups, args.chunks, 3, args.channels)
        used["partial"] = self.operand("partial", WRITE, partial)
        stats = torch.empty(args.groups * args.tokens, 2)
        used["stats"] = self.operand("stats", WRITE, stats)
        self.device.call("adaln_backward", args, self.seed, **used)
        if not lib.adaln_wants_stats(ctypes.byref(args)):
            self.check_traffic([n for n in used if used[n][0].shape == self.x.shape])
        return [used[name][0] for name in outputs]

    def check_traffic(self, names: list[str]) -> None:
        """Where rows are whole vectors every token tensor is moved exactly once."""
        if self.args.channels % 8 or self.args.channels > 2048:
            return
        for name in names:
            moved = self.device.read(name) + self.device.written(name)
            assert moved == self.x.nbytes, f"{name}: moved {moved / self.x.nbytes:.3f}x its bytes"


SMALL = ("gate", "shift", "scale")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DT)
def test_adaln(device, shape, dtype):
    case = Family(device, shape, dtype, dtype)
    (out,) = case.forward("x", "shift", "scale", outputs=("out",))
    grad = torch.randn(shape).to(dtype)
    inputs = [case.x, case.shift, case.scale]
    exact = reference(lambda *t: family.adaln(*t, 1e-5), inputs, [grad])
    case.args.out = None
    given = {"x": case.x, "scale": case.scale, "grad_out": grad}
    grads = case.backward(given, ("grad_x", "grad_shift", "grad_scale"))
    for i, (got, want) in enumerate(zip([out, *grads], exact, strict=True)):
        check(got, want, f"result {i}")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DT)
@pytest.mark.parametrize("gated", [True, False])
def test_gate_residual_adaln(device, shape, dtype, gated):
    case = Family(device, shape, dtype, torch.float32, seed=1)
    names = ("x", "y", "gate", "shift", "scale") if gated else ("x", "y", "shift", "scale")
    total, out = case.forward(*names, outputs=("sum", "out"))
    grads_in = torch.randn(2, *shape).to(dtype).unbind(0)
    inputs = [case.x, case.y, case.gate if gated else None, case.shift, case.scale]
    exact = reference(lambda *t: family.gate_residual_adaln(*t, 1e-5), inputs, list(grads_in))
    check(total, exact[0], "sum")
    check(out, exact[1], "out")
    fresh = Family(device, shape, dtype, torch.float32, seed=1)
    given = {"x": total, "y": case.y, "scale": case.scale}
    given |= {"grad_sum": grads_in[0], "grad_out": grads_in[1]}
    outputs = ["grad_x", "grad_y", "grad_gate", "grad_shift", "grad_scale"]
    if gated:
        given["gate"] = case.gate
    else:
        outputs.remove("grad_gate")
        del given["y"]
    for i, (got, want) in enumerate(
        zip(fresh.backward(given, tuple(outputs)), exact[2:], strict=True)
    ):
        # The norm's input was rounded when it was stored.
        check(got, want, outputs[i], dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DT)
def test_layernorm_of_sum(device, shape, dtype):
    """LN(x + y) * weight + bias; where rows are vectors the sum is not even stored."""
    flat = (1, shape[0] * shape[1], shape[2])
    case = Family(device, flat, dtype, torch.float32, seed=4)
    case.args.plain_gain = 1
    stored = shape[2] % 8 != 0 or shape[2] > 2048
    found = case.forward("x", "y", "shift", "scale", outputs=("sum", "out") if stored else ("out",))
    inputs = [case.x, case.y, case.scale[0], case.shift[0]]
    grad = torch.zeros(flat, dtype=dtype)
    exact = reference(lambda *t: family.layernorm_of_sum(*t, 1e-5), inputs, [grad])
    check(found[-1], exact[0], "out", dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DT)
def test_gate_residual(device, shape, dtype):
    case = Family(device, shape, dtype, dtype, seed=2)
    (total,) = case.forward("x", "y", "gate", outputs=("sum",))
    grad = torch.randn(shape).to(dtype)
    exact = reference(family.gate_residual, [case.x, case.y, case.gate], [grad])
    check(total, exact[0], "sum")
    fresh = Family(device, shape, dtype, dtype, seed=2)
    given = {"y": case.y, "gate": case.gate, "grad_sum": grad}
    grad_y, grad_gate = fresh.backward(given, ("grad_y", "grad_gate"))
    check(grad_y, exact[2], "grad_y")
    check(grad_gate, exact[3], "grad_gate")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DT)
def test_residual_layernorm(device, shape, dtype):
    flat = (1, shape[0] * shape[1], shape[2])
    case = Family(device, flat, dtype, torch.float32, seed=3)
    case.args.post_norm = 1
    (out,) = case.forward("x", "y", "shift", "scale", outputs=("out",))
    grad = torch.randn(flat).to(dtype)
    inputs = [case.x, case.y, case.scale[0], case.shift[0]]
    exact = reference(lambda *t: family.residual_layernorm(*t, 1e-5), inputs, [grad])
    fresh = Family(device, flat, dtype, torch.float32, seed=3)
    fresh.args.post_norm = 1
    given = {"x": case.y, "scale": case.scale, "grad_out": grad}
    grads = fresh.backward(given, ("grad_x", "grad_scale", "grad_shift"))
    check(out, exact[0], "out")
    for got, want, what in zip(grads, exact[2:], ("y", "weight", "bias"), strict=True):
        check(got.view(want.shape), want, what)


def test_sums_depend_on_the_shape_alone(device):
    """Another order of threads gives the same bits."""
    results = []
    for seed in (1, 2):
        case = Family(device, (2, 40, 264), torch.bfloat16, torch.float32, seed=5)
        case.seed = seed
        given = {"x": case.x, "scale": case.scale, "grad_out": case.y}
        results.append(case.backward(given, ("grad_x", "grad_shift", "grad_scale")))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)
