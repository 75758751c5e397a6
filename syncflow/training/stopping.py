"""Signals that ask a run to stop."""

from __future__ import annotations

import signal
from collections.abc import Callable

#: What schedulers warn with before they kill, a closed terminal and Ctrl-C among them.
SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGXCPU,
)


class StopOnSignal:
    """Turns each of ``SIGNALS`` into a request to save and stop: ``asked`` is the signal."""

    def __enter__(self) -> StopOnSignal:
        self.asked: int | None = None
        self.before: dict[int, Callable | int | None] = {}
        try:
            for number in SIGNALS:
                if signal.getsignal(number) is signal.SIG_IGN:  # nohup's, not ours to undo
                    continue
                self.before[number] = signal.signal(number, self._ask)
        except ValueError:  # not the main thread: signals stay as they are
            pass
        return self

    def _ask(self, number: int, *_: object) -> None:
        self.asked = number

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
