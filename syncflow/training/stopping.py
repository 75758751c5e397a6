"""Signals that ask a run to stop."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any


class StopOnSignal:
    """Turns SIGTERM and Ctrl-C into a request to save and stop: ``asked`` is the signal."""

    def __enter__(self) -> StopOnSignal:
        self.asked: int | None = None
        self.before: dict[int, Callable | int | None] = {}
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                self.before[number] = signal.signal(number, self._ask)
        except ValueError:  # not the main thread: signals stay as they are
            pass
        return self

    def _ask(self, number: int, *_: Any) -> None:
        self.asked = number

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
