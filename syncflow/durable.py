"""Files that are there whole or not at all, and stay when the power fails.

A file is written under a temporary name beside its own, flushed to the disk and renamed, and so is
its folder's list of names. It has the mode that the umask gives a new file, whoever writes into it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from syncflow.json_types import JsonObject

#: How the names of files and folders end that were damaged and are out of the way.
DAMAGED = ".damaged"
#: The key of a sealed file that holds the checksum of all its others.
SEAL = "checksum"
_LONGEST_STEM = 150  # bytes of a name that its temporary one repeats: names have 255 at most


@contextmanager
def replacing(path: str | Path, tag: str | None = None) -> Iterator[Path]:
    """A temporary name beside ``path`` that takes its place at the end, or vanishes on any error,
    Ctrl-C included: nobody ever sees half a file.

    Args:
        path: the file; an existing one stays until it is replaced.
        tag: what tells the temporary name from those of other writers; default, this process's
            number. Where one process alone writes, one that is always the same: what a killed run
            left is then overwritten.

    Raises:
        OSError: it cannot be written; the error names ``path``.
    """
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):  # /dev/null must stay what it is
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    stem = path.stem.encode()[:_LONGEST_STEM].decode(errors="ignore")
    # A folder of its own: some libraries write beside the file that they are told, under a name of
    # theirs, and leave that behind when they are killed.
    holder = path.with_name(f".{stem}.{tag or os.getpid()}.partial")
    temporary = holder / path.name
    try:
        shutil.rmtree(holder, ignore_errors=True)
        holder.mkdir()
        with temporary.open("xb") as made:  # what the umask leaves, without changing it to ask
            mode = stat.S_IMODE(os.fstat(made.fileno()).st_mode)
        yield temporary
        # Some libraries replace the file by one of their own, which nobody else may read.
        os.chmod(temporary, mode)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        # PyAV's errors have the name as a protocol and a path.
        name = error.filename and str(error.filename).removeprefix("file:")
        if error.strerror is None or name not in (None, str(temporary), str(holder)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    except Exception as error:
        if (number := _system_error(error)) is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def write_text(path: str | Path, text: str, tag: str | None = None) -> None:
    """Writes a UTF-8 file, as ``replacing`` does."""
    with replacing(path, tag) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_sealed(path: str | Path, values: Mapping[str, object], tag: str | None = None) -> None:
    """Writes a JSON object and, under ``SEAL``, the checksum by which ``read_sealed`` knows it."""
    sealed = {**values, SEAL: _checksum(values)}
    write_text(path, json.dumps(sealed, indent=1, ensure_ascii=False) + "\n", tag)


def read_sealed(path: str | Path) -> JsonObject:
    """What ``write_sealed`` wrote, without the checksum; versions before 0.2 wrote none.

    Raises:
        FileNotFoundError: there is no such file. OSError: it cannot be read.
        ValueError: it is damaged, or was changed by hand.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"'{path}' is damaged: it is not JSON ({error})") from None
    if not isinstance(values, dict):
        raise ValueError(f"'{path}' is damaged: it is not a JSON object")
    if SEAL in values and values.pop(SEAL) != _checksum(values):
        raise ValueError(
            f"'{path}' is damaged or was changed by hand: its checksum is that of other content"
        )
    return values


def _checksum(values: Mapping[str, object]) -> str:
    plain = json.loads(json.dumps(values))  # tuples are lists by the time they are read
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def put_aside(path: Path) -> Path:
    """Renames a damaged file or folder, whose name is needed; returns where it is now. What was
    put aside before stays."""
    target, count = path.with_name(path.name + DAMAGED), 1
    while target.exists():
        count += 1
        target = path.with_name(f"{path.name}{DAMAGED}-{count}")
    path.rename(target)
    sync_folder(path.parent)
    return target


def sync_folder(folder: str | Path) -> None:
    """Flushes the list of a folder's files, where the system can."""
    if os.name == "nt":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def digest(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _system_error(error: Exception) -> int | None:
    """The system's number of an error of safetensors, whose own class says "full disk" and "bad
    file" alike."""
    if type(error).__name__ != "SafetensorError":
        return None
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None
