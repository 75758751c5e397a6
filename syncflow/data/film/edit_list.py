"""The edit list of a written mp4 or mov: how much of its picture a player shows.

FFmpeg writes the beginning of what is shown, and as its end always that of the last packet.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_HEADER = 8


def end_first_track(path: Path, seconds: float) -> None:
    """What comes ``seconds`` after the first picture shown, in the first track, is not shown."""
    with path.open("r+b") as file:
        movie = _find(file, (0, path.stat().st_size), b"moov")
        file.seek(_find(file, movie, b"mvhd")[0])
        version = file.read(20)[0]
        file.seek(_find(file, movie, b"mvhd")[0] + (20 if version else 12))
        (clock,) = struct.unpack(">I", file.read(4))
        edits = _find(file, _find(file, _find(file, movie, b"trak"), b"edts"), b"elst")
        file.seek(edits[0])
        version, count = struct.unpack(">B3xI", file.read(8))
        length = ">Q" if version else ">I"
        # An empty edit would come first; here the picture begins at once.
        place = edits[0] + 8 + (count - 1) * (20 if version else 12)
        file.seek(place)
        (whole,) = struct.unpack(length, file.read(struct.calcsize(length)))
        file.seek(place)
        file.write(struct.pack(length, min(whole, round(seconds * clock))))


def _boxes(file: BinaryIO, span: tuple[int, int]) -> Iterator[tuple[bytes, int, int]]:
    """(name, begin, end) of the contents of each box in a part of the file."""
    at, end = span
    while at + _HEADER <= end:
        file.seek(at)
        size, name = struct.unpack(">I4s", file.read(_HEADER))
        head = _HEADER
        if size == 1:
            (size,) = struct.unpack(">Q", file.read(8))
            head += 8
        size = size or end - at
        if size < head:
            break
        yield name, at + head, at + size
        at += size


def _find(file: BinaryIO, span: tuple[int, int], wanted: bytes) -> tuple[int, int]:
    for name, begin, end in _boxes(file, span):
        if name == wanted:
            return begin, end
    raise ValueError(f"the written file has no '{wanted.decode()}'")
