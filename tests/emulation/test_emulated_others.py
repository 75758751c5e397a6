"""The CUDA kernels of the smaller operators on the emulated device, against float64."""

import ctypes

import pytest
import torch
import torch.nn.functional as F
from emulator import (
    DTYPES,
    ONCE,
    READ,
    WRITE,
    BiasGeluArgs,
    Device,
    EulerCfgArgs,
    Patchify3dArgs,
    QkNormRopeArgs,
    compiler,
    pointer,
    rows,
)
from torch import Tensor

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler (set CXX)")

OUT = WRITE | ONCE
DT = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(scope="module")
def device() -> Device:
    return Device()


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def check(got: Tensor, exact: Tensor, what: str) -> None:
    error = ((got.double() - exact).norm() / exact.norm().clamp_min(1e-3)).item()
    allowed = {torch.float32: 2e-6, torch.bfloat16: 6e-3, torch.float16: 8e-4}[got.dtype]
    assert error < allowed, f"{what}: relative error {error:.2e}"


# qk_norm_rope


def ready(qkv: Tensor, gains: list[Tensor | None], rotation: Tensor | None, interleaved: bool):
    """float64 norm and rotation of a packed [B, N, 3, H, D]."""
    parts = list(qkv.unbind(2))
    for i, gain in enumerate(gains):
        x = parts[i]
        if gain is not None:
            x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * gain
        if rotation is not None:
            cos, sin = rotation.double()[:, None].unbind(-1)
            if interleaved:
                a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
                x = torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2)
            else:
                a, b = x.chunk(2, -1)
                x = torch.cat((a * cos - b * sin, b * cos + a * sin), -1)
        parts[i] = x
    return torch.stack(parts, 2)


def packed_strides(t: Tensor) -> ctypes.Array:
    return (ctypes.c_int64 * 4)(*t.stride()[:4])


