"""Lists of films as people and programs write them: csv, jsonl, parquet -> rows by column name."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from syncflow import plain_text
from syncflow.data import json_lines

#: Where in the file (", line 3"), and what it says there by column.
Row = tuple[str, Mapping[str, object]]
_DELIMITERS = ",;\t"


def rows(path: Path) -> Iterator[Row]:
    """The rows of a list, by the ending of its name.

    Raises:
        ValueError: it is damaged; the message names file and line.
    """
    return READERS[path.suffix.lower()](path)


def csv_cells(path: Path, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """The line on which each record of a csv begins, and its cells.

    Raises:
        ValueError: a quote is never closed, or closed in the middle of a cell; the message names
            the line where it opens.
    """
    text = plain_text.read(path)
    table = csv.reader(
        _lines(text), strict=True, skipinitialspace=True, delimiter=delimiter, quotechar='"'
    )
    begins = 1
    try:
        for cells in table:
            if cells:
                yield begins, cells
            begins = table.line_num + 1
    except csv.Error as error:
        opened = _stray_quote(text, delimiter)
        if opened is None:
            raise ValueError(f"'{path}', line {begins}: {error}") from None
        raise ValueError(
            f"'{path}', line {opened}: a quote opens here and is not closed before a comma or the "
            'end of the line; write "" for a quote within a quoted cell'
        ) from None


def _lines(text: str) -> Iterator[str]:
    for line in plain_text.lines(text):
        yield line + "\n"


def _stray_quote(text: str, delimiter: str) -> int | None:
    """The line where the first quote opens that does not close as it should."""
    line, opened, fresh, closing = 1, 0, True, False
    for letter in text.replace("\r\n", "\n").replace("\r", "\n"):
        if opened and not closing:
            closing = letter == '"'
        elif closing and letter == '"':  # a doubled one is a letter
            closing = False
        elif closing and letter not in (delimiter, "\n"):
            return opened
        elif letter == '"' and fresh:
            opened = line
        else:
            opened, closing = 0, False
            fresh = letter in (delimiter, "\n") or (fresh and letter == " ")
        line += letter == "\n"
    return opened if opened and not closing else None


def _csv(path: Path) -> Iterator[Row]:
    first = plain_text.read(path).partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)  # spreadsheets of some languages use another
    header: list[str] | None = None
    for line, cells in csv_cells(path, delimiter):
        if header is None:
            header = [name.strip().lower() for name in cells]
            continue
        if len(cells) > len(header):
            raise ValueError(
                f"'{path}', line {line}: {len(cells)} cells for {len(header)} columns; put a text "
                'with commas between quotes, "like, this"'
            )
        yield f", line {line}", dict(zip(header, (c.strip() for c in cells), strict=False))


def _jsonl(path: Path) -> Iterator[Row]:
    for line, row in json_lines.numbered(path):
        yield f", line {line}", row


def _parquet(path: Path) -> Iterator[Row]:
    from pyarrow import ArrowInvalid, parquet

    try:
        table = parquet.read_table(path).to_pylist()
    except ArrowInvalid as error:
        raise ValueError(f"'{path}' is not a parquet file: {error}") from None
    for row in table:
        yield "", row


#: By ending.
READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".csv": _csv,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}
