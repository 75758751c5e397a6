"""Which model it was: a hash of the files in its folder."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

#: Hexadecimal digits that are kept: enough that no two models meet.
DIGITS = 16


def of(folder: Path) -> str:
    """The first digits of a SHA-256 over names and contents of a model folder's configs and
    weights; those of T5 in a folder of its own are left out. Seconds for gigabytes, once for as
    long as the files stay as they are."""
    paths = sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")])
    whole = hashlib.sha256()
    for path in paths:
        state = path.stat()
        whole.update(f"{path.name} {_digest(path, state.st_size, state.st_mtime_ns)}\n".encode())
    return whole.hexdigest()[:DIGITS]


@lru_cache(maxsize=64)
def _digest(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
