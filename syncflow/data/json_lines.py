"""Lists of objects, one a line, as people and tools write them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file; empty lines are skipped.

    Raises:
        ValueError: a line is not a JSON object; the message names file and line.
    """
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"'{path}', line {number} is not JSON: {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f"'{path}', line {number} is not an object")
            yield row
