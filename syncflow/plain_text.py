"""Text as people's editors save it: UTF-8 with or without a mark, or UTF-16 with one.

The one reader of captions, lists, prompts and configs. What is nothing of these is an error that
names file and line: bytes that are no text never become a caption.
"""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Iterator
from pathlib import Path

#: Bytes of the largest file that is taken for text.
LIMIT = 1 << 30
_UTF16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


def read(path: Path, limit: int = LIMIT, where: str | None = None) -> str:
    """The text of a file, without its mark. ``where``: what errors in it begin with.

    Raises:
        FileNotFoundError: there is no such file. ValueError: it is no text, or has more than
            ``limit`` bytes; the message names file and line.
    """
    if not path.exists():
        raise FileNotFoundError(f"no such file: '{path}'")
    if not path.is_file():  # a pipe would be waited for
        raise ValueError(f"'{path}' is not a file")
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"'{path}' is no text: it has more than {limit} bytes")
    return decode(data, f"'{path}', " if where is None else where)


def decode(data: bytes, where: str) -> str:
    """The text of some bytes; where they are no text, a ValueError begins with ``where``."""
    encoding = _UTF16.get(data[:2], "utf-8-sig")
    data = data[2:] if encoding in _UTF16.values() else data
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].decode(encoding, "ignore").count("\n") + 1
        name = "UTF-8" if encoding == "utf-8-sig" else "UTF-16"
        raise ValueError(f"{where}line {line} is not {name} text; save it as UTF-8") from None
    if "\0" in text:  # UTF-16 or UTF-32 without a mark, or no text at all
        line = text[: text.index("\0")].count("\n") + 1
        raise ValueError(f"{where}line {line} has a NUL character; save it as UTF-8 text")
    return text


def lines(text: str) -> Iterator[str]:
    """Its lines, by the line ends of every system and by nothing else that Python splits at."""
    for line in io.StringIO(text, newline=None):
        yield line.rstrip("\n")


def parse_json(text: str, where: str) -> object:
    """The value of a JSON text.

    Raises:
        ValueError: it is none, or holds half of a character; the message begins with ``where``.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not JSON: {error}") from None
    except RecursionError:
        raise ValueError(f"{where} is not JSON that can be read: it is nested too deeply") from None
    except ValueError as error:  # an integer of thousands of digits
        raise ValueError(f"{where} is not JSON that can be read: {error}") from None
    if "\\ud" in text.lower():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError(f"{where} holds half of a surrogate pair, which is no text") from None
    return value


def read_json(path: Path) -> object:
    """The value of a JSON file; FileNotFoundError or ValueError name it."""
    return parse_json(read(path, where=f"{path} is not JSON: "), str(path))
