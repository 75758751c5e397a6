"""Attention to another sequence: draws of one context, masked keys, a key of a row's own."""

import pytest
import torch
from torch import Tensor

from syncflow.ops import native
from syncflow.ops.cross_attention import cross_attention, cross_attention_reference
from syncflow.ops.rotation import frame_rotation
from tests.ops.exactness import (
    assert_as_good_as_eager,
    assert_same_bits_for_any_number_of_threads,
)

needs_kernels = pytest.mark.skipif(not native.LOADED, reason="the extension is not built")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def heads(*shape: int, dtype=torch.float32, seed: int = 0) -> Tensor:
    """[B, N, H, D], every token the head of a wider row."""
    generator = torch.Generator().manual_seed(seed)
    B, N, H, D = shape
    return torch.randn(B, N, H * D + 3, generator=generator).to(dtype)[..., : H * D].view(shape)


def inputs(R, B, N, M, H, D, dtype=torch.float32) -> list[Tensor]:
    """q, k, v, and a key and a value of each row's own."""
    shapes = [(R, N, H, D), (B, M, H, D), (B, M, H, D), (R, 1, H, D), (R, 1, H, D)]
    q, *rest = (heads(*shape, dtype=dtype, seed=i) for i, shape in enumerate(shapes))
    return [q, *(t.transpose(1, 2) for t in rest)]


def masked(B: int, M: int) -> Tensor:
    """Two thirds may be attended, and one context's keys all or, M being 1, none."""
    mask = torch.rand(B, M, generator=torch.Generator().manual_seed(9)) < 0.67
    mask[-1] = M > 1
    return torch.where(mask, 0.0, torch.finfo(torch.float32).min)


def call(term=None, rotated=False):
    def function(q, k, v, own_k=None, own_v=None):
        own = None if own_k is None else (own_k, own_v)
        table = None
        if rotated:
            wide = torch.float64 if q.dtype == torch.float64 else torch.float32
            table = frame_rotation(q.shape[1], q.shape[3], 100.0, q.device, wide)
        # A narrower type's least number is its own: float32's would be -inf there.
        lowest = max(torch.finfo(q.dtype).min, torch.finfo(torch.float32).min)
        given = None if term is None else term.clamp(lowest).to(q.dtype)
        return cross_attention(q, (k, v), given, table, own)

    return function


# (R, B, N, M, H, D)
SHAPES = [
    (1, 1, 1, 1, 1, 2),
    (2, 2, 128, 65, 4, 32),
    (2, 1, 100, 129, 2, 32),
    (6, 2, 33, 7, 3, 10),
    (2, 2, 5, 300, 2, 72),
    (1, 1, 97, 130, 1, 34),
    (1, 1, 1134, 3, 1, 8),
]


@needs_kernels
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("own", [True, False])
def test_as_exact_as_eager(shape, dtype, own):
    tensors = inputs(*shape, dtype=dtype)[: 5 if own else 3]
    assert_as_good_as_eager(call(), tensors)
    assert_as_good_as_eager(call(masked(shape[1], shape[3]), rotated=True), tensors)


def by_hand(q, k, v, term, own) -> Tensor:
    """One row of one head at a time, in float64."""
    R, N, H, D = q.shape
    out = torch.empty(R, N, H, D, dtype=torch.float64)
    for r in range(R):
        b = r // (R // len(k))
        for h in range(H):
            pairs = zip((k, v), own, strict=True)
            keys, values = (torch.cat([x[b, h], o[r, h]]).double() for x, o in pairs)
            scores = q[r, :, h].double() @ keys.T / D**0.5
            scores[:, :-1] += term[b].double()
            out[r, :, h] = scores.softmax(-1) @ values
    return out.flatten(2)


@pytest.mark.parametrize("function", [cross_attention, cross_attention_reference])
def test_draws_masks_and_own_keys_by_hand(function):
    q, k, v, *own = inputs(6, 3, 9, 5, 2, 8)
    term = torch.randn(3, 5, generator=torch.Generator().manual_seed(3))
    term[0, 1:] = torch.finfo(torch.float32).min
    term[1] = torch.finfo(torch.float32).min  # nothing but the row's own key
    out = function(q, (k, v), term, None, tuple(own))
    torch.testing.assert_close(out.double(), by_hand(q, k, v, term, own), rtol=0, atol=1e-5)


