"""Copies of one film under several names: one group, so that they never train and test."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from syncflow.data.prepare.sources import Source

#: Bytes at the beginning and the end that tell most films of one size apart.
_ENDS = 1 << 16


def joined(sources: Sequence[Source], root: Path) -> tuple[list[Source], int]:
    """The sources with the groups of equal files made one, by the name that sorts first, and how
    many files are a copy of another. Only files of one size are read."""
    names = sorted({source.file for source in sources})
    equal: list[list[str]] = [names]
    for told_apart_by in (_size, _ends, _content):
        equal = [part for names in equal for part in _parts(names, root, told_apart_by)]
    first: dict[str, str] = {}  # group -> one that it is joined to, and so on to one of itself

    def leader(group: str) -> str:
        while first.get(group, group) != group:
            group = first[group]
        return group

    groups_of: dict[str, set[str]] = defaultdict(set)
    for source in sources:
        groups_of[source.file].add(source.group)
    for names in equal:
        leaders = sorted({leader(group) for name in names for group in groups_of[name]})
        first |= dict.fromkeys(leaders, leaders[0])
    count = sum(len(names) - 1 for names in equal)
    if not count:
        return list(sources), 0
    return [replace(source, group=leader(source.group)) for source in sources], count


def _parts(
    names: Iterable[str], root: Path, told_apart_by: Callable[[Path], Hashable]
) -> list[list[str]]:
    """The names in parts of files that are alike, those of which there is one left out."""
    alike: dict[Hashable, list[str]] = defaultdict(list)
    for name in names:
        try:
            alike[told_apart_by(root / name)].append(name)
        except (OSError, ValueError):  # decoding will say what is wrong with it
            continue
    return [part for key, part in alike.items() if key and len(part) > 1]


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _ends(path: Path) -> bytes:
    with path.open("rb") as file:
        begin = file.read(_ENDS)
        file.seek(max(0, path.stat().st_size - _ENDS))
        return hashlib.sha256(begin + file.read(_ENDS)).digest()


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
