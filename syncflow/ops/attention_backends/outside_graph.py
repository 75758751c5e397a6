"""Leaving a graph of `torch.compile`; apart from the rest, since saying so imports the compiler."""

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import torch

Given = TypeVarTuple("Given")
Out = TypeVar("Out")
Function = TypeVar("Function", bound=Callable[..., object])


def _disabled(function: Function) -> Function:
    """``torch.compiler.disable``, whose own types are lost."""
    out: Function = torch.compiler.disable(function)
    return out


@_disabled
def outside_graph(function: Callable[[*Given], Out], *given: *Given) -> Out:
    """function(*given), run as it is even where a compiled model calls this."""
    return function(*given)
