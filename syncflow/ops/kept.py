"""Tables that depend on sizes alone, made once a process."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar, TypeVarTuple

import torch

Table = TypeVar("Table")
Sizes = TypeVarTuple("Sizes")
_here = threading.local()


def kept(make: Callable[[*Sizes], Table]) -> Callable[[*Sizes], Table]:
    """`make`, of hashable positional arguments, run once for each; nobody may change its result.

    A graph of `torch.compile` makes the table itself: as constants of a graph two tables of one
    function would have one name.
    """

    @functools.lru_cache(maxsize=32)
    def once(*given: *Sizes) -> Table:
        # Outside inference mode, since what is kept may next be used in training.
        with torch.inference_mode(False), torch.no_grad():
            return make(*given)

    @functools.wraps(make)
    def table(*given: *Sizes) -> Table:
        return make(*given) if torch.compiler.is_compiling() else note(once(*given))

    return table


def note(table: Table) -> Table:
    """The table, remembered by the `held_tables` around this call; for who keeps one longer."""
    held = getattr(_here, "held", None)
    if held is not None:
        held.append(table)
    return table


@contextlib.contextmanager
def held_tables() -> Iterator[list[object]]:
    """All tables that this thread asks for within: a CUDA graph reads them at their addresses long
    after other sizes have taken their place here."""
    before, _here.held = getattr(_here, "held", None), []
    try:
        yield _here.held
    finally:
        _here.held = before
