"""A function over many items, by several processes, in order, whatever the items do to them.

PyTorch's DataLoader does the work: results in order, a bounded number of them waiting. What is
added: a process that dies or hangs costs the one item that did it, and when this process is killed
the others end too.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection, parent_process
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Seconds after which a worker is taken to hang.
LIMIT_S = 600.0
#: Results that may wait per process.
_AHEAD = 2


def ordered(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    crashed: Callable[[Item], Result],
    limit_s: float = LIMIT_S,
) -> Iterator[Result]:
    """Yields ``function(item)`` of every item in order, or ``crashed(item)`` of an item that
    ended its process or took longer than ``limit_s``. ``workers`` 0: in this process.

    An exception of the function is raised here.
    """
    if workers == 0:
        yield from map(function, items)
        return
    done, alone = 0, 0  # items finished; how many more to try one by one
    while done < len(items):
        size = 1 if alone else workers
        stop = done + 1 if alone else len(items)
        try:
            for result in _loader(function, items[done:stop], size, limit_s):
                done, alone = done + 1, max(0, alone - 1)
                yield result
        except RuntimeError as error:
            if not _died(error):
                raise
            if alone:
                yield crashed(items[done])
                done, alone = done + 1, 0
            else:  # one of those on their way: find out which
                alone = min(workers * _AHEAD + workers, len(items) - done)


def _loader(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, limit_s: float
) -> DataLoader[Result]:
    return DataLoader(
        _Mapped(function, items, limit_s),
        batch_size=None,
        collate_fn=_same,
        num_workers=workers,
        prefetch_factor=_AHEAD,
        multiprocessing_context=_context(),
        worker_init_fn=_begin,
    )


def _context() -> multiprocessing.context.BaseContext:
    """Forks of a process that has nothing but the imports: not of this one, which may have threads
    and a GPU's context."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["av", __name__])
    return context


def _died(error: RuntimeError) -> bool:
    # An exception of the function itself speaks of a "DataLoader worker process" instead.
    return "DataLoader worker (pid" in str(error)


class _Mapped(Dataset[Result], Generic[Item, Result]):
    def __init__(
        self, function: Callable[[Item], Result], items: Sequence[Item], limit_s: float
    ) -> None:
        self.function, self.items, self.limit_s = function, items, limit_s

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Result:
        # Works where Python itself hangs; the loader's own limit would also hide a dead process
        # until it is over.
        with open(os.devnull, "w") as nowhere:
            faulthandler.dump_traceback_later(self.limit_s, exit=True, file=nowhere)
            try:
                return self.function(self.items[index])
            finally:
                faulthandler.cancel_dump_traceback_later()


def _same(item: Result) -> Result:
    return item


def _begin(_: int) -> None:
    """One thread each; and gone when the parent is, however it went."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_leave_with, args=(parent.sentinel,), daemon=True).start()


def _leave_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
