"""Checkpoints of a run: complete or absent, readable by any number of processes.

    checkpoints/00001200/manifest.json          step, skipped, seconds, config, the parts and sizes
    checkpoints/00001200/part-00000.safetensors tensors by name: model/x, ema/x, exp_avg/x ...
    frozen.safetensors                          what the run does not train, once

Each process writes its part into a hidden folder; the one that leads renames it when all are there.
A thread writes while training goes on.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

FOLDER, MANIFEST, FROZEN = "checkpoints", "manifest.json", "frozen.safetensors"
_WAIT_SECONDS = 1800.0  # for the slowest process's part


class Saved(Mapping[str, Tensor]):
    """A checkpoint's tensors, read one at a time, and what else it says (``about``).

    Raises:
        ValueError: it is not complete.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self.about: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
            self._files: dict[str, Any] = {}
            for name, size in self.about["parts"].items():
                path = folder / name
                if path.stat().st_size != size:
                    raise ValueError(f"{path} has {path.stat().st_size} bytes, not {size}")
                file = safe_open(path, "pt")
                self._files |= dict.fromkeys(file.keys(), file)
            frozen = folder.parent.parent / FROZEN
            if frozen.exists():
                file = safe_open(frozen, "pt")
                self._files |= {f"model/{key}": file for key in file.keys()}  # noqa: SIM118
                self._frozen = set(file.keys())
            else:
                self._frozen = set()
        except (OSError, KeyError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{folder} is not complete ({error})") from error
        except SafetensorError as error:
            raise ValueError(f"{folder} is damaged ({error})") from error

    def __getitem__(self, name: str) -> Tensor:
        key = name.removeprefix("model/")
        return self._files[name].get_tensor(key if key in self._frozen else name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def weights(self) -> dict[str, Tensor]:
        """The averaged weights, and those that are not averaged as they are."""
        names = [key.removeprefix("model/") for key in self if key.startswith("model/")]
        return {n: self[f"ema/{n}" if f"ema/{n}" in self else f"model/{n}"] for n in names}


def folders(out: Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    found = [p for p in (out / FOLDER).glob("*") if p.name.isdigit()]
    return sorted(found, key=lambda p: int(p.name), reverse=True)


def newest(out: Path, say: bool = True) -> Saved | None:
    """The newest checkpoint that can be read; damaged ones are skipped, saying so."""
    for folder in folders(out):
        try:
            return Saved(folder)
        except ValueError as error:
            if say:
                print(f"{error}; trying the one before", flush=True)
    return None


class Writer:
    """Writes checkpoints beside the training, one at a time.

    Args:
        out: the run's folder, the same for all processes.
        rank, world: this process's.
        keep_last, keep_every: the newest so many stay, and those of every so many steps (0: none).
    """

    def __init__(self, out: Path, rank: int, world: int, keep_last: int, keep_every: int) -> None:
        self.out, self.rank, self.world = out, rank, world
        self.keep_last, self.keep_every = keep_last, keep_every
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        if rank == 0:
            for left in (out / FOLDER).glob(".*"):  # of a run that was killed while writing
                shutil.rmtree(left, ignore_errors=True)

    def save(self, state: Mapping[str, Tensor], about: dict[str, Any]) -> None:
        """Begins to write; ``state`` must not change any more.

        Raises:
            OSError: the checkpoint before could not be written.
        """
        self.wait()
        self._thread = threading.Thread(target=self._guarded, args=(state, about), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Returns when everything is written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise OSError(f"the checkpoint could not be written: {error}") from error

    def _guarded(self, state: Mapping[str, Tensor], about: dict[str, Any]) -> None:
        try:
            self._write(state, about)
        except BaseException as error:
            self._error = error

    def _write(self, state: Mapping[str, Tensor], about: dict[str, Any]) -> None:
        name = f"{about['step']:08d}"
        final, folder = self.out / FOLDER / name, self.out / FOLDER / f".{name}"
        if final.exists():
            return
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / _part(self.rank)
        _save(part, state)
        if self.rank:
            return
        parts = [folder / _part(rank) for rank in range(self.world)]
        deadline = time.monotonic() + _WAIT_SECONDS
        while not all(path.exists() for path in parts):
            if time.monotonic() > deadline:
                missing = [path.name for path in parts if not path.exists()]
                raise TimeoutError(
                    f"no {missing} in {folder}; is it on a file system that all nodes share?"
                )
            time.sleep(0.05)
        manifest = {**about, "parts": {path.name: path.stat().st_size for path in parts}}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
        os.replace(folder, final)
        self._prune()

    def _prune(self) -> None:
        for old in folders(self.out)[self.keep_last :]:
            if not (self.keep_every and int(old.name) % self.keep_every == 0):
                shutil.rmtree(old, ignore_errors=True)


def _part(rank: int) -> str:
    return f"part-{rank:05d}.safetensors"


def _save(path: Path, tensors: Mapping[str, Tensor], about: dict[str, str] | None = None) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary, about)
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def save_weights(path: Path, weights: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """safetensors, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _save(path, weights, metadata)


def metadata(path: Path) -> dict[str, str]:
    """What ``save_weights`` wrote beside the weights."""
    with safe_open(path, "pt") as file:
        return file.metadata() or {}
