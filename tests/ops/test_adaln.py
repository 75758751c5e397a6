"""The adaLN family: kernel and twin against float64, gradients, registration, shapes, switches."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from syncflow import ops
from syncflow.ops import adaln as family
from syncflow.ops import native
from tests.ops.exactness import (
    assert_as_good_as_eager,
    assert_same_bits_for_any_number_of_threads,
    results,
)

needs_kernels = pytest.mark.skipif(not native.LOADED, reason="the extension is not built")

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
OPS = ["adaln", "gate_residual", "gate_residual_adaln", "ungated", "residual_layernorm"]


def function(op: str):
    return getattr(family, "gate_residual_adaln" if op == "ungated" else op)


def inputs(op: str, shape: tuple[int, ...], modulation: tuple[int, ...], dtype, seed=0):
    """Tensors in the op's order; x and y are slices of wider ones, modulations rows of a table."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    channels = shape[-1]
    x, y = (draw(*shape[:-1], channels + 3)[..., :channels].to(dtype) for _ in range(2))
    x, y = 2 * x + 0.5, y - 1
    table = draw(*modulation[:-1], 6, channels).mul(0.5).to(dtype)
    shift, scale, gate = (table[..., i, :] for i in range(3))
    weight, bias = draw(2, channels).to(dtype)
    return {
        "adaln": [x, shift, scale],
        "gate_residual": [x, y, gate],
        "gate_residual_adaln": [x, y, gate, shift, scale],
        "ungated": [x, y, None, shift, scale],
        "residual_layernorm": [x, y, weight, bias],
    }[op]


def run(op: str, tensors: list[Tensor | None]) -> list[Tensor]:
    return results(function(op), tensors)


SHAPES = [
    ((2, 7, 64), (2, 64)),
    ((3, 5, 1), (3, 1)),
    ((2, 3, 5, 97), (2, 3, 97)),
    ((2, 3, 2, 130), (2, 1, 130)),
    ((2, 4, 3, 130), (1, 4, 130)),
    ((1, 3, 1134), (1, 1134)),
    ((2, 300, 33), (2, 33)),
    ((2, 5, 48), (2, 5, 48)),
    ((4, 48), (48,)),
    ((0, 5, 48), (0, 48)),
]


@needs_kernels
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(("shape", "modulation"), SHAPES[:-1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_kernel_is_as_exact_as_eager(op, shape, modulation, dtype):
    assert_as_good_as_eager(function(op), inputs(op, shape, modulation, dtype))


@needs_kernels
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("channels", [1024, 1030])
def test_rows_past_the_caches_are_the_same(op, channels):
    """Results so large that they are stored past the caches, against their rows in small calls."""
    tensors = inputs(op, (1, 4200, channels), (1, channels), torch.float32)
    with torch.no_grad():
        large = function(op)(*tensors)
        tokens = [t.ndim == 3 if t is not None else False for t in tensors]
        pieces = [
            function(op)(*[
                t[:, first : first + 600] if split else t
                for t, split in zip(tensors, tokens, strict=True)
            ])
            for first in range(0, 4200, 600)
        ]  # fmt: skip
    if torch.is_tensor(large):
        large, pieces = (large,), [(piece,) for piece in pieces]
    assert sum(t.nbytes for t in large) > 2**24 > sum(t.nbytes for t in pieces[0])
    for whole, parts in zip(large, zip(*pieces, strict=True), strict=True):
        assert torch.equal(whole, torch.cat(parts, dim=1))


@needs_kernels
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(
    "dtypes", [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)]
)
def test_mixed_dtypes(op, dtypes):
    tensors = inputs(op, (2, 3, 5, 40), (2, 3, 40), torch.float32)
    token, other = dtypes
    tensors = [t if t is None else t.to(token if i == 0 else other) for i, t in enumerate(tensors)]
    assert_as_good_as_eager(function(op), tensors)
    assert run(op, tensors)[0].dtype == token


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_empty_batch(op, dtype):
    results = run(op, inputs(op, *SHAPES[-1], dtype))
    assert results[0].shape == (0, 5, 48)


@needs_kernels
@pytest.mark.parametrize("op", OPS)
def test_gradients_against_differences(op):
    tensors = inputs(op, (2, 2, 3, 9), (2, 2, 9), torch.float64)
    leaves = [None if t is None else t.clone().requires_grad_() for t in tensors]
    assert torch.autograd.gradcheck(function(op), leaves)


@needs_kernels
@pytest.mark.parametrize("op", OPS)
def test_registration(op):
    """opcheck: schema, shape function, autograd registration, and tracing with gradients."""
    groups, tokens, channels = 2, 3, 20
    tensors = inputs(op, (groups, tokens, channels), (groups, channels), torch.float32)
    tensors = [None if t is None else t.clone().requires_grad_() for t in tensors]
    name = function(op).__name__
    extra = [] if name == "gate_residual" else [1e-6]
    torch.library.opcheck(getattr(torch.ops.syncflow, name).default, (*tensors, *extra))


@needs_kernels
def test_compiles_to_one_graph():
    x, y, gate, shift, scale = inputs(
        "gate_residual_adaln", (2, 3, 5, 24), (2, 3, 24), torch.float32
    )

    def block(x, y):
        x, h = family.gate_residual_adaln(x, y, gate, shift, scale)
        return family.residual_layernorm(x, h, scale[0, 0], shift[0, 0]).square().sum()

    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    results = []
    for f in (block, compiled):
        leaves = [t.clone().requires_grad_() for t in (x, y)]
        results.append(torch.autograd.grad(f(*leaves), leaves))
    torch.testing.assert_close(results[0], results[1])


@needs_kernels
@pytest.mark.parametrize("op", OPS)
def test_same_bits_for_any_number_of_threads(op):
    tensors = inputs(op, (2, 700, 65), (2, 65), torch.float32)
    assert_same_bits_for_any_number_of_threads(function(op), tensors)


@needs_kernels
def test_large_mean_keeps_its_digits():
    """A one-pass variance (mean of squares less square of mean) would lose everything here."""
    x = torch.randn(1, 4, 257, generator=torch.Generator().manual_seed(0)) + 3000
    zero = torch.zeros(1, 257)
    exact = family.adaln_reference(x.double(), zero.double(), zero.double())
    assert (family.adaln(x, zero, zero) - exact).abs().max() < 2e-3


@needs_kernels
def test_second_derivative_is_refused():
    x, shift, scale = inputs("adaln", (2, 3, 8), (2, 8), torch.float32)
    x = x.clone().requires_grad_()
    out = family.adaln(x, shift, scale)
    (grad,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        grad.sum().backward()


@needs_kernels
@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_other_instruction_sets_agree(capability, tmp_path):
    """The same results, to rounding, from the kernels that older machines would run."""
    code = (
        "import sys, torch; from tests.ops.test_adaln import *; "
        "torch.save([r for op in OPS for d in DTYPES "
        "for r in run(op, inputs(op, (2, 5, 131), (2, 131), d))], sys.argv[1]); "
        "print(native.status()['cpu_capability'], native.status()['active'])"
    )
    results = []
    for name in (capability, "native"):
        environment = {} if name == "native" else {"ATEN_CPU_CAPABILITY": name}
        path = tmp_path / f"{name}.pt"
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)],
            capture_output=True,
            text=True,
            env={**__import__("os").environ, **environment},
            check=True,
        )
        assert done.stdout.split()[1] == "True"
        if environment:
            assert done.stdout.split()[0].lower() in (capability, "no", "default")
        results.append(torch.load(path))
    for a, b in zip(*results, strict=True):
        tolerance = 8 * torch.finfo(a.dtype).eps
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * 8)


