"""The CUDA kernels on a device: exactness, determinism, streams, graphs, sizes beyond 2^31."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from exactness import assert_as_good_as_eager, results

from syncflow import ops
from syncflow.ops import (
    adaln,
    cross_attention,
    euler_cfg,
    gelu,
    group_norm,
    native,
    patchify3d,
    qk_norm_rope,
    rotation,
)
from syncflow.ops.temporal_attention import temporal_attention

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def seed() -> None:
    assert native.LOADED, native.status()["reason"]
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def poison(seed) -> Iterator[None]:
    """What an output forgets to write shows as NaN, outputs of every size."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(5, device="cuda").isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def draw(*size: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(*size, device="cuda").to(dtype)


def test_every_op_has_a_kernel():
    ops = ["adaln", "gate_residual", "gate_residual_adaln", "residual_layernorm"]
    ops += ["temporal_attention", "qk_norm_rope", "bias_gelu"]
    ops += [f"{op}_backward" for op in ops] + ["qk_norm_rope_"]
    for op in [*ops, "patchify3d", "unpatchify3d", "euler_cfg"]:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"syncflow::{op}", "CUDA"), op


ROWS = [(2, 7, 64), (3, 5, 1), (2, 15, 97), (2, 6, 130), (1, 3, 1134), (2, 300, 1152),
        (1, 9, 1536), (1, 4, 2304), (16, 40, 1152)]  # fmt: skip


