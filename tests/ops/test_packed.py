"""Operators on packed projections: temporal attention, norm and rotation alone, self-attention."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from syncflow import ops
from syncflow.ops import native
from syncflow.ops.qk_norm_rope import qk_norm_rope, qk_norm_rope_reference
from syncflow.ops.rotation import frame_rotation
from syncflow.ops.self_attention import self_attention
from syncflow.ops.temporal_attention import temporal_attention
from tests.ops.exactness import (
    assert_as_good_as_eager,
    assert_same_bits_for_any_number_of_threads,
)

needs_kernels = pytest.mark.skipif(not native.LOADED, reason="the extension is not built")

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def packed(*shape: int, dtype=torch.float32, seed: int = 0) -> Tensor:
    """[..., 3, H, D] with strides: every token is the head of a wider row."""
    generator = torch.Generator().manual_seed(seed)
    *tokens, three, H, D = shape
    wide = torch.randn(*tokens, three * H * D + 5, generator=generator).to(dtype)
    return wide[..., : three * H * D].unflatten(-1, (three, H, D))


def gains(D: int, dtype=torch.float32) -> list[Tensor]:
    return [*torch.rand(2, D, generator=torch.Generator().manual_seed(1)).add(0.5).to(dtype)]


def rotation(qkv: Tensor) -> Tensor:
    dtype = torch.float64 if qkv.dtype == torch.float64 else torch.float32
    return frame_rotation(qkv.shape[1], qkv.shape[-1], 100.0, qkv.device, dtype)


def rotating(function, interleaved: bool):
    """`function` of (qkv, q_weight, k_weight), with every token at a place of its own."""

    def call(qkv, q_weight, k_weight):
        return function(qkv.clone(), q_weight, k_weight, rotation(qkv), interleaved)

    return call


@needs_kernels
def test_nothing_is_read_beyond_a_gradient_of_another_dtype():
    """The gradient ends where a page does, and what follows is no memory."""
    code = """
import ctypes, mmap, torch
from syncflow.ops import native
page = mmap.PAGESIZE
memory = mmap.mmap(-1, 2 * page)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
libc = ctypes.CDLL(None)
assert libc.mprotect(ctypes.c_void_p(address + page), ctypes.c_size_t(page), 0) == 0
shape = (1, 1, 3, 1, 10)
grad = torch.frombuffer(memory, dtype=torch.float32, count=30, offset=page - 120).view(shape)
qkv = torch.randn(shape).bfloat16()
got = torch.ops.syncflow.qk_norm_rope_backward(grad, qkv, None, None, None, True, 1e-6)[0]
assert torch.equal(got, torch.zeros(shape).bfloat16())
print("read")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["read"], (done.returncode, done.stderr[-2000:])


@needs_kernels
def test_what_works_in_place_tells_autograd():
    w = torch.full((1, 2, 3, 1, 4), 2.0, requires_grad=True)
    h = w * 2
    y = h * h  # saves h
    with torch.no_grad():
        qk_norm_rope(h.detach(), *gains(4))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


# (B, T, S, H, D): lengths of one and more vectors, head dims that are not whole vectors.
TEMPORAL = [
    (1, 1, 1, 1, 2),
    (2, 8, 3, 2, 32),
    (1, 5, 2, 3, 72),
    (2, 16, 2, 2, 64),
    (1, 20, 3, 1, 96),
    (1, 27, 1, 2, 10),
    (1, 32, 2, 1, 128),
    (1, 48, 1, 1, 130),
    (1, 97, 1, 1, 34),
    (1, 130, 1, 1, 32),
    (1, 8, 1134, 1, 2),
]


@needs_kernels
@pytest.mark.parametrize("shape", TEMPORAL)
@pytest.mark.parametrize("dtype", DTYPES)
def test_temporal_attention_is_as_exact_as_eager(shape, dtype):
    B, T, S, H, D = shape
    qkv = packed(B, T, S, 3, H, D, dtype=dtype)
    assert_as_good_as_eager(temporal_attention, [qkv, *gains(D)])


@needs_kernels
@pytest.mark.parametrize("given", [(True, False), (False, True), (False, False)])
def test_temporal_attention_without_a_norm(given):
    weights = [w if g else None for w, g in zip(gains(10), given, strict=True)]
    assert_as_good_as_eager(temporal_attention, [packed(2, 6, 3, 3, 2, 10), *weights])


@needs_kernels
@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("function", [qk_norm_rope, self_attention])
@pytest.mark.parametrize("N", [1, 7, 97, 130])
@pytest.mark.parametrize("D", [4, 34, 72])
def test_norm_and_rotation_are_as_exact_as_eager(function, interleaved, N, D):
    call = rotating(function, interleaved)
    assert_as_good_as_eager(call, [packed(2, N, 3, 2, D), *gains(D)])


