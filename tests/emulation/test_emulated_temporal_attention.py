"""The CUDA kernels of temporal_attention on the emulated device, against float64."""

import ctypes
import re

import pytest
import torch
from emulator import (
    DTYPES,
    ONCE,
    READ,
    WRITE,
    Device,
    EmulationError,
    TemporalAttentionArgs,
    compiler,
    rows,
)
from torch import Tensor

from syncflow import ops
from syncflow.ops.temporal_attention import temporal_attention_reference

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler (set CXX)")

OUT = WRITE | ONCE
THETA, EPS = 1e4, 1e-6


@pytest.fixture(scope="module")
def device() -> Device:
    return Device()


def rotation_table(T: int, D: int) -> Tensor:
    """[T, D / 2, 2] of (cos, sin)."""
    rate = THETA ** (-torch.arange(0, D, 2, dtype=torch.float64) / D)
    angle = torch.outer(torch.arange(T, dtype=torch.float64), rate)
    return torch.stack((angle.cos(), angle.sin()), -1).float()


class Case:
    """One call's tensors, its float64 result and gradients."""

    def __init__(self, shape, dtype, *, gains=True, gain_dtype=None, seed=0) -> None:
        B, T, S, H, D = shape
        generator = torch.Generator().manual_seed(seed)
        self.dtype, self.seed = dtype, seed
        self.qkv = torch.randn(B, T, S, 3, H, D, generator=generator).to(dtype)
        self.grad = torch.randn(B, T, S, H * D, generator=generator).to(dtype)
        self.gains = [None, None]
        if gains:
            drawn = 1 + 0.3 * torch.randn(2, D, generator=generator)
            self.gains = list(drawn.to(gain_dtype or dtype).unbind(0))
        self.rotation = rotation_table(T, D)
        args = TemporalAttentionArgs(B, T, S, H, D, DTYPES[dtype], D**-0.5)
        args.transform.eps, args.transform.interleaved = EPS, 1
        args.transform.rotation = self.rotation.data_ptr()
        args.qkv = self.qkv.data_ptr()
        self.inputs = {"qkv": (self.qkv, READ), "rotation": (self.rotation, READ)}
        for i, gain in enumerate(self.gains):
            args.transform.weight[i] = rows(gain)
            if gain is not None:
                self.inputs[f"gain{i}"] = (gain, READ)
        self.args = args

    def exact(self) -> tuple[Tensor, list[Tensor]]:
        leaves = [
            None if t is None else t.double().requires_grad_() for t in (self.qkv, *self.gains)
        ]
        with ops.reference_ops():
            out = temporal_attention_reference(*leaves, THETA, EPS)
        given = [t for t in leaves if t is not None]
        return out.detach(), list(torch.autograd.grad(out, given, self.grad.double()))

    def forward(self, device: Device) -> Tensor:
        out = torch.empty_like(self.grad)
        self.args.out = out.data_ptr()
        device.call(
            "temporal_attention_forward", self.args, self.seed, **self.inputs, out=(out, OUT)
        )
        return out

    def backward(self, device: Device) -> list[Tensor]:
        args, D = self.args, self.args.D
        args.grad_out = self.grad.data_ptr()
        grad_qkv = torch.empty_like(self.qkv)
        args.grad_qkv = grad_qkv.data_ptr()
        slots = device.library.temporal_attention_slot_count(ctypes.byref(args))
        args.transform.slots = slots
        partial = torch.empty(slots, 2, D)
        args.transform.partial = partial.data_ptr()
        used = {**self.inputs, "grad": (self.grad, READ), "grad_qkv": (grad_qkv, OUT)}
        used["partial"] = (partial, WRITE)
        results = [grad_qkv]
        for i, gain in enumerate(self.gains):
            if gain is None:
                continue
            results.append(torch.empty_like(gain))
            used[f"grad_gain{i}"] = (results[-1], OUT)
            args.transform.grad_weight[i] = results[-1].data_ptr()
            args.transform.grad_weight_is_float[i] = int(gain.dtype == torch.float32)
        device.call("temporal_attention_backward", args, self.seed, **used)
        return results


def check(got: Tensor, exact: Tensor, dtype: torch.dtype, what: str) -> None:
    # One frame attends to itself alone: its gains have no gradient, and their norm is 0.
    error = ((got.double() - exact).norm() / exact.norm().clamp_min(1e-12)).item()
    allowed = {torch.float32: 1e-6, torch.bfloat16: 6e-3, torch.float16: 8e-4}[dtype]
    assert error < allowed, f"{what}: relative error {error:.2e}"


