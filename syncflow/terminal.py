"""Where a process meets its user: Ctrl-C while it starts, and a reader who goes away.

Light, because the command line sets these up before it imports anything else.
"""

from __future__ import annotations

import _thread
import io
import operator
import os
import signal
import stat
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


EXIT_INTERRUPTED = 130
INTERRUPTED = "syncflow: error: interrupted"

_asked_to_stop = False


class _Life:
    """Ends with the interrupt that carries it."""


class _Watch(weakref.ref[_Life]):
    again = staticmethod(_thread.interrupt_main)


_unanswered: _Watch | None = None
# All in C: in a callback with bytecode of its own the new interrupt would be raised, and be lost,
# right there.
_raise_again = operator.methodcaller("again")


def catch_interrupts() -> None:
    """Ctrl-C ends a process that is still starting at once; later it is a KeyboardInterrupt.

    C extensions turn a KeyboardInterrupt amid their import into other errors and print tracebacks.
    Nothing has been written before PyTorch is there, so nothing is lost by leaving.

    They lose it, too: compiled by Cython, a function that raises an error of its own at that moment
    drops the interrupt (1 in 35 of those that came while PyAV wrote clips). One that dies before
    ``answer_interrupt`` is therefore raised anew.
    """
    mine = threading.current_thread() is threading.main_thread()
    if mine and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def let_interrupts_go() -> None:
    """Gives Ctrl-C back to Python."""
    global _asked_to_stop
    _asked_to_stop = False
    answer_interrupt()
    if signal.getsignal(signal.SIGINT) is _interrupt:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def answer_interrupt() -> None:
    """Said by who caught the interrupt and ends the process for it."""
    global _unanswered
    _unanswered = None


def interrupted() -> bool:
    """Whether Ctrl-C came: an error that follows is most likely its consequence."""
    return _asked_to_stop


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _asked_to_stop
    torch = sys.modules.get("torch")
    if torch is None or getattr(torch.__spec__, "_initializing", False):
        os.write(2, f"{INTERRUPTED}\n".encode())
        os._exit(EXIT_INTERRUPTED)
    _asked_to_stop = True
    # Not named here: a frame that names its own error keeps it alive.
    raise _watched()


def _watched() -> KeyboardInterrupt:
    """One whose end is noticed. No subclass: the interpreter and ``subprocess`` ask for the very
    type."""
    global _unanswered
    error, life = KeyboardInterrupt(), _Life()
    error.__dict__["life"] = life
    _unanswered = _Watch(life, _raise_again)
    return error


@contextmanager
def outliving_readers() -> Iterator[None]:
    """While it lasts, what is written to a pipe that nobody reads any more is dropped.

    The work goes on: the reader of a list of files may have seen enough, the files are wanted.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _outliving(sys.stdout), _outliving(sys.stderr)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            _flush_or_drop(stream)
        sys.stdout, sys.stderr = before


def _outliving(stream: TextIO) -> TextIO:
    try:
        number = stream.fileno()
        mode = os.fstat(number).st_mode
    except (AttributeError, OSError, ValueError):  # none, closed, or in memory
        return stream
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return stream
    raw = io.BufferedWriter(_Pipe(number, "w", closefd=False))
    # By lines, so that whoever reads hears of a file as soon as it is there.
    return io.TextIOWrapper(raw, stream.encoding, stream.errors, line_buffering=True)


def _flush_or_drop(stream: TextIO | None) -> None:
    """Python would complain once more, at its end, about what cannot be written."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        _drop(stream.fileno())


def _drop(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


class _Pipe(io.FileIO):
    """The writing end of a pipe that turns into the null device when its reader goes."""

    def write(self, data: ReadableBuffer) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            _drop(self.fileno())
            return memoryview(data).nbytes
