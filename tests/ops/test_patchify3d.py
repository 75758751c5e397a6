"""Latents to tokens and back, against a Conv3d and against each other."""

import pytest
import torch
import torch.nn.functional as F

from syncflow import ops
from syncflow.ops import native
from syncflow.ops.patchify3d import (
    patchify3d,
    patchify3d_reference,
    unpatchify3d,
    unpatchify3d_reference,
)
from tests.ops.exactness import (
    assert_as_good_as_eager,
    assert_same_bits_for_any_number_of_threads,
)

needs_kernels = pytest.mark.skipif(not native.LOADED, reason="the extension is not built")

# (latents [B, Z, T, H, W], patch, C)
SHAPES = [
    ((2, 4, 3, 6, 8), (1, 2, 2), 48),
    ((1, 3, 5, 7, 9), (2, 2, 3), 97),
    ((2, 8, 2, 4, 4), (1, 1, 1), 130),
    ((1, 1, 1, 1, 1), (1, 2, 2), 1),
]


def inputs(shape, patch, C, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    Z, S = shape[1], -(-shape[3] // patch[1]) * -(-shape[4] // patch[2])
    sizes = [(*shape[:4], shape[4] + 1), (C, Z, *patch), (C,), (S, C)]
    x, weight, bias, positions = (torch.randn(s, generator=generator).to(dtype) for s in sizes)
    return [x[..., :-1], weight, bias, positions]


def kernel(x, weight, bias=None, positions=None):
    """The compiled op also where `patchify3d` would take its twin."""
    compiled = native.LOADED and not ops.reference_only()
    function = torch.ops.syncflow.patchify3d if compiled else patchify3d_reference
    return function(x, weight, bias, positions)


@pytest.mark.parametrize("function", [patchify3d, patchify3d_reference])
@pytest.mark.parametrize(("shape", "patch", "C"), SHAPES)
def test_is_a_convolution(function, shape, patch, C):
    x, weight, bias, positions = inputs(shape, patch, C, torch.float64)
    ends = [n for k, p in zip(shape[:1:-1], patch[::-1], strict=True) for n in (0, -k % p)]
    expected = F.conv3d(F.pad(x, ends), weight, bias, stride=patch).flatten(3).permute(0, 2, 3, 1)
    torch.testing.assert_close(function(x, weight, bias, positions), expected + positions)
    torch.testing.assert_close(function(x, weight), expected - bias)


@needs_kernels
@pytest.mark.parametrize(("shape", "patch", "C"), SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_kernel_is_as_exact_as_eager(shape, patch, C, dtype):
    *given, positions = inputs(shape, patch, C, dtype)
    # The twin adds positions of its own dtype; as a constant it is no input here.
    assert_as_good_as_eager(lambda *t: kernel(*t, positions.to(t[0].dtype)), given)


@pytest.mark.parametrize("function", [unpatchify3d, unpatchify3d_reference])
@pytest.mark.parametrize(("shape", "patch", "C"), SHAPES)
@pytest.mark.parametrize("spare", [0, 3])
def test_back_again(function, shape, patch, C, spare):
    """Patches laid out by a unit weight and put back are the latents, with a gradient of ones."""
    B, Z, T, H, W = shape
    K = Z * patch[0] * patch[1] * patch[2]
    # Channels last within the patch, and `spare` more that are left out.
    x = torch.randn(shape)
    tokens = patchify3d_reference(x, torch.eye(K).view(K, Z, *patch))
    tokens = F.pad(tokens.unflatten(-1, (Z, -1)).transpose(-1, -2), (0, spare)).flatten(-2)
    tokens.requires_grad_()
    out = function(tokens, patch, Z, (T, H, W))
    assert torch.equal(out, x)
    (grad,) = torch.autograd.grad(out, tokens, torch.ones_like(out))
    assert grad.sum() == x.numel() and set(grad.unique().tolist()) <= {0.0, 1.0}
    assert function(tokens.bfloat16(), patch, Z, (T, H, W)).dtype == torch.float32


@needs_kernels
def test_gradients_and_registration():
    given = [t.double().requires_grad_() for t in inputs((1, 1, 3, 3, 3), (2, 2, 2), 3)[:3]]
    assert torch.autograd.gradcheck(kernel, given)
    torch.library.opcheck(
        torch.ops.syncflow.patchify3d.default,
        (*(t.detach().float().requires_grad_() for t in given), None),
    )
    tokens = torch.randn(1, 3, 6, 4 * 5, requires_grad=True)
    arguments = (tokens, [1, 2, 2], 4, [3, 3, 5])
    torch.library.opcheck(torch.ops.syncflow.unpatchify3d.default, arguments)
    assert torch.autograd.gradcheck(
        lambda t: torch.ops.syncflow.unpatchify3d(t, (1, 2, 2), 4, (3, 3, 5)),
        tokens.detach().double().requires_grad_(),
    )


@needs_kernels
def test_same_bits_for_any_number_of_threads():
    given = inputs((4, 8, 8, 16, 16), (1, 2, 2), 100)[:3]
    assert_same_bits_for_any_number_of_threads(kernel, given)


def test_wrong_shapes_are_named():
    x, weight = torch.zeros(1, 4, 2, 4, 4), torch.zeros(8, 3, 1, 2, 2)
    with pytest.raises(ValueError, match=r"x \(1, 4, 2, 4, 4\) and weight \(8, 3, 1, 2, 2\)"):
        patchify3d(x, weight)
    with pytest.raises(ValueError, match=r"positions of shape \(5, 8\) must be \[4, 8\]"):
        patchify3d(x[:, :3], weight, None, torch.zeros(5, 8))
    tokens = torch.zeros(1, 2, 4, 16)
    for patch, channels, size, what in [
        ((1, 2, 2), 5, (2, 4, 4), "must end in 4 times at least 5 channels"),
        ((1, 2, 2), -1, (2, 4, 4), "channels -1 not negative"),
        ((0, 2, 2), 4, (2, 4, 4), r"patch \(0, 2, 2\) must be positive"),
        ((1, 2, 2), 4, (2, 4, 5), r"must be \[B, 2, 6, K\]"),
    ]:
        with pytest.raises(ValueError, match=what):
            unpatchify3d(tokens, patch, channels, size)
    if native.LOADED:
        with pytest.raises(ValueError, match="tokens has shape"):
            torch.ops.syncflow.unpatchify3d(torch.zeros(1, 2, 4, 8), [1, 2, 2], 4, [2, 4, 4])


@needs_kernels
@pytest.mark.parametrize(("shape", "patch", "C"), SHAPES)
def test_kernel_puts_tokens_back_where_the_twin_does(shape, patch, C):
    T, S = patchify3d(torch.zeros(shape), torch.zeros(1, shape[1], *patch)).shape[1:3]
    K = shape[1] * patch[0] * patch[1] * patch[2]
    given = (torch.randn(shape[0], T, S, K), list(patch), shape[1], list(shape[2:]))
    assert torch.equal(torch.ops.syncflow.unpatchify3d(*given), unpatchify3d_reference(*given))


def test_sizes_are_known_without_memory():
    x, weight = torch.empty(2, 4, 3, 8, 8, device="meta"), torch.empty(6, 4, 1, 2, 2, device="meta")
    assert patchify3d(x, weight).shape == (2, 3, 16, 6)
