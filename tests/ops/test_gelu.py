"""Bias and GELU: kernel and twin against float64, gradients, registration."""

import pytest
import torch
from torch import Tensor

from syncflow import ops
from syncflow.ops import native
from syncflow.ops.gelu import bias_gelu
from tests.ops.exactness import (
    assert_as_good_as_eager,
    assert_same_bits_for_any_number_of_threads,
)

needs_kernels = pytest.mark.skipif(not native.LOADED, reason="the extension is not built")


def inputs(*shape: int, dtype=torch.float32, bias: bool = True) -> list[Tensor | None]:
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(*shape[:-1], shape[-1] + 3, generator=generator)
    x = 3 * wide[..., : shape[-1]]
    return [x.to(dtype), torch.randn(shape[-1], generator=generator).to(dtype) if bias else None]


@needs_kernels
@pytest.mark.parametrize("shape", [(1, 1), (3, 97), (2, 5, 130), (40, 1134), (4097, 3), (9000,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [True, False])
def test_kernel_is_as_exact_as_eager(shape, dtype, bias):
    assert_as_good_as_eager(bias_gelu, inputs(*shape, dtype=dtype, bias=bias))


@needs_kernels
def test_ends_of_the_line():
    """Far left is 0, far right the number itself, with slopes 0 and 1; what is nan stays so."""
    inf, nan = torch.inf, torch.nan
    x = [-inf, -3e38, -1e20, -1e13, -88.0, -20.0, 0.0, 20.0, 88.0, 1e13, 1e20, 3e38, inf, nan]
    x = torch.tensor(x).requires_grad_()
    out = bias_gelu(x)
    expected = torch.tensor([0, 0, 0, 0, 0, 0, 0, 20, 88, 1e13, 1e20, 3e38, inf, nan])
    torch.testing.assert_close(out, expected, equal_nan=True)
    (grad,) = torch.autograd.grad(out[:-1].sum(), x)
    torch.testing.assert_close(grad[:-1], torch.tensor([0.0] * 6 + [0.5] + [1.0] * 6))


@needs_kernels
def test_what_works_in_place_tells_autograd():
    w = torch.full((2, 3), 2.0, requires_grad=True)
    h = w * 2
    y = h * h  # saves h
    with torch.no_grad():
        bias_gelu(h.detach())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_no_channels():
    assert bias_gelu(torch.ones(3, 0)).shape == (3, 0)


@needs_kernels
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_against_differences(bias):
    leaves = [None if t is None else t.double().requires_grad_() for t in inputs(4, 9, bias=bias)]
    assert torch.autograd.gradcheck(bias_gelu, leaves)


@needs_kernels
@pytest.mark.parametrize("bias", [True, False])
def test_registration(bias):
    tensors = [None if t is None else t.requires_grad_() for t in inputs(4, 9, bias=bias)]
    torch.library.opcheck(torch.ops.syncflow.bias_gelu.default, tuple(tensors))
    detached = [None if t is None else t.detach().contiguous() for t in tensors]
    torch.library.opcheck(torch.ops.syncflow.bias_gelu_.default, tuple(detached))


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_is_reused_only_where_nothing_needs_a_gradient(dtype):
    x, bias = (t.contiguous() for t in inputs(5, 97, dtype=dtype))
    kept = x.clone().requires_grad_()
    out = bias_gelu(kept, bias)
    assert torch.equal(kept, x) and out.data_ptr() != kept.data_ptr()
    given = x.clone()
    assert torch.equal(bias_gelu(given, bias), out)
    assert torch.equal(bias_gelu(x.T.contiguous().T, bias), out)
    if not ops.reference_only():
        assert torch.equal(given, out)


@needs_kernels
def test_same_bits_for_any_number_of_threads():
    assert_same_bits_for_any_number_of_threads(bias_gelu, inputs(300, 257))


def test_wrong_bias_is_named():
    with pytest.raises(ValueError, match=r"bias of shape \(5,\) must be \[6\]"):
        bias_gelu(torch.zeros(2, 6), torch.zeros(5))
