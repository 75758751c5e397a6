"""A line on the screen while a command waits for imports."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def notice(text: str) -> Iterator[None]:
    """Shows ``text`` while the block runs and takes it away afterwards. Where stderr is no terminal
    nothing is shown: what is kept of it is results and errors."""
    if not sys.stderr.isatty():
        yield
        return
    print(text, end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
