"""Tables and their cells, once for all reports: as Markdown and as HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple


class Cell(NamedTuple):
    """The text of a number and, where it is known, of its interval."""

    value: str
    low: str = ""
    high: str = ""

    def markdown(self) -> str:
        """As it stands between two bars of a Markdown table."""
        return f"{self.value} [{self.low}, {self.high}]" if self.low else self.value

    def html(self) -> str:
        """As it stands inside a ``td``."""
        span = f" <small>{escape(self.low)} to {escape(self.high)}</small>" if self.low else ""
        return escape(self.value) + span


def cell(estimate: Sequence[float | None] | float | None, digits: int | None = None) -> Cell:
    """A number, or [value, low, high], as text: "-" for what is missing or not finite, no interval
    where it is the value itself or unknown. ``digits`` None: three, or what is left to see of small
    and great numbers."""
    numbers = estimate if isinstance(estimate, Sequence) else [estimate]
    texts = [_text(number, digits) for number in numbers] or ["-"]
    value, *bounds = texts
    plain = len(bounds) != 2 or "-" in bounds or bounds == [value, value]
    return Cell(value) if plain else Cell(value, *bounds)


def _text(number: float | None, digits: int | None) -> str:
    if not isinstance(number, (int, float)) or not math.isfinite(number):
        return "-"
    if digits is not None:
        return f"{number:.{digits}f}"
    if number and abs(number) < 0.1:
        return f"{number:.2g}"
    return f"{number:.3f}" if abs(number) < 100 else f"{number:.1f}"


def markdown(lines: Sequence[Sequence[str | Cell]]) -> str:
    """A table with its first line as the heading; "" without any."""
    if not lines:
        return ""
    texts = [[x.markdown() if isinstance(x, Cell) else x for x in line] for line in lines]
    rows = ["| " + " | ".join(line) + " |\n" for line in texts]
    return "".join([rows[0], "|" + "---|" * len(lines[0]) + "\n", *rows[1:]])


def html(lines: Sequence[Sequence[str | Cell]]) -> str:
    """The same for a page; what stands first in a line is a heading too."""
    if not lines:
        return ""
    rows = []
    for number, (first, *rest) in enumerate(lines):
        tag = "td" if number else "th"
        cells = [x.html() if isinstance(x, Cell) else escape(x) for x in (first, *rest)]
        body = "".join(f"<{tag}>{text}</{tag}>" for text in cells[1:])
        rows.append(f"<tr><th>{cells[0]}</th>{body}</tr>")
    return f'<div class="wide"><table>{"".join(rows)}</table></div>'
