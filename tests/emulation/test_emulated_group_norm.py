"""Group normalisation of channels-last activations on the emulated device, against float64."""

import pytest
import torch
import torch.nn.functional as F
from emulator import (
    DTYPES,
    ONCE,
    READ,
    WRITE,
    Device,
    EmulationError,
    GroupNormArgs,
    compiler,
    pointer,
    rows,
)

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler (set CXX)")
EPS = 1e-6


@pytest.fixture(scope="module")
def device() -> Device:
    return Device()


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def exact_norm(z_NLC, groups, weight, bias, silu):
    out = F.group_norm(z_NLC.double().movedim(-1, 1), groups, weight.double(), bias.double(), EPS)
    return (F.silu(out) if silu else out).movedim(1, -1)


def run(device, x, groups, *, add=None, before=None, keep=False, silu=True, front=0, width=0,
        seed=0, small=torch.float32):  # fmt: skip
    """(sum or None, out, weight, bias) of random gains; every byte of the outputs once."""
    N, L, C = x.shape
    if width:
        C, L = C // 4, (L // (width // 2 + 1) - 1) * 2 * width
    weight = (1 + 0.3 * torch.randn(C)).to(small)
    bias = (0.5 * torch.randn(C)).to(small)
    chunks = device.library.group_norm_chunk_count(N, L, C)
    args = GroupNormArgs(N, L, C, groups, chunks, front, width, DTYPES[x.dtype], EPS, int(silu))
    stored = keep or add is not None or bool(width)
    total = torch.empty(N, L, C, dtype=x.dtype) if stored else None
    out = torch.empty(N, front + L, C, dtype=x.dtype)
    partial, coefficients = torch.empty(N, chunks, groups, 2), torch.empty(N, 2, C)
    args.x, args.add, args.sum, args.out = map(pointer, (x, add, total, out))
    args.before, args.weight, args.bias = map(rows, (before, weight, bias))
    args.partial, args.coefficients = pointer(partial), pointer(coefficients)
    used = {"x": x, "add": add, "before": before, "weight": weight, "bias": bias}
    used = {name: (t, READ) for name, t in used.items() if t is not None}
    made = {"sum": total, "out": out, "partial": partial, "coefficients": coefficients}
    made = {name: (t, WRITE | ONCE) for name, t in made.items() if t is not None}
    device.call("group_norm", args, seed, **used, **made)
    return total, out, weight, bias


def assert_close(got, exact, dtype):
    error = (got.double() - exact).abs().max().item()
    assert error <= 4 * torch.finfo(dtype).eps * exact.abs().max().item(), error


SHAPES = [(2, 70, 64, 32), (1, 300, 128, 32), (3, 33, 24, 3), (2, 9, 36, 4), (1, 5, 7, 7),
          (1, 1, 8, 1), (2, 6, 2056, 4), (1, 40, 96, 2), (1, 3, 512, 32)]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_norm_and_silu(device, shape, dtype):
    N, L, C, groups = shape
    x = (torch.randn(N, L, C) + torch.randn(C)).to(dtype)
    for silu, front, small in ((True, 0, torch.float32), (False, 3, dtype)):
        _, out, weight, bias = run(device, x, groups, silu=silu, front=front, small=small)
        assert_close(out[:, front:], exact_norm(x, groups, weight, bias, silu), dtype)
        assert not out[:, :front].any()
        assert device.read("x") == 2 * x.numel() * x.element_size()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_before_the_norm(device, shape, dtype):
    N, L, C, groups = shape
    x, y = torch.randn(2, N, L, C).to(dtype).unbind(0)
    before = torch.randn(C).to(dtype)
    for add, keep in ((y, False), (None, True)):
        total, out, weight, bias = run(device, x, groups, add=add, before=before, keep=keep)
        z = x.double() + before.double() + (0 if add is None else add.double())
        assert_close(total, z, dtype)
        assert_close(out, exact_norm(total, groups, weight, bias, True), dtype)
    _, out, weight, bias = run(device, x, groups, before=before)
    assert_close(out, exact_norm(x.double() + before.double(), groups, weight, bias, True), dtype)


@pytest.mark.parametrize(
    ("N", "h", "w", "C", "groups"), [(2, 3, 5, 16, 4), (1, 4, 2, 9, 3), (1, 1, 1, 8, 8)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_phases(device, N, h, w, C, groups, dtype):
    """A picture's four phases, each a place further where its row or column is odd."""
    x = torch.randn(N, h + 1, w + 1, 2, 2, C).to(dtype)
    z = torch.empty(N, h, 2, w, 2, C, dtype=dtype)
    for a in range(2):
        for b in range(2):
            z[:, :, a, :, b] = x[:, a : a + h, b : b + w, a, b]
    z = z.view(N, 4 * h * w, C)
    total, out, weight, bias = run(device, x.view(N, -1, 4 * C), groups, width=2 * w)
    assert torch.equal(total, z)
    assert_close(out, exact_norm(z, groups, weight, bias, True), dtype)


@pytest.mark.parametrize("mean", [1e3, -1e4])
def test_a_large_mean_does_no_harm(device, mean):
    """Error of the order that one rounding of x makes: a mean of squares would lose everything."""
    x = torch.randn(1, 400, 32) + mean
    _, out, weight, bias = run(device, x, 4, silu=False)
    exact = exact_norm(x, 4, weight, bias, False)
    assert (out.double() - exact).abs().max() <= 2 * torch.finfo(torch.float32).eps * abs(mean)


def test_same_bits_in_any_order_of_threads(device):
    x = torch.randn(2, 100, 64).bfloat16()
    results = []
    for seed in range(3):
        torch.manual_seed(1)
        results.append(run(device, x, 32, seed=seed)[1])
    assert all(torch.equal(results[0], other) for other in results[1:])


def test_constant_input_is_the_bias(device):
    x = torch.full((1, 50, 16), 3.0)
    _, out, _, bias = run(device, x, 2, silu=False)
    # Without variance a rounding of 3 is a thousandfold (1 / sqrt(eps)).
    torch.testing.assert_close(out, bias.expand_as(out), rtol=0, atol=1e-3)


def test_reading_beyond_a_sample_is_seen(device):
    """The check above must be able to fail."""
    x = torch.randn(1, 20, 16)
    args = GroupNormArgs(1, 21, 16, 2, 1, 0, 0, DTYPES[x.dtype], EPS, 1)
    out, scratch, coefficients = torch.empty(1, 21, 16), torch.empty(4), torch.empty(2, 16)
    gains = torch.ones(16)
    tensors = (x, out, scratch, coefficients)
    args.x, args.out, args.partial, args.coefficients = map(pointer, tensors)
    args.weight = args.bias = rows(gains)
    with pytest.raises(EmulationError):
        device.call("group_norm", args, x=(x, READ), gains=(gains, READ), out=(out, WRITE),
                    scratch=(scratch, WRITE), coefficients=(coefficients, WRITE))  # fmt: skip
