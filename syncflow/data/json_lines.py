"""Lists of objects, one a line, as people and tools write them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from syncflow import plain_text
from syncflow.json_types import JsonObject


def read(path: Path) -> Iterator[JsonObject]:
    """The objects of a file; empty lines are skipped.

    Raises:
        ValueError: a line is no text or not a JSON object; the message names file and line.
    """
    for _, row in numbered(path):
        yield row


def numbered(path: Path) -> Iterator[tuple[int, JsonObject]]:
    """The same with the number of each line."""
    for number, line in enumerate(plain_text.lines(plain_text.read(path)), start=1):
        if not line.strip():
            continue
        row = plain_text.parse_json(line, f"'{path}', line {number}")
        if not isinstance(row, dict):
            raise ValueError(f"'{path}', line {number} is not an object")
        yield number, row
