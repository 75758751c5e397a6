"""Measurements on disk the moment they are made: one JSON file per part, complete whenever seen.

A part that is started again goes on after the rows that its file holds. On a machine that is lent
for minutes nothing measured may be lost: every row is written to a temporary name and renamed.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.evidence import ROOT, source_hash
from syncflow.ops import native


class Clock:
    """What is left of the time that a part may take, in seconds."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds that are left."""
        return self.end - time.monotonic()


class Results:
    """The rows of one part: ``folder/part.json``.

    Args:
        folder: where results go, made if missing.
        part: "correct", "fast", ...; the file's name.
        clock: rows that would begin after its end are not begun.
        only: the beginning of the names of the rows to measure.
    """

    def __init__(self, folder: Path, part: str, clock: Clock, only: str = "") -> None:
        self.path, self.clock, self.only = folder / f"{part}.json", clock, only
        folder.mkdir(parents=True, exist_ok=True)
        self.content: dict[str, Any] = {"suite": "gpu", "part": part, "rows": {}}
        found = environment()
        if self.path.exists():
            before = json.loads(self.path.read_text())
            # Rows of other kernels are not to stand under these kernels' hash.
            if before["environment"]["csrc_cuda"] == found["csrc_cuda"]:
                self.content = before
        self.content["environment"] = found

    @property
    def rows(self) -> dict[str, Any]:
        """The rows so far, by name."""
        return self.content["rows"]

    def add(self, key: str, value: object) -> None:
        """Takes a row in and writes the file anew, whole."""
        self.rows[key] = value
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.content, indent=1) + "\n")
        os.replace(temporary, self.path)

    def row(self, key: str, make: Callable[[], object], needs: float = 5.0) -> None:
        """Measures a row that is not there yet; a failure is a row too, and ends nothing.

        Args:
            needs: seconds that must be left for the row to begin.
        """
        if not key.startswith(self.only):
            return
        if key in self.rows and "error" not in (self.rows[key] or {}):
            return
        if self.clock.left() < needs:
            print(f"{key}: not run: out of time", flush=True)
            return
        begun = time.monotonic()
        try:
            value = make()
            note = ""
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            value = {"error": f"{type(error).__name__}: {error}"[:600], "where": where}
            note = f"FAILED {value['error'][:300]} ({where})"
            with contextlib.suppress(Exception):
                torch.cuda.synchronize()
        self.add(key, value)
        print(f"{key}: {time.monotonic() - begun:.1f} s {note or short(value)}", flush=True)


def short(value: object) -> str:
    """A row's figures in one line."""
    if isinstance(value, dict):
        flat = {k: v for k, v in value.items() if isinstance(v, (int, float, str))}
        times = value.get("times")
        if isinstance(times, dict):
            flat |= {k: t["median"] if isinstance(t, dict) else "-" for k, t in times.items()}
        value = "  ".join(
            f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in flat.items()
        )
    return str(value)[:400]


def environment() -> dict[str, object]:
    """What the numbers depend on; clocks are read, never set."""
    found: dict[str, object] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "kernels": _kernels(),
        "csrc_cuda": source_hash(ROOT / "csrc" / "cuda"),
        "commit": commit(),
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found["device"] = properties.name
        found["multiprocessors"] = properties.multi_processor_count
        found["memory_gib"] = round(properties.total_memory / 2**30, 1)
        query = "driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit,temperature.gpu"
        command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv"]
        found["nvidia_smi"] = _line(command, -1)
    return found


def _kernels() -> dict[str, object]:
    """The kernels' status, with the binary's name in place of where it lies on one machine."""
    status = native.status()
    path = status["path"]
    return status | {"path": Path(str(path)).name if path else None}


def commit() -> str | None:
    """Of the tree that is measured: from git, or from the file that stands in for it."""
    kept = ROOT / "build" / "commit"
    return _line(["git", "rev-parse", "HEAD"], 0) or (
        kept.read_text().strip() if kept.exists() else None
    )


def _line(command: list[str], which: int) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.strip().splitlines()
    return lines[which] if lines and not done.returncode else None


def device_slug(name: str) -> str:
    """A device's name as part of a file's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


@contextlib.contextmanager
def peak_memory() -> Iterator[dict[str, float]]:
    """GiB: held before, the most while inside, and the difference."""
    found: dict[str, float] = {}
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    yield found
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated()
    found |= {"before_gib": before / 2**30, "peak_gib": peak / 2**30}
