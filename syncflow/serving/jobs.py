"""Clips made one after the other in the background: a bounded queue with progress and cancelling.

Nothing here knows of HTTP or of a model: ``make`` turns a job into a file.
"""

from __future__ import annotations

import queue
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypedDict

from syncflow.faults import Cancelled

Status = Literal["queued", "in_progress", "completed", "failed"]

#: Jobs that may wait, and seconds that a finished one is kept.
MOST_WAITING, KEPT_SECONDS = 16, 3600.0


class Full(RuntimeError):
    """The queue holds as many jobs as it may."""


class Request(TypedDict, total=False):
    """What a client asks for; what is left out is as the model's folder says."""

    prompt: str
    given: Path | None
    seconds: float
    width: int
    height: int
    seed: int
    steps: int
    guidance: float
    negative_prompt: str
    negative_audio_prompt: str
    audio_takes: int
    contacts: list[float]


@dataclass
class Job:
    """One clip to be made.

    ``request`` is what was asked for; ``folder`` the job's own, for what was uploaded and what is
    made; ``progress`` per cent; ``created``, ``completed`` Unix times in seconds; ``error`` one
    line; ``file`` the clip once it is there.
    """

    request: Request
    folder: Path
    id: str = field(default_factory=lambda: f"video_{uuid.uuid4().hex}")
    status: Status = "queued"
    progress: int = 0
    created: float = field(default_factory=time.time)
    completed: float | None = None
    error: str | None = None
    file: Path | None = None
    cancelled: bool = False

    def advance(self, share: float) -> None:
        """Notes that a ``share`` (0 to 1) is done.

        Raises:
            Cancelled: nobody waits for the rest.
        """
        if self.cancelled:
            raise Cancelled
        self.progress = max(self.progress, min(99, int(100 * share)))


#: Makes a job's clip and returns its file; calls ``job.advance`` on the way.
Make = Callable[[Job], Path]


class Jobs:
    """Jobs by id, made in their order by one thread.

    Args:
        make: what makes a clip. ValueError and OSError are the job's error; anything else too, but
            told as a defect.
        most_waiting: jobs that may wait.
        kept_seconds: how long a finished job and its files are kept.
    """

    def __init__(
        self, make: Make, most_waiting: int = MOST_WAITING, kept_seconds: float = KEPT_SECONDS
    ) -> None:
        self.make, self.kept_seconds = make, kept_seconds
        self.folder = Path(tempfile.mkdtemp(prefix="syncflow-serve-"))
        self._waiting: queue.Queue[Job | None] = queue.Queue()
        self._most, self._jobs, self._lock = most_waiting, dict[str, Job](), threading.RLock()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="syncflow jobs", daemon=True)
        self._thread.start()

    def room(self) -> Path:
        """A new folder of a job to come.

        Raises:
            Full: no job can be taken now.
        """
        with self._lock:
            self._forget_old()
            if self._closed or self.count("queued") >= self._most:
                raise Full(f"{self._most} clips are waiting already; try again later")
        return Path(tempfile.mkdtemp(dir=self.folder))

    def add(self, request: Request, folder: Path) -> Job:
        """Puts a job at the end of the queue.

        Raises:
            Full: others came first.
        """
        with self._lock:
            if self._closed or self.count("queued") >= self._most:
                raise Full(f"{self._most} clips are waiting already; try again later")
            job = Job(request, folder)
            self._jobs[job.id] = job
            self._waiting.put(job)
            return job

    def get(self, id: str) -> Job | None:
        """The job of this id, if it is known and not too old."""
        with self._lock:
            self._forget_old()
            return self._jobs.get(id)

    def all(self) -> list[Job]:
        """Every job, oldest first."""
        with self._lock:
            self._forget_old()
            return list(self._jobs.values())

    def count(self, status: Status) -> int:
        """Jobs of this status."""
        with self._lock:
            return sum(job.status == status for job in self._jobs.values())

    def remove(self, id: str) -> bool:
        """Forgets a job and its files; one that is being made stops at its next step."""
        with self._lock:
            job = self._jobs.pop(id, None)
            if job is None:
                return False
            job.cancelled = True
            # The folder of a job in progress is removed by the thread that works in it.
            if job.status != "in_progress":
                shutil.rmtree(job.folder, ignore_errors=True)
            return True

    def close(self) -> None:
        """Cancels what is left and removes all files."""
        with self._lock:
            self._closed = True
            for job in self._jobs.values():
                job.cancelled = True
        self._waiting.put(None)
        self._thread.join(timeout=10)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _forget_old(self) -> None:
        limit = time.time() - self.kept_seconds
        for job in list(self._jobs.values()):
            if job.completed is not None and job.completed < limit:
                self.remove(job.id)

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            with self._lock:
                if job.cancelled:
                    continue
                job.status = "in_progress"
            try:
                file, error = self.make(job), None
            except Cancelled:
                file, error = None, "cancelled"
            except (ValueError, OSError) as problem:
                file, error = None, " ".join(str(problem).split())
            except Exception as problem:  # one request must not end the others
                file, error = None, f"a defect of the server: {type(problem).__name__}"
            with self._lock:
                job.file, job.error = file, error
                job.status = "completed" if file is not None else "failed"
                job.progress = 100 if file is not None else job.progress
                job.completed = time.time()
                if job.cancelled:
                    shutil.rmtree(job.folder, ignore_errors=True)
