"""The rule that every operator's kernel is held to, and the helpers for stating it."""

import json
import os
from collections.abc import Callable

import torch
from torch import Tensor

from syncflow import ops


def results(
    function: Callable, tensors: list[Tensor | None], dtype: torch.dtype | None = None
) -> list[Tensor]:
    """Outputs, then the gradient of every floating input, for one fixed gradient of the outputs."""
    leaves = [
        None if t is None else t.detach().to(dtype or t.dtype).requires_grad_() for t in tensors
    ]
    out = function(*leaves)
    out = out if isinstance(out, tuple) else (out,)
    up = [
        torch.randn(o.shape, generator=torch.Generator().manual_seed(i)) for i, o in enumerate(out)
    ]
    # The gradient's rounding to the output's dtype belongs to the question, not to the error.
    up = [u.to(tensors[0].dtype).to(o) for u, o in zip(up, out, strict=True)]
    given = [t for t in leaves if t is not None]
    grads = torch.autograd.grad(out, given, up, allow_unused=True)
    return [*(o.detach() for o in out), *(g for g in grads if g is not None)]


def assert_as_good_as_eager(function: Callable, tensors: list[Tensor | None]) -> None:
    """Error against float64 at most twice plain PyTorch's in the same dtype, plus one rounding."""
    with ops.reference_ops():
        exact, eager = results(function, tensors, torch.float64), results(function, tensors)
    kernel = results(function, tensors)
    for which, (k, e, x) in enumerate(zip(kernel, eager, exact, strict=True)):
        assert k.dtype == e.dtype and k.shape == x.shape
        if not k.numel():
            continue
        error, allowed = ((t.double() - x).abs().max().item() for t in (k, e))
        rounding = torch.finfo(k.dtype).eps * max(1.0, x.abs().max().item())
        _log(which, str(k.dtype).removeprefix("torch."), error, allowed, 2 * allowed + rounding)
        assert error <= 2 * allowed + rounding, f"result {which}: {error} > 2 * {allowed}"


def _log(result: int, dtype: str, error: float, eager: float, bound: float) -> None:
    """A line of JSON for every comparison, in the file that SYNCFLOW_ERROR_LOG names."""
    path = os.environ.get("SYNCFLOW_ERROR_LOG")
    if path:
        test = os.environ.get("PYTEST_CURRENT_TEST", "").removesuffix(" (call)")
        row = {"test": test, "result": result, "dtype": dtype}
        row |= {"error": error, "eager": eager, "bound": bound}
        with open(path, "a") as file:
            file.write(json.dumps(row) + "\n")


def assert_same_bits_for_any_number_of_threads(
    function: Callable, tensors: list[Tensor | None]
) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one, again = results(function, tensors), results(function, tensors)
        torch.set_num_threads(3)
        three = results(function, tensors)
    finally:
        torch.set_num_threads(before)
    for a, b, c in zip(one, again, three, strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)
