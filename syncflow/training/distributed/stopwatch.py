"""Seconds of each phase of a training step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import torch

Work = TypeVar("Work")  # what a collective returns: a handle, or nothing

PHASES = ("data", "forward", "backward", "communication", "optimizer")


class Stopwatch:
    """A phase within another pauses that one, so the phases of a step add up to it.

    Only the steps that are told about are timed: on a GPU a phase ends when the device is done, so
    in a timed step no communication hides behind computation.
    """

    def __init__(self) -> None:
        self.timed = False
        self.seconds: dict[str, float] = {}
        self._running: list[str] = []
        self._since = 0.0

    def begin(self, timed: bool) -> None:
        """A step begins; whether it is ``timed``."""
        self.timed, self.seconds = timed, dict.fromkeys(PHASES, 0.0)
        self._running = []

    def end(self) -> None:
        """What comes until the next ``begin`` is not timed."""
        self.timed = False

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What happens within belongs to one of ``PHASES``."""
        if not self.timed:
            yield
            return
        self._charge()
        self._running.append(name)
        try:
            yield
        finally:
            self._charge()
            self._running.pop()

    def communicating(self, collective: Callable[..., Work]) -> Callable[..., Work]:
        """``collective``, the time of which is communication: with that of waiting for others, and
        waited for at once in a step that is timed."""
        return partial(self._communicate, collective)

    def split(self) -> dict[str, float]:
        """Seconds of each phase of the timed step, as ``time/PHASE``."""
        return {f"time/{name}": seconds for name, seconds in self.seconds.items()}

    def _communicate(
        self, collective: Callable[..., Work], *arguments: object, **options: object
    ) -> Work:
        if not self.timed:
            return collective(*arguments, **options)
        with self.phase("communication"):
            work = collective(*arguments, **options)
            if hasattr(work, "wait"):
                work.wait()
            return work

    def _charge(self) -> None:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now