# Both paths


@pytest.mark.parametrize("reference", [False, True])
def test_autocast_keeps_the_dtype_of_x(reference):
    for dtype in (torch.float32, torch.bfloat16):
        x, y, gate, shift, scale = inputs("gate_residual_adaln", (2, 3, 16), (2, 16), dtype)
        with torch.autocast("cpu", torch.bfloat16):
            if reference:
                with ops.reference_ops():
                    results = family.gate_residual_adaln(x, y, gate, shift, scale)
            else:
                results = family.gate_residual_adaln(x, y, gate, shift, scale)
        assert [r.dtype for r in results] == [dtype, dtype]


def test_reference_in_closed_form():
    """A row of two opposite numbers norms to (-1, 1), whatever its mean."""
    x = torch.tensor([[[4.0, 6.0]]])
    shift, scale = torch.tensor([[10.0, 20.0]]), torch.tensor([[1.0, 2.0]])
    expected = torch.tensor([[[10 - 2.0, 20 + 3.0]]])
    torch.testing.assert_close(family.adaln_reference(x, shift, scale), expected)
    torch.testing.assert_close(family.adaln(x, shift, scale), expected)


@pytest.mark.parametrize("modulation", [(3, 8), (2, 2, 8), (2, 7), (2, 3, 5, 1, 8)])
def test_wrong_modulation_is_named(modulation):
    x, wrong = torch.zeros(2, 3, 5, 8), torch.zeros(modulation)
    right = torch.zeros(2, 8)
    with pytest.raises(ValueError, match=r"scale of shape .* does not modulate x"):
        family.adaln(x, right, wrong)


def test_modulation_with_more_axes_than_x_is_refused():
    m = torch.ones(3, 3, 3)
    with pytest.raises(ValueError, match=r"shift of shape \(3, 3, 3\) does not modulate x"):
        family.adaln(torch.ones(3, 3), m, m)


def test_other_wrong_shapes_are_named():
    x = torch.zeros(2, 3, 8)
    with pytest.raises(ValueError, match="must have one shape"):
        family.gate_residual(x, torch.zeros(2, 4, 8), torch.zeros(2, 8))
    with pytest.raises(ValueError, match=r"weight of shape \(7,\) must be \[8\]"):
        family.residual_layernorm(x, x, torch.zeros(7), torch.zeros(8))


@needs_kernels
def test_checks_below_python():
    """The dispatcher can be called directly: the C++ checks must hold by themselves."""
    x = torch.zeros(2, 3, 8)
    with pytest.raises(ValueError, match="shift has shape"):
        torch.ops.syncflow.adaln(x, torch.zeros(2, 7), torch.zeros(2, 8), 1e-6)
    with pytest.raises(ValueError, match="x is Int"):
        torch.ops.syncflow.adaln(x.int(), torch.zeros(2, 8), torch.zeros(2, 8), 1e-6)


@needs_kernels
def test_strides_of_axes_of_one_are_not_trusted():
    """A transposed x [G, 1, C] counts as contiguous, whatever its axis of length 1 says."""
    x = torch.randn(1, 4, 8).transpose(0, 1)
    assert x.is_contiguous() and x.stride(1) != 8
    m = torch.randn(4, 8)
    torch.testing.assert_close(
        torch.ops.syncflow.adaln(x, m, m, 1e-6), family.adaln_reference(x, m, m)
    )
    grads = torch.ops.syncflow.adaln_backward(x, x, m, m, 1e-6)
    expected = torch.ops.syncflow.adaln_backward(x.clone(memory_format=torch.contiguous_format),
                                                 x.reshape(4, 1, 8), m, m, 1e-6)  # fmt: skip
    torch.testing.assert_close(grads, expected)
