"""Jobs in several processes that all end soon when one fails or the user interrupts."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event


Job = TypeVar("Job")
Result = TypeVar("Result")

_stop: Event | None = None
"""In a worker process: set when no more work is wanted."""


def run(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: int
) -> Generator[Result, None, None]:
    """Yields ``function(job)`` of every job as it is done, by ``workers`` processes of one thread.

    Whatever ends it early, Ctrl-C or a job that failed, drops the jobs that wait and ends the
    running ones where they next call ``check_stopped``.
    """
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(workers, context, _begin, (stop,))
    try:
        # Ctrl-C reaches the whole group of processes and only this one is to answer: the mask is
        # inherited, and the first jobs start all processes.
        with _single_threaded(), _interrupts_held():
            running = [pool.submit(function, job) for job in jobs]
        for done in as_completed(running):
            yield done.result()
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def check_stopped() -> None:
    """Raises in a worker whose ``run`` has ended; does nothing anywhere else."""
    if _stop is not None and _stop.is_set():
        raise CancelledError


def _begin(stop: Event) -> None:
    global _stop
    _stop = stop
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@contextmanager
def _single_threaded() -> Iterator[None]:
    """One process a core already fills the machine: children start with one thread each for their
    linear algebra.
    """
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the end of the block; processes that start in it never hear of it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