@needs_kernels
@pytest.mark.parametrize("function", [qk_norm_rope, self_attention])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("rotated", [True, False])
def test_norm_and_rotation_in_other_dtypes(function, dtype, weighted, rotated):
    weights = gains(24, dtype) if weighted else [None, None]
    tensors = [packed(2, 1134 // 9, 3, 2, 24, dtype=dtype), *weights]
    call = rotating(function, False) if rotated else lambda q, *w: function(q.clone(), *w)
    assert_as_good_as_eager(call, tensors)


@needs_kernels
@pytest.mark.parametrize("function", [temporal_attention, rotating(qk_norm_rope, False)])
def test_gradients_against_differences(function):
    shape = (2, 3, 2, 3, 2, 6) if function is temporal_attention else (2, 3, 3, 2, 6)
    leaves = [t.double().requires_grad_() for t in (packed(*shape), *gains(6))]
    assert torch.autograd.gradcheck(function, leaves)


@needs_kernels
@pytest.mark.parametrize("weighted", [True, False])
def test_registration(weighted):
    """opcheck: schema, shape function, autograd registration, and tracing with gradients."""
    weights = [w.requires_grad_() for w in gains(6)] if weighted else [None, None]
    five, six = packed(2, 3, 3, 2, 6), packed(2, 3, 4, 3, 2, 6)
    table = rotation(five) if weighted else None
    rest = (*weights, table, True, 1e-6)
    library = torch.ops.syncflow
    torch.library.opcheck(library.temporal_attention.default, (six.requires_grad_(), *rest))
    torch.library.opcheck(library.qk_norm_rope.default, (five.requires_grad_(), *rest))
    rest = (*(None if w is None else w.detach() for w in weights), table, True, 1e-6)
    torch.library.opcheck(library.qk_norm_rope_.default, (five.detach().clone(), *rest))


@needs_kernels
@pytest.mark.parametrize(
    ("function", "shape"),
    [(temporal_attention, (2, 9, 70, 3, 2, 34)), (rotating(qk_norm_rope, True), (2, 97, 3, 2, 34))],
)
def test_same_bits_for_any_number_of_threads(function, shape):
    assert_same_bits_for_any_number_of_threads(function, [packed(*shape), *gains(34)])


@needs_kernels
def test_compiles_to_one_graph():
    def block(qkv, q_weight, k_weight):
        out = temporal_attention(qkv, q_weight, k_weight)
        return out.square().sum() + self_attention(qkv[:, :, 0].clone(), q_weight, k_weight).sum()

    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    answers = []
    for f in (block, compiled):
        leaves = [t.clone().requires_grad_() for t in (packed(2, 5, 3, 3, 2, 8), *gains(8))]
        answers.append(torch.autograd.grad(f(*leaves), leaves))
    torch.testing.assert_close(*answers)


@needs_kernels
def test_memory_is_reused_only_where_nothing_needs_a_gradient():
    qkv, weights = packed(2, 5, 3, 2, 8), gains(8)
    expected = qk_norm_rope_reference(qkv, *weights, rotation(qkv))
    kept = qkv.clone().requires_grad_()
    with_gradient = qk_norm_rope(kept, *weights, rotation(qkv))
    assert torch.equal(kept, qkv) and with_gradient.data_ptr() != kept.data_ptr()
    given = qkv.clone()
    without = qk_norm_rope(given, *weights, rotation(qkv))
    if not ops.reference_only():
        assert without.data_ptr() == given.data_ptr()
    torch.testing.assert_close(without, expected)
    torch.testing.assert_close(with_gradient, expected)


def test_empty_batches():
    assert temporal_attention(torch.zeros(0, 4, 2, 3, 2, 8), *gains(8)).shape == (0, 4, 2, 16)
    assert self_attention(torch.zeros(0, 4, 3, 2, 8), *gains(8)).shape == (0, 4, 16)


def test_large_values_do_not_overflow():
    """A softmax without the maximum taken off, or a norm in float16, would give inf or nan."""
    for dtype in (torch.float32, torch.float16):
        qkv = (1e4 * packed(1, 6, 2, 3, 1, 8)).to(dtype)
        for weights in (gains(8), (None, None)):
            out = temporal_attention(qkv, *weights)
            assert out.isfinite().all() and out.abs().max() <= qkv.abs().max()


def test_wrong_shapes_are_named():
    qkv = torch.zeros(2, 4, 3, 2, 6)
    with pytest.raises(ValueError, match=r"rotation of shape \(5, 3, 2\) must be \(4, 3, 2\)"):
        self_attention(qkv, None, None, torch.zeros(5, 3, 2))
    with pytest.raises(ValueError, match=r"k_weight of shape \(5,\) must be \[6\]"):
        qk_norm_rope(qkv, None, torch.zeros(5))
    with pytest.raises(ValueError, match="qkv must be"):
        self_attention(qkv[:, :, :2])


@needs_kernels
def test_checks_below_python():
    """The dispatcher can be called directly: the C++ checks must hold by themselves."""
    qkv, library = torch.zeros(2, 4, 3, 2, 6), torch.ops.syncflow
    with pytest.raises(ValueError, match="k_weight has shape"):
        library.qk_norm_rope(qkv, None, torch.zeros(5), None, True, 1e-6)
    with pytest.raises(ValueError, match="rotation has shape"):
        library.temporal_attention(qkv[:, :, None], None, None, torch.zeros(4, 2, 2), True, 1e-6)
    with pytest.raises(ValueError, match="qkv has strides"):
        library.qk_norm_rope_(
            qkv.transpose(-1, -2).contiguous().transpose(-1, -2), *[None] * 3, True, 1e-6
        )
    with pytest.raises(ValueError, match="grad has shape"):
        library.temporal_attention_backward(
            torch.zeros(2, 4, 1, 6), qkv[:, :, None], None, None, None, True, 1e-6
        )
