"""Which model it was, or which file: a hash of what is in it."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

#: Hexadecimal digits that are kept: enough that no two models meet.
DIGITS = 16
#: Of a model folder: a file with which steps are shown and nothing is made (``preview_map``).
PREVIEW = "preview.safetensors"
_BLOCK, _BLOCKS = 2**20, 256


def of(folder: Path) -> str:
    """The first digits of a SHA-256 over names and contents of a model folder's configs and
    weights; those of T5 in a folder of its own and the preview map are left out.

    It tells models apart and is no proof that a file is whole: of one beyond 256 MiB, 256 blocks
    spread over it count, since training changes all weights and reading gigabytes takes seconds.
    """
    paths = sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")])
    paths = [path for path in paths if path.name != PREVIEW]
    whole = hashlib.sha256()
    for path in paths:
        whole.update(f"{path.name} {_state(path)}\n".encode())
    return whole.hexdigest()[:DIGITS]


def weights(folder: Path) -> list[Path]:
    """The files of weights that clips are made with, in subfolders too."""
    return sorted(path for path in folder.rglob("*.safetensors") if path.name != PREVIEW)


def of_file(path: Path) -> str:
    """The first digits of a SHA-256 over a file's content, of a large one as in ``of``."""
    return _state(path)[:DIGITS]


def _state(path: Path) -> str:
    state = path.stat()
    return _digest(path.absolute(), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)
def _digest(path: Path, size: int, changed: int) -> str:
    found = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for start in range(0, size, max(_BLOCK, size // _BLOCKS)):
            file.seek(start)
            found.update(file.read(_BLOCK))
    return found.hexdigest()
