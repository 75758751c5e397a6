"""Leaving a graph of `torch.compile`; apart from the rest, since saying so imports the compiler."""

from collections.abc import Callable
from typing import Any

import torch


@torch.compiler.disable
def outside_graph(function: Callable, *given: Any) -> Any:
    """function(*given), run as it is even where a compiled model calls this."""
    return function(*given)
