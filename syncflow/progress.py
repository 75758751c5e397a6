"""How far a command is: a bar on a terminal, elsewhere a line every few seconds.

The only file that touches tqdm.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO, cast

if TYPE_CHECKING:
    from tqdm import tqdm


#: Seconds between two lines where stderr is no terminal.
LINE_SECONDS = 5
_LINE = "{desc}: {percentage:.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


def bar(steps: Iterable[object] | None = None, *, shown: bool = True, **options: object) -> tqdm:
    """A tqdm over ``steps``, or over ``total`` updates; ``options`` are tqdm's own.

    A log file or a pipe gets lines, the first and the last one included, and no escape codes.
    """
    from tqdm import tqdm

    stream = cast("TextIO | _Lines | None", options.pop("file", sys.stderr))
    shown = shown and stream is not None  # Python's for one that was closed
    if shown and stream is not None and not _is_terminal(stream):
        # Without miniters tqdm counts on steps that take as long as the last ones did.
        options |= {"mininterval": LINE_SECONDS, "miniters": 1, "bar_format": _LINE}
        stream = _Lines(stream)
    return tqdm(steps, disable=not shown, file=stream, **options)


def _is_terminal(stream: object) -> bool:
    return bool(getattr(stream, "isatty", lambda: False)())


class _Lines:
    """A file for tqdm, which draws over what it drew before: here each drawing is a line."""

    def __init__(self, stream: TextIO | _Lines) -> None:
        self.stream, self.last = stream, ""

    def write(self, text: str) -> None:
        line = text.strip()
        if line and line != self.last:
            self.stream.write(line + "\n")
            self.last = line

    def flush(self) -> None:
        self.stream.flush()
