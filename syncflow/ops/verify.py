"""A kernel's first use held against its twin: on a device that nobody has tried, wrong results are
worse than slow ones.

The first call of an operator for some dtypes, kind of shape and device makes up a small problem of
that kind, and the kernel's error against float64 may be twice that of the plain twin in the same
dtype, and one rounding unit: the rule of the tests. An operator beyond it is switched off for the
process, with one warning, and `syncflow info` lists it.

This happens on the device types of `DEVICES`, and not while a call is traced, faked or captured in
a CUDA graph: then the next plain call is the first. `SYNCFLOW_VERIFY=0` leaves it out.
"""

import os
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor

#: The tensors of a call; the first decides the device.
Given = tuple[Tensor, *tuple[Tensor | None, ...]]
Shapes = Sequence[tuple[int, ...] | None]
Call = Callable[..., Tensor | tuple[Tensor, ...]]


class Verdict(Enum):
    """What is known of a kernel's call."""

    RIGHT = "right"  # or not to be checked
    LATER = "later"
    WRONG = "wrong"


class Problem(NamedTuple):
    """A small call of one kind.

    Two calls whose problems have the same shapes, dtypes and `kind` are alike to the kernel.
    """

    shapes: Shapes  # of the tensors, which are drawn
    kernel: Call  # of the tensors
    twin: Call  # of the same
    kind: Hashable = None  # what else tells kernels apart


def _devices_from_environment() -> frozenset[str]:
    choice = os.environ.get("SYNCFLOW_VERIFY", "1")
    if choice not in ("0", "1"):
        raise ValueError(f"SYNCFLOW_VERIFY is {choice!r}; it must be 0 or 1")
    return frozenset({"cuda"} if choice == "1" else ())


#: Device types on which kernels are checked at first use. The CPU's are checked by the tests, of
#: which every machine runs the same few builds.
DEVICES = _devices_from_environment()
_verdicts: dict[Hashable, str] = {}
_here = threading.local()


def first_use(name: str, problem: Problem, tensors: Given, gradient: bool) -> tuple[Verdict, str]:
    """Check the kernel `name` if no call like this one has been; the verdict, and what is wrong.

    Args:
        tensors: of the call, for their dtypes and device.
        gradient: whether the way back is checked too.
    """
    device = tensors[0].device
    if device.type not in DEVICES:
        return Verdict.RIGHT, ""
    dtypes = tuple(None if t is None else t.dtype for t in tensors)
    key = (name, tuple(problem.shapes), dtypes, problem.kind, device, gradient)
    if key not in _verdicts:
        if getattr(_here, "busy", False) or not _plain(tensors):
            return Verdict.LATER, ""
        with _undisturbed(device, gradient):
            _verdicts[key] = _what_is_wrong(problem, dtypes, device, gradient)
    why = _verdicts[key]
    return (Verdict.WRONG if why else Verdict.RIGHT), why


def forget() -> None:
    """Forget what was checked."""
    _verdicts.clear()


def _plain(tensors: Given) -> bool:
    """Whether calls run now, on memory, and nobody records them."""
    if torch._C._len_torch_dispatch_stack():
        return False
    on_gpu = tensors[0].is_cuda
    return not (on_gpu and torch.cuda.is_current_stream_capturing())


@contextmanager
def _undisturbed(device: torch.device, gradient: bool) -> Iterator[None]:
    """As at the top level of a program, whatever the caller is in the middle of."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(gradient))
        stack.enter_context(torch.autocast(device.type, enabled=False))
        # Checkpointing counts what is saved.
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(_same, _same))
        _here.busy = True
        try:
            yield
        finally:
            _here.busy = False


def _same(t: Tensor) -> Tensor:
    return t


def _what_is_wrong(
    problem: Problem, dtypes: tuple[torch.dtype | None, ...], device: torch.device, gradient: bool
) -> str:
    """ "" for a kernel that is as exact as its twin."""
    draws = torch.Generator("cpu").manual_seed(0)
    given = [
        None
        if shape is None
        else torch.randn(shape, generator=draws, device="cpu").to(device=device, dtype=dtype)
        for shape, dtype in zip(problem.shapes, dtypes, strict=True)
    ]
    try:
        doubled = [None if t is None else t.double() for t in given]
        exacts = _results(problem.twin, doubled, gradient)
        eager = _results(problem.twin, given, gradient)
    except Exception:  # A twin that cannot be asked has nothing to say of the kernel.
        return ""
    try:
        kernel = _results(problem.kernel, given, gradient)
    except Exception as failure:
        lines = str(failure).splitlines() or [type(failure).__name__]
        return f"it fails: {lines[0]}"
    if len(kernel) != len(eager):
        return f"it gives {len(kernel)} results for {len(eager)}"
    for k, e, x in zip(kernel, eager, exacts, strict=True):
        if (
            k is None or e is None or x is None
        ):  # constants to the kernel have a gradient in the twin
            continue
        if k.shape != e.shape or k.dtype != e.dtype:
            return f"it gives {tuple(k.shape)} {k.dtype} for {tuple(e.shape)} {e.dtype}"
        if not k.numel():
            continue
        numbers = ((k.double() - x).abs().max(), (e.double() - x).abs().max(), x.abs().max())
        error, allowed, size = torch.stack(numbers).tolist()
        bound = 2 * allowed + torch.finfo(k.dtype).eps * max(1.0, size)
        if not error <= bound:
            return f"its error is {error:.3g} where {bound:.3g} is allowed"
    return ""


def _results(function: Call, tensors: list[Tensor | None], gradient: bool) -> list[Tensor | None]:
    """Outputs of clones, then, if asked for, every input's gradient of a fixed sum of them."""
    given = [None if t is None else t.clone().requires_grad_(gradient) for t in tensors]
    out = function(*given)
    out = out if isinstance(out, tuple) else (out,)
    if not gradient:
        return list(out)
    leaves = [t for t in given if t is not None]
    up = [torch.linspace(-1, 1, o.numel(), device=o.device).view_as(o).to(o.dtype) for o in out]
    grads = torch.autograd.grad(out, leaves, up, allow_unused=True)
    return [*(o.detach() for o in out), *grads]
