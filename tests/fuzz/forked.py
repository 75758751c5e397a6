"""One case in a process of its own: what became of it, within 20 s of CPU time and 4 GB."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from syncflow import faults

CPU_SECONDS, MEMORY = 20, 4 * 2**30
_WAITING_SECONDS = 120.0  # in which nothing of it computes, or would if there were a free core

FINE = ("accepted", "refused")
#: What must not happen.
FAULTS = ("traceback", "hang", "memory", "accepted wrong")


class Refused(Exception):
    """The one line with which a command ended with exit code 2."""


@dataclass(frozen=True)
class Outcome:
    """``kind`` of FINE or FAULTS; ``value`` that an accepted case gave, ``told`` in a line or with
    the end of a traceback."""

    kind: str
    value: str | None = None
    told: str = ""


def run(use: Callable[[Path], str], path: Path) -> Outcome:
    """What ``use(path)`` does in a child."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        _child(use, path, theirs)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        os.set_blocking(pipe.fileno(), False)
        said, status = _wait(child, pipe)
    if said:
        return Outcome(**json.loads(said))
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number in (signal.SIGXCPU, signal.SIGKILL):
            return Outcome("hang", told=f"stopped by {signal.Signals(number).name}")
        return Outcome("traceback", told=f"ended by {signal.Signals(number).name}")
    return Outcome("traceback", told=f"exit code {os.waitstatus_to_exitcode(status)}, not a word")


def _wait(child: int, pipe) -> tuple[bytes, int]:
    said, waited, before = b"", 0.0, time.monotonic()
    while True:
        said += pipe.read() or b""
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return said + (pipe.read() or b""), status
        now = time.monotonic()
        waited += 0 if _computes(child) else now - before
        before = now
        if waited > _WAITING_SECONDS:
            os.kill(child, signal.SIGKILL)
            waited = -float("inf")
        time.sleep(0.005)


def _computes(process: int) -> bool:
    """Whether one of its threads runs or is ready to: on a busy machine that takes long."""
    for stat in Path(f"/proc/{process}/task").glob("*/stat"):
        with contextlib.suppress(OSError):  # the thread has ended
            if stat.read_text().rpartition(")")[2].split()[0] in "RD":
                return True
    return False


def _child(use: Callable[[Path], str], path: Path, pipe: int) -> None:
    """Never returns."""
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    try:
        faulthandler.disable()  # pytest's tells of every crash
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        used = int(time.process_time())
        resource.setrlimit(resource.RLIMIT_CPU, (used + CPU_SECONDS, used + CPU_SECONDS + 5))
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        outcome = _outcome(use, path)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if outcome.kind in FINE and peak - begun > MEMORY:
            outcome = Outcome("memory", told=f"{peak / 2**30:.1f} GB")
        data = json.dumps(outcome.__dict__).encode()
        with contextlib.suppress(OSError):
            os.write(pipe, data[:60000])
    finally:
        os._exit(0)


def _outcome(use: Callable[[Path], str], path: Path) -> Outcome:
    try:
        return Outcome("accepted", use(path))
    except BaseException as error:
        told = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        if faults.out_of_memory(error):
            return Outcome("memory", told=told)
        if isinstance(error, Refused | ValueError | OSError):
            return Outcome("refused", told=told)
        last = traceback.extract_tb(error.__traceback__)[-3:]
        where = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(last))
        return Outcome("traceback", told=f"{told} ({where})")
