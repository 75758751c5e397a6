"""What cross-attention needs beside a library's kernel, on the emulated device: rotation in place
and a row's own key."""

import ctypes

import pytest
import torch
from emulator import (
    DTYPES,
    READ,
    WRITE,
    AttendOwnArgs,
    Device,
    EmulationError,
    RotateArgs,
    compiler,
    pointer,
)

from syncflow.ops.rotation import rotate

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler (set CXX)")


@pytest.fixture(scope="module")
def device() -> Device:
    return Device()


def triple(t: torch.Tensor) -> ctypes.Array:
    return (ctypes.c_int64 * 3)(*t.stride()[:3])


@pytest.mark.parametrize(
    ("shape", "gap"),
    [
        ((2, 5, 3, 72), 8),
        ((1, 7, 2, 32), 0),
        ((2, 3, 2, 26), 2),
        ((1, 4, 1, 2), 1),
        ((1, 3, 2, 8), 8),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("interleaved", [True, False])
def test_rotate(device, shape, gap, dtype, interleaved):
    """In place on rows that lie apart: every byte once, the gaps untouched."""
    B, N, H, D = shape
    wide = torch.randn(B, N, H, D + gap).to(dtype)
    x = wide[..., :D]
    angle = torch.randn(N, D // 2)
    rotation = torch.stack((angle.cos(), angle.sin()), -1)
    exact = rotate(x.double(), rotation.double(), interleaved)
    beside = wide[..., D:].clone()
    args = RotateArgs(B, N, H, D, DTYPES[dtype], int(interleaved))
    args.rotation, args.x, args.out = pointer(rotation), pointer(x), pointer(x)
    args.x_strides = args.out_strides = triple(x)
    device.call("rotate", args, rotation=(rotation, READ), x=(x, READ | WRITE))
    error = (x.double() - exact).abs().max().item()
    assert error <= 4 * torch.finfo(dtype).eps * exact.abs().max().item()
    assert torch.equal(wide[..., D:], beside)
    assert device.read("x") == device.written("x") == x.numel() * x.element_size()


def own_arguments(q, k, v, log_sum, out, draws) -> AttendOwnArgs:
    R, N, H, D = q.shape
    args = AttendOwnArgs(R, N, H, D, draws, DTYPES[q.dtype], D**-0.5)
    args.q, args.own_k, args.own_v = pointer(q), pointer(k), pointer(v)
    args.own_row, args.own_head = k.stride(0), k.stride(1)
    args.log_sum, args.out = pointer(log_sum), pointer(out)
    return args


@pytest.mark.parametrize(("R", "draws", "N", "D"), [(2, 1, 5, 72), (6, 3, 4, 32), (2, 2, 1, 97)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attend_own(device, R, draws, N, D, dtype):
    """Attention to a context and a row's own key at once, in float64, is what comes out."""
    B, H, M = R // draws, 3, 6
    q, own = torch.randn(R, N, H, D).to(dtype), torch.randn(R, 2, H, D).to(dtype)
    k, v = torch.randn(2, B, M, H, D).to(dtype).unbind(0)

    def scores(keys):  # [R, N, H, D] x [R, M, H, D] -> [R, H, N, M]
        return torch.einsum("rnhd,rmhd->rhnm", q.double(), keys.double()) * D**-0.5

    repeated = [x.repeat_interleave(draws, 0) for x in (k, v)]
    context = scores(repeated[0])
    both = torch.cat((context, scores(own[:, None, 0])), -1)
    values = torch.cat((repeated[1], own[:, None, 1]), 1).double()
    exact = torch.einsum("rhnm,rmhd->rnhd", both.softmax(-1), values)
    out = torch.einsum("rhnm,rmhd->rnhd", context.softmax(-1), repeated[1].double())
    out = out.to(dtype).contiguous()
    log_sum = context.logsumexp(-1)  # [R, H, N] -> [B, H, draws * N]
    log_sum = log_sum.view(B, draws, H, N).transpose(1, 2).reshape(B, H, draws * N)
    log_sum = log_sum.float().contiguous()
    args = own_arguments(q, own[:, 0], own[:, 1], log_sum, out, draws)
    used = {"q": (q, READ), "own": (own, READ), "log_sum": (log_sum, READ)}
    device.call("attend_own", args, **used, out=(out, READ | WRITE))
    error = (out.double() - exact).abs().max().item()
    assert error <= 4 * torch.finfo(dtype).eps * exact.abs().max().item()


def test_reading_beyond_the_context_is_seen(device):
    """The check above must be able to fail."""
    q, own = torch.randn(2, 3, 1, 8), torch.randn(2, 2, 1, 8)
    log_sum, out = torch.zeros(1, 1, 6), torch.zeros(2, 3, 1, 8)
    args = own_arguments(q, own[:, 0], own[:, 1], log_sum, out, 1)  # two contexts are wanted
    used = {"q": (q, READ), "own": (own, READ), "log_sum": (log_sum[..., :3], READ)}
    with pytest.raises(EmulationError):
        device.call("attend_own", args, **used, out=(out, READ | WRITE))
