"""Lists of things to generate: a file of prompts, a folder of films."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from syncflow import plain_text
from syncflow.data.prepare.sources import SUFFIXES


def prompts(path: str) -> list[str]:
    """The lines of a text file, or of stdin ("-"), but for empty ones.

    Raises:
        FileNotFoundError: no such file. ValueError: no line with a prompt, or no text; the message
            has the line.
    """
    if path == "-":
        text = plain_text.decode(sys.stdin.buffer.read(), "stdin")
    elif not Path(path).is_file():
        raise FileNotFoundError(f"there is no file of prompts '{path}'")
    else:
        text = plain_text.read(Path(path))
    found = [line.strip() for line in text.splitlines() if line.strip()]
    if not found:
        raise ValueError(f"'{path}' has no prompt: write one a line")
    return found


def films(folder: Path) -> list[Path]:
    """The films in a folder, by name.

    Raises:
        ValueError: there is none.
    """
    found = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        raise ValueError(f"'{folder}' has no films ({', '.join(SUFFIXES)})")
    return found


def one_each(words: Sequence[str], found: Sequence[Path]) -> list[str]:
    """A prompt for every film: none, one for all, or one each.

    Raises:
        ValueError: another number of them.
    """
    if len(words) in (0, 1):
        return [words[0] if words else ""] * len(found)
    if len(words) != len(found):
        raise ValueError(
            f"{len(words)} prompts for {len(found)} films: give none, one for all, or one for each"
        )
    return list(words)
