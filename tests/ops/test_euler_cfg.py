"""A sampler's step: guidance and update against float64."""

import pytest
import torch

from syncflow import ops
from syncflow.ops import native
from syncflow.ops.euler_cfg import euler_cfg

needs_kernels = pytest.mark.skipif(not native.LOADED, reason="the extension is not built")


@needs_kernels
@pytest.mark.parametrize("shape", [(1,), (97,), (3, 130), (9, 1134), (0, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("guided", [True, False])
def test_kernel_is_as_exact_as_eager(shape, dtype, guided):
    wide = torch.randn(3, *shape[:-1], shape[-1] + 1, generator=torch.Generator().manual_seed(0))
    x, conditional, null = wide[..., :-1].to(dtype)
    null = null if guided else None
    given = (x, conditional, null, 6.0, 0.02)
    double = [t.double() if torch.is_tensor(t) else t for t in given]
    kernel = euler_cfg(*given)
    with ops.reference_ops():
        eager, exact = euler_cfg(*given), euler_cfg(*double)
    assert kernel.dtype == dtype and kernel.shape == shape
    if kernel.numel():
        error, allowed = ((t.double() - exact).abs().max().item() for t in (kernel, eager))
        assert error <= 2 * allowed + torch.finfo(dtype).eps * max(1.0, exact.abs().max().item())


def test_by_hand():
    x, one, zero = torch.full((3,), 10.0), torch.ones(3), torch.zeros(3)
    assert euler_cfg(x, 2 * one, one, 3.0, 0.5).tolist() == [12.0] * 3
    assert euler_cfg(x, 2 * one, None, 3.0, 0.5).tolist() == [11.0] * 3
    assert euler_cfg(x, one, zero, 1.0, 0.0).tolist() == [10.0] * 3


@needs_kernels
def test_registration():
    x, conditional, null = torch.randn(3, 2, 9)
    for other in (null, None):
        arguments = (x, conditional, other, 2.0, 0.1)
        torch.library.opcheck(torch.ops.syncflow.euler_cfg.default, arguments)


def test_gradient():
    x, conditional, null = torch.randn(3, 2, 9, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *given: euler_cfg(*given, 2.0, 0.1), (x, conditional, null)
    )


def test_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"null of shape \(2,\) must be \(3,\)"):
        euler_cfg(torch.zeros(3), torch.zeros(3), torch.zeros(2), 1.0, 0.1)