@needs_kernels
def test_a_term_that_is_nan_makes_its_rows_nan():
    q, k, v, *_ = inputs(2, 2, 4, 6, 1, 8)
    term = torch.zeros(2, 6)
    term[0, 2] = torch.nan
    out = cross_attention(q, (k, v), term)
    assert out[0].isnan().all() and out[1].isfinite().all()


@needs_kernels
def test_masked_keys_are_not_read():
    q, k, v, *_ = inputs(2, 2, 4, 6, 1, 8)
    term = masked(1, 6).expand(2, -1).clone()
    term[:, 3] = torch.finfo(torch.float32).min
    expected = cross_attention(q, (k, v), term)
    k[:, :, 3], v[:, :, 3] = torch.nan, torch.inf
    assert torch.equal(cross_attention(q, (k, v), term), expected)


@needs_kernels
def test_gradients_against_differences():
    leaves = [t.double().requires_grad_() for t in inputs(4, 2, 3, 4, 2, 6)]
    term = masked(2, 4).double()
    assert torch.autograd.gradcheck(call(term, rotated=True), leaves)
    assert torch.autograd.gradcheck(call(), leaves[:3])


@needs_kernels
@pytest.mark.parametrize("own", [True, False])
def test_registration(own):
    """opcheck: schema, shape function, autograd registration, and tracing with gradients."""
    tensors = [t.requires_grad_() for t in inputs(4, 2, 3, 4, 2, 6)]
    rest = (masked(2, 4), frame_rotation(3, 6, 100.0, tensors[0].device, torch.float32))
    given = (*tensors, *rest) if own else (*tensors[:3], *[None] * 4)
    torch.library.opcheck(torch.ops.syncflow.cross_attention.default, given)


@needs_kernels
def test_same_bits_for_any_number_of_threads():
    term = masked(2, 70)
    tensors = inputs(4, 2, 300, 70, 2, 34)
    assert_same_bits_for_any_number_of_threads(call(term, rotated=True), tensors)


@needs_kernels
def test_compiles_to_one_graph():
    compiled = torch.compile(call(masked(2, 4), True), fullgraph=True, backend="aot_eager")
    answers = []
    for f in (call(masked(2, 4), True), compiled):
        leaves = [t.clone().requires_grad_() for t in inputs(4, 2, 3, 4, 2, 6)]
        answers.append(torch.autograd.grad(f(*leaves).square().sum(), leaves))
    torch.testing.assert_close(*answers)


@pytest.mark.parametrize("function", [cross_attention, cross_attention_reference])
def test_wrong_shapes_are_named(function):
    q, k, v, *own = inputs(4, 2, 3, 5, 2, 6)
    with pytest.raises(ValueError, match="4 rows of queries cannot be shared out among 3"):
        function(q, (k[[0, 1, 1]], v[[0, 1, 1]]))
    with pytest.raises(ValueError, match=r"v of shape \(2, 2, 4, 6\) must be \(2, 2, 5, 6\)"):
        function(q, (k, v[:, :, :4]))
    with pytest.raises(ValueError, match=r"own k of shape \(2, 2, 1, 6\) must be \(4, 2, 1, 6\)"):
        function(q, (k, v), own=(own[0][:2], own[1]))
    with pytest.raises(ValueError, match=r"rotation of shape \(5, 3, 2\) must be \(3, 3, 2\)"):
        function(q, (k, v), None, torch.zeros(5, 3, 2))


@needs_kernels
def test_checks_below_python():
    """The dispatcher can be called directly: the C++ checks must hold by themselves."""
    q, k, v, *own = inputs(4, 2, 3, 5, 2, 6)
    library = torch.ops.syncflow
    with pytest.raises(ValueError, match="v has shape"):
        library.cross_attention(q, k, v[:, :, :4], None, None, None, None)
    with pytest.raises(ValueError, match="own_k and own_v must be given together"):
        library.cross_attention(q, k, v, own[0], None, None, None)
    with pytest.raises(ValueError, match="there is no key"):
        library.cross_attention(q, k[:, :, :0], v[:, :, :0], None, None, None, None)
    with pytest.raises(ValueError, match="grad has shape"):
        library.cross_attention_backward(torch.zeros(4, 3, 2), q, k, v, None, None, None, None)
