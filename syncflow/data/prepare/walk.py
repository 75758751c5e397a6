"""The files below a folder, linked folders too, each folder once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

#: Endings of what is written about clips.
_TEXTS = (".txt", ".json", ".jsonl", ".csv", ".parquet", ".md")


def files(folder: Path) -> Iterator[Path]:
    """All files below ``folder`` but hidden ones, in the order of their names within each folder.

    Links to folders are followed. A folder that was seen is not entered again, so that a link to a
    folder around it ends there, and what has several names comes once: by the name without a link
    where it has one.

    Raises:
        OSError: a folder cannot be read.
    """
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        links: list[Path] = []
        yield from _below(waiting.pop(0), seen, links)
        waiting += links


def _below(folder: Path, seen: set[tuple[int, int]], links: list[Path]) -> Iterator[Path]:
    waiting = [folder]
    while waiting:
        folder = waiting.pop()
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        inner = []
        # Names beginning with a dot are other programs' leftovers.
        for path in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
            if not path.is_dir():
                yield path
            elif path.is_symlink():
                links.append(path)
            else:
                inner.append(path)
        waiting += reversed(inner)


def films(folder: Path, endings: Sequence[str]) -> list[Path]:
    """The files whose names end so, sorted; a link that leads nowhere is one too.

    Raises:
        ValueError: a name is no text.
    """
    found = [path for path in files(folder) if path.suffix.lower() in endings]
    for path in found:
        try:
            path.as_posix().encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"the name of {os.fsencode(path)!r} is not UTF-8; rename the file"
            ) from None
    return sorted(path for path in found if path.is_file() or not path.exists())


def others(folder: Path, endings: Sequence[str]) -> dict[str, int]:
    """How many files end otherwise, by ending; those of texts are not counted."""
    found = Counter(path.suffix.lower() or "no ending" for path in files(folder))
    known = (*endings, *_TEXTS)
    return {ending: count for ending, count in found.most_common() if ending not in known}


def told(counts: Mapping[str, int]) -> str:
    """The commonest of ``others``, in words."""
    shown = [f"{count} {ending}" for ending, count in list(counts.items())[:5]]
    return ", ".join([*shown, *(["..."] if len(counts) > 5 else [])])