def check_both(device: Device, case: Case) -> None:
    out, grads = case.exact()
    check(case.forward(device), out, case.dtype, "out")
    for i, (got, want) in enumerate(zip(case.backward(device), grads, strict=True)):
        check(got, want, case.dtype, f"gradient {i}")


@pytest.mark.parametrize("T", [1, 5, 8, 16, 20, 27, 32, 48])
def test_frames(device, T):
    check_both(device, Case((2, T, 1, 3, 72), torch.bfloat16, seed=T))


@pytest.mark.parametrize("D", [64, 96, 128])
@pytest.mark.parametrize("T", [8, 20])
def test_head_sizes(device, T, D):
    check_both(device, Case((1, T, 3, 2, D), torch.float16, gain_dtype=torch.float32, seed=D))


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((2, 8, 2, 2, 72), torch.float32),
        ((1, 20, 1, 3, 64), torch.float32),
        ((1, 33, 1, 2, 16), torch.float32),
        ((2, 7, 2, 3, 50), torch.bfloat16),
        ((1, 5, 1, 1, 2), torch.float16),
        ((1, 3, 1, 2, 256), torch.float32),
    ],
)
def test_any_head(device, shape, dtype):
    case = Case(shape, dtype, seed=7)
    assert not device.library.temporal_attention_on_matrix_units(ctypes.byref(case.args))
    check_both(device, case)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_without_gains(device, dtype):
    check_both(device, Case((1, 9, 2, 2, 72), dtype, gains=False))


@pytest.mark.parametrize("T", [1, 5, 8, 16, 20, 27, 32])
def test_moves_the_minimum_of_bytes(device, T):
    """Forward: qkv read once, the result written once, and nothing else of their size."""
    case = Case((2, T, 3, 2, 72), torch.bfloat16)
    out = case.forward(device)
    moved = device.read("qkv") + device.written("out") + device.written("qkv") + device.read("out")
    assert moved / (case.qkv.nbytes + out.nbytes) == 1.0


def test_backward_reads_queries_and_keys_twice(device):
    """The second time for the norm's gradient: a row just read, so from the cache."""
    case = Case((1, 8, 3, 2, 72), torch.bfloat16)
    case.forward(device)
    grad_qkv = case.backward(device)[0]
    assert device.read("qkv") * 3 == case.qkv.nbytes * 5
    assert device.read("grad") == case.grad.nbytes
    assert device.written("grad_qkv") == grad_qkv.nbytes


def test_more_items_than_warps(device):
    """A warp that takes several heads in turn must add up their gains' gradients."""
    check_both(device, Case((1, 2, 67, 16, 64), torch.bfloat16))


def test_order_of_threads_does_not_matter(device):
    results = []
    for seed in (1, 2):
        case = Case((1, 20, 2, 3, 72), torch.bfloat16)
        case.seed = seed
        results.append([case.forward(device), *case.backward(device)])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


# (shape, dtype): blocks of 4, 3 and 2 warps where a block may have 163 KB, of fewer with 99 KB.
LARGE = [
    ((1, 20, 3, 3, 128), torch.bfloat16),
    ((1, 40, 5, 2, 72), torch.bfloat16),
    ((1, 40, 2, 3, 128), torch.float16),
    ((1, 33, 2, 3, 72), torch.float32),
]


@pytest.mark.parametrize(("shape", "dtype"), LARGE)
def test_less_shared_memory_the_same_bits(device, shape, dtype):
    """Devices of compute capability 8.6, 8.9 and 12.0 give a block 99 KB, 8.0 163, 9.0 227."""
    results = []
    for kilobytes in (227, 163, 99):
        case = Case(shape, dtype)
        with device.shared_memory(kilobytes):
            results.append([case.forward(device), *case.backward(device)])
    for others in zip(*results, strict=True):
        assert all(torch.equal(others[0], other) for other in others[1:])


def test_what_does_not_fit_is_refused(device):
    """50 frames of float32 heads of 96 need 96 KB and 63 frames 127 KB: said, not launched."""

    def refusal(T: int) -> str | None:
        case = Case((1, T, 1, 1, 96), torch.float32)
        text = device.library.temporal_attention_refused(ctypes.byref(case.args))
        return text and text.decode()

    with device.shared_memory(99):
        assert refusal(50) is None
        assert re.search(r"need 127 KB .* at most 99 KB on this device", refusal(63))
        case = Case((1, 63, 1, 1, 96), torch.float32)
        with pytest.raises(EmulationError, match="asked for 129528 bytes"):
            case.backward(device)
    assert refusal(63) is None