@pytest.mark.parametrize("shape", ROWS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_adaln_family(shape, dtype):
    B, _, C = shape
    x, y = draw(*shape, dtype=dtype) + 0.5, draw(*shape, dtype=dtype)
    shift, scale, gate = (0.5 * draw(B, 6, C, dtype=dtype)).unbind(1)[:3]
    assert_as_good_as_eager(adaln.adaln, [x, shift, scale])
    assert_as_good_as_eager(adaln.gate_residual, [x, y, gate])
    assert_as_good_as_eager(adaln.gate_residual_adaln, [x, y, gate, shift, scale])
    assert_as_good_as_eager(adaln.gate_residual_adaln, [x, y, None, shift, scale])
    weight, bias = draw(2, C, dtype=torch.float32).unbind(0)
    assert_as_good_as_eager(adaln.residual_layernorm, [x, y, weight, bias])


def test_adaln_of_two_modulations_by_frame():
    x = draw(2, 5, 12, 1152, dtype=torch.bfloat16)
    shift, scale = draw(2, 2, 5, 1152, dtype=torch.float32).unbind(0)
    assert_as_good_as_eager(adaln.adaln, [x, shift, scale])


@pytest.mark.parametrize("T", [1, 5, 8, 16, 20, 27, 32, 48, 64])
@pytest.mark.parametrize("D", [24, 32, 48, 64, 72, 80, 96, 128])
@pytest.mark.parametrize("dtype", DTYPES)
def test_temporal_attention(T, D, dtype):
    qkv = draw(2, T, 3, 3, 4, D, dtype=dtype)
    weights = [1 + 0.3 * draw(D, dtype=dtype) for _ in range(2)]
    assert_as_good_as_eager(temporal_attention, [qkv, *weights])
    assert_as_good_as_eager(temporal_attention, [qkv, None, None])


@pytest.mark.parametrize("shape", [(2, 5, 16, 72), (1, 3, 10, 64), (2, 30, 3, 48)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("interleaved", [True, False])
def test_qk_norm_rope(shape, dtype, interleaved):
    B, N, H, D = shape
    table = rotation.frame_rotation(N, D, 1e4, torch.device("cuda"), torch.float32)
    weights = [1 + 0.3 * draw(D, dtype=dtype) for _ in range(2)]

    def function(qkv, *weights):
        return qk_norm_rope.qk_norm_rope(qkv * 1, *weights, table.to(qkv.dtype), interleaved)

    qkv = draw(B, N, 3, H, D, dtype=dtype)
    assert_as_good_as_eager(function, [qkv, *weights])
    with torch.no_grad():
        own = table.to(dtype)
        inside = qk_norm_rope.qk_norm_rope(qkv.clone(), *weights, own, interleaved)
    assert torch.equal(inside, results(function, [qkv, *weights])[0])


@pytest.mark.parametrize("shape", [(7, 64), (300, 4608), (1, 1), (5, 97)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_bias_gelu(shape, dtype):
    x, bias = 2 * draw(*shape, dtype=dtype), draw(shape[1], dtype=dtype)
    assert_as_good_as_eager(gelu.bias_gelu, [x, bias])
    assert_as_good_as_eager(gelu.bias_gelu, [x, None])


@pytest.mark.parametrize("channels", [1152, 50])
@pytest.mark.parametrize("dtype", DTYPES)
def test_patches(channels, dtype):
    weight = draw(channels, 4, 1, 2, 2, dtype=dtype)
    positions = draw(12, channels, dtype=dtype)
    x = draw(2, 4, 3, 5, 7, dtype=dtype)
    bias = draw(channels, dtype=dtype)
    assert_as_good_as_eager(
        lambda x, w, b: patchify3d.patchify3d(x, w, b, positions.to(w.dtype)), [x, weight, bias]
    )
    tokens, size = draw(2, 3, 12, 32, dtype=dtype), (3, 5, 7)
    got = patchify3d.unpatchify3d(tokens, (1, 2, 2), 4, size)
    assert torch.equal(got, patchify3d.unpatchify3d_reference(tokens, (1, 2, 2), 4, size))


def test_euler_cfg():
    x, conditional, null = draw(3, 2, 4, 8, 31, dtype=torch.float32).unbind(0)
    for guide in (null, None):
        got = euler_cfg.euler_cfg(x, conditional, guide, 6.0, 0.02)
        exact = euler_cfg.euler_cfg_reference(
            *(None if t is None else t.double() for t in (x, conditional, guide)), 6.0, 0.02
        )
        torch.testing.assert_close(got.double(), exact, rtol=1e-6, atol=1e-6)


def calls() -> dict[str, tuple]:
    x, y = draw(2, 2, 300, 1152, dtype=torch.bfloat16).unbind(0)
    m = draw(3, 2, 1152, dtype=torch.bfloat16)
    qkv, w = draw(2, 8, 20, 3, 4, 72, dtype=torch.bfloat16), draw(72, dtype=torch.bfloat16)
    return {
        "adaln": (adaln.gate_residual_adaln, [x, y, m[2], m[0], m[1]]),
        "temporal": (temporal_attention, [qkv, w, w]),
        "gelu": (gelu.bias_gelu, [x, m[0, 0]]),
    }


@pytest.mark.parametrize("name", ["adaln", "temporal", "gelu"])
def test_same_bits_again_and_on_another_stream(name):
    function, tensors = calls()[name]
    first = results(function, tensors)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        again = results(function, tensors)
    stream.synchronize()
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["adaln", "temporal", "gelu"])
def test_captured_in_a_graph(name):
    function, tensors = calls()[name]
    expected = results(function, tensors)[0]
    with torch.no_grad():
        function(*tensors)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = function(*tensors)
    graph.replay()
    assert torch.equal(out[0] if isinstance(out, tuple) else out, expected)


@pytest.mark.parametrize("name", ["adaln", "temporal", "gelu"])
def test_compiles_to_one_graph(name):
    function, tensors = calls()[name]
    compiled = torch.compile(function, fullgraph=True)
    for a, b in zip(results(function, tensors), results(compiled, tensors), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("shape", [(2, 5, 3, 72), (2, 2048, 16, 72), (1, 7, 2, 32), (2, 3, 2, 26)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("interleaved", [True, False])
def test_turned(shape, dtype, interleaved):
    """In place, on heads that lie apart."""
    B, N, H, D = shape
    table = rotation.frame_rotation(N, D, 1e4, torch.device("cuda"), torch.float32)
    packed = draw(B, N, 2, H, D, dtype=dtype)
    values = packed[:, :, 1].clone()
    exact = rotation.rotate(packed[:, :, 0].double(), table.double(), interleaved)
    with torch.no_grad():
        got = rotation.turned(packed[:, :, 0], table, interleaved)
    assert got.data_ptr() == packed.data_ptr() and torch.equal(packed[:, :, 1], values)
    rounding = torch.finfo(dtype).eps * exact.abs().max().item()
    assert (got.double() - exact).abs().max().item() <= 2 * rounding


@pytest.mark.parametrize(("R", "B", "N", "M", "D"), [(2, 2, 100, 2048, 72), (6, 2, 30, 77, 32)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_cross_attention_with_an_own_key(R, B, N, M, D, dtype):
    q, own = draw(R, N, 4, D, dtype=dtype), draw(R, 1, 2, 4, D, dtype=dtype)
    kv = draw(B, M, 2, 4, D, dtype=dtype)
    table = rotation.frame_rotation(N, D, 1e4, torch.device("cuda"), torch.float32)

    def run(dtype: torch.dtype) -> torch.Tensor:
        keys_values = tuple(x.transpose(1, 2) for x in kv.to(dtype).unbind(2))
        mine = tuple(x.transpose(1, 2) for x in own.to(dtype).unbind(2))
        queries = q.to(dtype, copy=True)
        return cross_attention.cross_attention(queries, keys_values, rotation_NP2=table, own=mine)

    with torch.no_grad():
        with ops.reference_ops():
            exact, eager = run(torch.float64), run(dtype)
        got = run(dtype)
    errors = [(x.double() - exact).abs().max().item() for x in (got, eager)]
    assert errors[0] <= 2 * errors[1] + torch.finfo(dtype).eps * exact.abs().max().item(), errors


@pytest.mark.parametrize("shape", [(2, 300, 1152), (3, 7, 97)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_layernorm_of_sum(shape, dtype):
    x, y = draw(2, *shape, dtype=dtype).unbind(0)
    weight, bias = draw(2, shape[-1], dtype=dtype).unbind(0)
    with torch.no_grad():
        exact = adaln.layernorm_of_sum_reference(*(t.double() for t in (x, y, weight, bias)))
        eager = adaln.layernorm_of_sum_reference(x, y, weight, bias)
        got = adaln.layernorm_of_sum(x, y, weight, bias)
    errors = [(t.double() - exact).abs().max().item() for t in (got, eager)]
    assert errors[0] <= 2 * errors[1] + torch.finfo(dtype).eps * exact.abs().max().item(), errors


@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_gelu(dtype):
    x, weight = draw(70, 72, dtype=dtype), 0.2 * draw(96, 72, dtype=dtype)
    bias = draw(96, dtype=dtype)
    with torch.no_grad():
        exact = F.gelu(F.linear(*(t.double() for t in (x, weight, bias))), approximate="tanh")
        eager = F.gelu(F.linear(x, weight, bias), approximate="tanh")
        got = gelu.linear_gelu(x, weight, bias)
    errors = [(t.double() - exact).abs().max().item() for t in (got, eager)]
    assert errors[0] <= 2 * errors[1] + torch.finfo(dtype).eps * exact.abs().max().item(), errors


def as_good_as_eager(run, dtype, *tensors: torch.Tensor | None) -> None:
    """The kernel's errors, and those of the plain operators, against float64."""
    with torch.no_grad():
        with ops.reference_ops():
            exact = run(*(None if t is None else t.double() for t in tensors))
            eager = run(*tensors)
        got = run(*tensors)
    for mine, theirs, truth in zip(got, eager, exact, strict=True):
        errors = [(t.double() - truth).abs().max().item() for t in (mine, theirs)]
        rounding = torch.finfo(dtype).eps * truth.abs().max().item()
        assert errors[0] <= 2 * errors[1] + rounding, errors


@pytest.mark.parametrize(
    ("size", "groups"),
    [((16, 512, 32, 32), 32), ((3, 128, 61, 37), 32), ((2, 24, 5, 7), 3), ((1, 7, 3, 3), 7),
     ((1, 256, 16, 32, 32), 32), ((2, 2056, 3, 5), 8), ((2, 256, 128, 128), 32)],
)  # fmt: skip
@pytest.mark.parametrize("dtype", DTYPES)
def test_group_norm(size, groups, dtype):
    C = size[1]
    layout = torch.channels_last if len(size) == 4 else torch.channels_last_3d
    x, y = ((draw(*size, dtype=dtype) + 0.5).contiguous(memory_format=layout) for _ in range(2))
    weight, bias, before = draw(3, C, dtype=dtype).unbind(0)
    if len(size) == 4:
        wide = draw(size[0], 4 * C, size[2] // 2 + 1, size[3] // 2 + 1, dtype=dtype)
        wide = wide.contiguous(memory_format=torch.channels_last)

    def run(x, y, before, weight, bias):
        gains = (groups, weight, bias, 1e-6)
        found = [group_norm.group_norm_silu(x, *gains, before_C=before, front=2)]
        found += [group_norm.group_norm_silu(x, *gains, silu=False)]
        found += group_norm.sum_group_norm_silu(x, y, before, *gains)
        found += group_norm.sum_group_norm_silu(x, None, before, *gains)
        if len(size) == 4:
            found += group_norm.phases_group_norm_silu(wide.to(x.dtype), before, *gains)
        return found

    as_good_as_eager(run, dtype, x, y, before, weight, bias)
    with torch.no_grad():
        first, again = (run(x, y, before, weight, bias) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert first[0].movedim(1, -1).is_contiguous()


def test_group_norm_of_a_large_mean():
    x = (torch.randn(2, 64, 40, 40, device="cuda") + 1e4).contiguous(
        memory_format=torch.channels_last
    )
    weight, bias = draw(2, 64, dtype=torch.float32).unbind(0)
    with torch.no_grad():
        got = group_norm.group_norm_silu(x, 32, weight, bias, silu=False)
        exact = F.group_norm(x.double(), 32, weight.double(), bias.double())
    assert (got.double() - exact).abs().max().item() < 2e-2


def test_group_norm_refuses():
    x = draw(2, 6, 8, dtype=torch.bfloat16)
    gains = draw(2, 8, dtype=torch.bfloat16).unbind(0)
    op = torch.ops.syncflow.group_norm_silu
    for wrong, groups, width in ((x, 3, 0), (x[0], 2, 0), (x, 2, 3), (x, 2, 8)):
        with pytest.raises(ValueError):
            op(wrong, None, None, *gains, groups, 1e-6, True, False, 0, width)
    with pytest.raises(ValueError):
        op(x, x[:1], None, *gains, 2, 1e-6, True, False, 0, 0)


def test_float64_uses_the_reference():
    x = torch.randn(2, 3, 8, device="cuda", dtype=torch.float64)
    assert adaln.adaln(x, x[:, 0], x[:, 1]).dtype == torch.float64


def test_beyond_two_to_the_31():
    free, _ = torch.cuda.mem_get_info()
    rows, C = (1 << 31) // 1152 + 1000, 1152
    if free < 4 * rows * C * 2:
        pytest.skip("too little memory on the device")
    x = torch.zeros(1, rows, C, device="cuda", dtype=torch.bfloat16)
    x[0, -5:] = draw(5, C, dtype=torch.bfloat16)
    shift, scale = draw(2, 1, C, dtype=torch.bfloat16).unbind(0)
    out = adaln.adaln(x, shift, scale)
    assert torch.equal(out[:, -5:], adaln.adaln(x[:, -5:].clone(), shift, scale))
    out = gelu.bias_gelu(x, shift[0])
    assert torch.equal(out[:, -5:], gelu.bias_gelu(x[:, -5:].clone(), shift[0]))
