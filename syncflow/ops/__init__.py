"""Operators with a compiled kernel and a plain PyTorch twin; one file per op.

Each file `syncflow/ops/<op>.py` holds the public function, its `*_reference` twin (the
specification), the shape function for tracing and the backward formula. This package re-exports no
op on purpose: `from .adaln import adaln` here would hide the module of the same name, so there is
exactly one path to each op (`syncflow.ops.adaln.adaln`).

The twins are used when the extension is missing, when a tensor's device or dtype has no kernel, and
when asked for:

    SYNCFLOW_OPS=reference python ...          # a whole process
    with syncflow.ops.reference_ops(): ...     # a block of code

Kernels and twins share parameters and checkpoints, so switching is safe at any time.
"""

import contextlib
import os
from collections.abc import Iterator

_CHOICES = ("native", "reference")


def _choice_from_environment() -> bool:
    choice = os.environ.get("SYNCFLOW_OPS", "native")
    if choice not in _CHOICES:
        raise ValueError(f"SYNCFLOW_OPS is {choice!r}; it must be one of {', '.join(_CHOICES)}")
    return choice == "reference"


_reference_only = _choice_from_environment()


def reference_only() -> bool:
    """True while the plain PyTorch twins are asked for, by environment or by `reference_ops()`."""
    return _reference_only


@contextlib.contextmanager
def reference_ops() -> Iterator[None]:
    """Run the plain PyTorch twins inside this block, in every thread of the process."""
    global _reference_only
    before = _reference_only
    _reference_only = True
    try:
        yield
    finally:
        _reference_only = before
