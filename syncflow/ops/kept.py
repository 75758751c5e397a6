"""Tables that depend on sizes alone, made once a process."""

import functools
from collections.abc import Callable
from typing import TypeVar

import torch

Table = TypeVar("Table")


def kept(make: Callable[..., Table]) -> Callable[..., Table]:
    """`make`, of hashable positional arguments, run once for each; nobody may change its result.

    A graph of `torch.compile` makes the table itself: as constants of a graph two tables of one
    function would have one name.
    """

    @functools.lru_cache(maxsize=32)
    def once(*given: object) -> Table:
        # Outside inference mode, since what is kept may next be used in training.
        with torch.inference_mode(False), torch.no_grad():
            return make(*given)

    @functools.wraps(make)
    def table(*given: object) -> Table:
        return make(*given) if torch.compiler.is_compiling() else once(*given)

    return table