@pytest.mark.parametrize(
    ("shape", "dtype", "interleaved", "rotate"),
    [
        ((2, 5, 16, 72), torch.bfloat16, True, True),
        ((1, 3, 10, 64), torch.float16, True, False),
        ((1, 4, 3, 128), torch.bfloat16, True, True),
        ((2, 3, 3, 72), torch.bfloat16, False, True),
        ((1, 5, 2, 97), torch.float32, True, False),
        ((1, 70, 2, 24), torch.float32, False, True),
    ],
)
@pytest.mark.parametrize("gains", [(True, True), (False, True)])
def test_qk_norm_rope(device, shape, dtype, interleaved, rotate, gains):
    B, N, H, D = shape
    generator = torch.Generator().manual_seed(1)
    wide = torch.randn(B, N, 3, H, D + 8, generator=generator).to(dtype)
    qkv = wide[..., :D] if D % 8 == 0 else wide[..., :D].contiguous()  # rows lie apart
    weights = [
        (1 + 0.3 * torch.randn(D, generator=generator)).to(dtype) if g else None for g in gains
    ]
    angle = torch.randn(N, D // 2, generator=generator)
    rotation = torch.stack((angle.cos(), angle.sin()), -1) if rotate else None
    args = QkNormRopeArgs(B, N, H, D, 3, DTYPES[dtype])
    args.transform.eps, args.transform.interleaved = 1e-6, int(interleaved)
    args.transform.rotation = pointer(rotation)
    used = {"qkv": (qkv, READ)}
    if rotate:
        used["rotation"] = (rotation, READ)
    for i, weight in enumerate(weights):
        args.transform.weight[i] = rows(weight)
        if weight is not None:
            used[f"gain{i}"] = (weight, READ)
    args.qkv, args.qkv_strides = pointer(qkv), packed_strides(qkv)

    leaves = [None if t is None else t.double().requires_grad_() for t in (qkv, *weights)]
    exact = ready(leaves[0], leaves[1:], rotation, interleaved)
    grad = torch.randn(exact.shape, generator=generator).to(dtype)
    exact_grads = torch.autograd.grad(exact, [t for t in leaves if t is not None], grad.double())

    out = torch.empty(B, N, 3, H, D, dtype=dtype)
    args.out, args.out_strides = pointer(out), packed_strides(out)
    device.call("qk_norm_rope_forward", args, **used, out=(out, OUT))
    check(out, exact.detach(), "out")

    args.grad_out, args.grad_strides = pointer(grad), packed_strides(grad)
    grad_qkv = torch.empty_like(out)
    args.grad_qkv, args.out = pointer(grad_qkv), None
    slots = device.library.qk_norm_rope_slot_count(ctypes.byref(args))
    args.transform.slots, partial = slots, torch.empty(slots, 2, D)
    args.transform.partial = pointer(partial)
    results = [grad_qkv]
    more = {"grad": (grad, READ), "grad_qkv": (grad_qkv, OUT), "partial": (partial, WRITE)}
    for i, weight in enumerate(weights):
        if weight is not None:
            results.append(torch.empty_like(weight))
            more[f"grad_gain{i}"] = (results[-1], OUT)
            args.transform.grad_weight[i] = pointer(results[-1])
            args.transform.grad_weight_is_float[i] = int(dtype == torch.float32)
    device.call("qk_norm_rope_backward", args, **used, **more)
    for i, (got, want) in enumerate(zip(results, exact_grads, strict=True)):
        check(got, want, f"gradient {i}")

    inside = qkv.clone()  # in place: values are not even read
    args.qkv, args.out, args.parts = pointer(inside), pointer(inside), 2
    args.grad_out = args.grad_qkv = None
    args.qkv_strides = args.out_strides = packed_strides(inside)
    del used["qkv"]
    device.call("qk_norm_rope_forward", args, **used, inside=(inside, READ | WRITE))
    assert device.read("inside") == device.written("inside") == inside.nbytes * 2 // 3
    assert torch.equal(inside, out)


# bias_gelu


@pytest.mark.parametrize("shape", [(7, 64), (3, 4608), (1, 1), (5, 97), (130, 24)])
@pytest.mark.parametrize("dtype", DT)
@pytest.mark.parametrize("with_bias", [True, False])
def test_bias_gelu(device, shape, dtype, with_bias):
    N, C = shape
    x, grad = (3 * torch.randn(2, N, C)).to(dtype).unbind(0)
    bias = torch.randn(C) if with_bias else None
    leaves = [t.double().requires_grad_() for t in (x, bias) if t is not None]
    exact = F.gelu(sum(leaves), approximate="tanh")
    exact_grads = torch.autograd.grad(exact, leaves, grad.double())
    out, grad_x = torch.empty_like(x), torch.empty_like(x)
    args = BiasGeluArgs(N, C, 0, DTYPES[dtype], 1, rows(bias), pointer(x), pointer(out))
    used = {"x": (x, READ)} | ({"bias": (bias, READ)} if with_bias else {})
    device.call("bias_gelu_forward", args, **used, out=(out, OUT))
    check(out, exact.detach(), "out")
    assert device.read("x") == x.nbytes

    args.out, args.grad_out, args.grad_x = None, pointer(grad), pointer(grad_x)
    args.chunks = device.library.bias_gelu_chunk_count(ctypes.byref(args))
    more = {"grad": (grad, READ), "grad_x": (grad_x, OUT)}
    if with_bias:
        partial, grad_bias = torch.empty(args.chunks, C), torch.empty(C)
        args.partial, args.grad_bias = pointer(partial), pointer(grad_bias)
        more |= {"partial": (partial, OUT), "grad_bias": (grad_bias, OUT)}
    device.call("bias_gelu_backward", args, **used, **more)
    check(grad_x, exact_grads[0], "grad_x")
    if with_bias:
        check(grad_bias, exact_grads[1], "grad_bias")


def test_gelu_of_large_numbers(device):
    x = torch.tensor([[-1e4, -30.0, 0.0, 30.0, 1e4, 1e30, -1e30, 1.0]])
    out = torch.empty_like(x)
    args = BiasGeluArgs(1, 8, 0, 0, 0, rows(None), pointer(x), pointer(out))
    device.call("bias_gelu_forward", args, x=(x, READ), out=(out, OUT))
    torch.testing.assert_close(out, F.gelu(x, approximate="tanh"))


# patchify3d, unpatchify3d


@pytest.mark.parametrize(
    ("size", "patch", "channels"),
    [
        ((2, 4, 3, 8, 6), (1, 2, 2), 48),
        ((1, 4, 2, 5, 7), (1, 2, 2), 1152),
        ((1, 3, 5, 4, 3), (2, 1, 3), 20),
        ((1, 4, 1, 4, 4), (1, 2, 2), 30),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_patchify3d(device, size, patch, channels, dtype):
    B, Z, *lengths = size
    grid = [-(-n // p) for n, p in zip(lengths, patch, strict=True)]
    S = grid[1] * grid[2]
    x, weight = torch.randn(size), torch.randn(channels, Z, *patch).to(dtype)
    bias, positions = torch.randn(channels).to(dtype), torch.randn(S, channels)
    padding = [v for n, p in zip(reversed(lengths), reversed(patch), strict=True)
               for v in (0, -n % p)]  # fmt: skip
    exact = F.conv3d(F.pad(x, padding).double(), weight.double(), bias.double(), patch)
    exact = exact.flatten(3).permute(0, 2, 3, 1) + positions.double()
    out = torch.empty(B, grid[0], S, channels, dtype=dtype)
    args = Patchify3dArgs(B, Z, *lengths, channels, 0, *grid, *patch, 1, DTYPES[dtype])
    args.x, args.weight, args.out = pointer(x), pointer(weight), pointer(out)
    args.bias, args.positions = rows(bias), rows(positions)
    given = {"x": x, "weight": weight, "bias": bias, "positions": positions}
    device.call("patchify3d_forward", args, **{k: (t, READ) for k, t in given.items()},
                out=(out, OUT))  # fmt: skip
    check(out, exact, "tokens")


@pytest.mark.parametrize(
    ("size", "patch", "stored"), [((2, 4, 3, 8, 6), (1, 2, 2), 8), ((1, 2, 3, 5, 4), (2, 2, 1), 2)]
)
def test_unpatchify3d(device, size, patch, stored):
    B, Z, *lengths = size
    grid = [-(-n // p) for n, p in zip(lengths, patch, strict=True)]
    tokens = torch.randn(B, grid[0], grid[1] * grid[2], stored * patch[0] * patch[1] * patch[2])
    tokens = tokens.bfloat16()
    exact = tokens.view(B, *grid, *patch, stored).permute(0, 7, 1, 4, 2, 5, 3, 6)
    exact = exact.reshape(B, stored, *(g * p for g, p in zip(grid, patch, strict=True)))
    exact = exact[:, :Z, : lengths[0], : lengths[1], : lengths[2]].float()
    out = torch.empty(size)
    args = Patchify3dArgs(B, Z, *lengths, 0, stored, *grid, *patch, 0, DTYPES[torch.bfloat16])
    args.x, args.out = pointer(tokens), pointer(out)
    device.call("unpatchify3d_forward", args, tokens=(tokens, READ), out=(out, OUT))
    assert torch.equal(out, exact)


# euler_cfg


@pytest.mark.parametrize("total", [1, 64, 4099])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("guided", [True, False])
def test_euler_cfg(device, total, dtype, guided):
    x, conditional, null = torch.randn(3, total).to(dtype).unbind(0)
    if not guided:
        null = None
    out = torch.empty_like(x)
    args = EulerCfgArgs(total, DTYPES[dtype], 6.0, 0.02, 0, pointer(x))
    args.conditional, args.null, args.out = rows(conditional), rows(null), pointer(out)
    given = {"x": x, "conditional": conditional, "null": null}
    used = {k: (t, READ) for k, t in given.items() if t is not None}
    device.call("euler_cfg_forward", args, **used, out=(out, OUT))
    slope = conditional.double()
    if guided:
        slope = null.double() + 6 * (slope - null.double())
    check(out, x.double() + float(torch.tensor(0.02)) * slope, "out")
    assert sum(device.read(k) for k in used) == len(used) * x.nbytes
