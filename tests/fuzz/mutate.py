"""Ways to damage files: each takes a random generator and bytes or JSON, and says what it did."""

from __future__ import annotations

import copy
import json
import random
import struct
from typing import Any

#: What stands in for any value of a JSON file.
WRONG = (
    None, True, "x", "", [], {}, [0], {"x": 1}, 0, -1, 1, 0.5, 1e12, -1e12, 10**12, 1e308, 2**63,
    float("nan"), float("inf"), float("-inf"), "../../etc/passwd",
)  # fmt: skip
_NUMBERS = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE, 1_000_000, 1_000_000_000)
_CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"udta", b"dinf", b"meta")
#: Boxes of mp4 files that hold times, sizes and places.
_FIELDS = (
    b"mvhd", b"tkhd", b"mdhd", b"elst", b"stts", b"ctts", b"stsz", b"stsc", b"stco", b"co64",
    b"stss", b"stsd", b"hdlr", b"ftyp",
)  # fmt: skip


def json_value(rng: random.Random, text: str) -> tuple[str, str]:
    """Any value, however deep, becomes another; or its key goes."""
    value = json.loads(text)
    places = list(_places(value))
    path = rng.choice(places)
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    name = ".".join(map(str, path))
    if rng.random() < 0.1:
        del parent[path[-1]]
        return f"{name} is gone", json.dumps(value)
    chosen = copy.deepcopy(rng.choice(WRONG))
    parent[path[-1]] = chosen
    return f"{name} = {chosen!r}", json.dumps(value)


def _places(value: Any, path: tuple = ()) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in items:
        yield (*path, key)
        if isinstance(child, dict | list):
            yield from _places(child, (*path, key))


def truncated(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    size = rng.choice([0, 1, 7, 8, rng.randrange(max(1, len(data))), max(0, len(data) - 1)])
    return f"cut to {size} of {len(data)} bytes", data[:size]


def flipped(rng: random.Random, data: bytes, end: int | None = None) -> tuple[str, bytes]:
    """One to eight bits of the first ``end`` bytes."""
    out = bytearray(data)
    end = min(len(out), end or len(out))
    places = [rng.randrange(end) for _ in range(rng.choice([1, 1, 2, 8]))]
    for place in places:
        out[place] ^= 1 << rng.randrange(8)
    return f"bits of bytes {places}", bytes(out)


def safetensors_header(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    """A bit or a value of the header, or its length."""
    size = int.from_bytes(data[:8], "little")
    kind = rng.randrange(3)
    if kind == 0:
        return flipped(rng, data, 8 + size)
    if kind == 1:
        said, text = json_value(rng, data[8 : 8 + size].decode())
        header = text.encode()
        return f"header: {said}", struct.pack("<Q", len(header)) + header + data[8 + size :]
    length = rng.choice([0, 1, size - 1, size + 1, len(data), 2**31, 2**63, 2**64 - 1])
    return f"header of {length} bytes", struct.pack("<Q", length % 2**64) + data[8:]


def boxes(data: bytes, begin: int = 0, end: int | None = None) -> list[tuple[bytes, int, int]]:
    """(name, begin, size) of the boxes of an mp4 file, also of those in others."""
    out, end = [], len(data) if end is None else end
    while begin + 8 <= end:
        size, name = int.from_bytes(data[begin : begin + 4], "big"), data[begin + 4 : begin + 8]
        if size < 8:
            break
        out.append((name, begin, size))
        if name in _CONTAINERS:
            out += boxes(data, begin + 8, min(begin + size, end))
        begin += size
    return out


def box_size(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    name, begin, size = rng.choice(boxes(data))
    new = rng.choice([0, 1, 7, 8, size - 1, size + 1, 2 * size, 0x7FFFFFFF, 0xFFFFFFFF])
    return f"{name.decode()} of {new} bytes", _with(data, begin, new)


def box_field(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    """Four bytes of a box that holds times, sizes or places."""
    chosen = [box for box in boxes(data) if box[0] in _FIELDS]
    name, begin, size = rng.choice(chosen)
    place = begin + 8 + 4 * rng.randrange(max(1, (size - 8) // 4))
    new = rng.choice([*_NUMBERS, rng.randrange(2**32), rng.randrange(2**16)])
    return f"{name.decode()} + {place - begin} = {new}", _with(data, place, new)


def _with(data: bytes, place: int, number: int) -> bytes:
    return data[:place] + struct.pack(">I", number) + data[place + 4 :]


def film(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    """Any of them; of files without boxes, flips within the first and any bytes."""
    if data[4:8] == b"ftyp" and rng.random() < 0.7:
        return rng.choice([box_size, box_field, box_field])(rng, data)
    kind = rng.randrange(4)
    if kind == 0:
        return truncated(rng, data)
    if kind == 1:
        first = rng.randrange(len(data))
        size = rng.choice([4, 64, 4096])
        return f"zeros at {first}, {size}", data[:first] + bytes(size) + data[first + size :]
    return flipped(rng, data, 2048 if kind == 2 else None)
