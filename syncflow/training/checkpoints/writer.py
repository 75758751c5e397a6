"""Writing checkpoints beside the training.

Each process writes its part into a hidden folder; the one that leads renames it when all are there
and on the disk, and only then removes older ones. A thread writes while training goes on.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from torch import Tensor

from syncflow import durable
from syncflow.model_io import tensors
from syncflow.training.checkpoints.checkpoint import FOLDER, FROZEN, MANIFEST, folders, part

_WAIT_SECONDS = 1800.0  # for the slowest process's part
#: One process alone writes each file of a run.
TAG = "run"


class Writer:
    """Writes checkpoints, one at a time.

    Args:
        out: the run's folder, the same for all processes.
        rank, world: this process's.
        keep_last, keep_every: the newest so many stay, and those of every so many steps (0: none).
    """

    def __init__(self, out: Path, rank: int, world: int, keep_last: int, keep_every: int) -> None:
        self.out, self.rank, self.world = out, rank, world
        self.keep_last, self.keep_every = keep_last, keep_every
        self.frozen: str | None = None  # the checksum of the weights that are not trained
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        if rank == 0:
            for left in (out / FOLDER).glob(".*"):  # of a run that was killed while writing
                shutil.rmtree(left, ignore_errors=True)

    def save_frozen(self, weights: Mapping[str, Tensor]) -> None:
        """Writes what the run does not train, which every checkpoint then refers to."""
        if weights:
            tensors.save(self.out / FROZEN, weights, tag=TAG)
            self.frozen = durable.digest(self.out / FROZEN)

    def save(self, state: Mapping[str, Tensor], about: Mapping[str, object]) -> None:
        """Begins to write; ``state`` must not change any more.

        Raises:
            OSError: the checkpoint before could not be written.
        """
        self.wait()
        self._thread = threading.Thread(target=self._guarded, args=(state, about), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Returns when everything is written.

        Raises:
            OSError: it could not be.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            kept = [folder.name for folder in folders(self.out)]
            raise OSError(
                f"the checkpoint could not be written: {error}; "
                + (f"kept: those of steps {', '.join(kept)} in {self.out}" if kept else "none kept")
            ) from error

    def _guarded(self, state: Mapping[str, Tensor], about: Mapping[str, object]) -> None:
        try:
            self._write(state, about)
        except BaseException as error:
            self._error = error

    def _write(self, state: Mapping[str, Tensor], about: Mapping[str, object]) -> None:
        name = f"{cast(int, about['step']):08d}"
        final, folder = self.out / FOLDER / name, self.out / FOLDER / f".{name}"
        if final.exists():
            return
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._write_part(folder, state)
            if self.rank:
                return
            self._write_manifest(folder, about)
        except OSError:
            if not self.rank:  # half a checkpoint is of no use, and takes the room of the next
                shutil.rmtree(folder, ignore_errors=True)
            raise
        os.replace(folder, final)
        durable.sync_folder(final.parent)
        self._prune()

    def _write_part(self, folder: Path, state: Mapping[str, Tensor]) -> None:
        own = folder / part(self.rank)
        tensors.save(own, state, tag=TAG)
        # Each sums up its own: the one that leads need not read what others wrote. The sum is last,
        # so where it is, the part is there and complete.
        durable.write_text(_sum_of(own), durable.digest(own), tag=TAG)

    def _write_manifest(self, folder: Path, about: Mapping[str, object]) -> None:
        parts = [folder / part(rank) for rank in range(self.world)]
        deadline = time.monotonic() + _WAIT_SECONDS
        while not all(_sum_of(path).exists() for path in parts):
            if time.monotonic() > deadline:
                missing = [path.name for path in parts if not _sum_of(path).exists()]
                raise TimeoutError(
                    f"no {missing} in {folder}; is it on a file system that all nodes share?"
                )
            time.sleep(0.05)
        sums = {path.name: _sum_of(path).read_text() for path in parts}
        facts = {
            **about,
            "parts": {path.name: path.stat().st_size for path in parts},
            "checksums": sums,
            "frozen": self.frozen,
        }
        durable.write_sealed(folder / MANIFEST, facts, tag=TAG)
        for path in parts:
            _sum_of(path).unlink()
        durable.sync_folder(folder)

    def _prune(self) -> None:
        for old in folders(self.out)[self.keep_last :]:
            if not (self.keep_every and int(old.name) % self.keep_every == 0):
                # A kill halfway must not leave half a checkpoint under a checkpoint's name.
                gone = old.with_name(f".{old.name}")
                os.replace(old, gone)
                shutil.rmtree(gone, ignore_errors=True)


def _sum_of(path: Path) -> Path:
    return path.with_suffix(".sha256")
