"""Numbers that come from outside: of the right kind, finite, and within bounds that make sense.

One owner for all that take them: the arguments of ``generate``, the command line, and every field
of a config, a manifest or a header, where a range stands in the annotation:
``height: Annotated[int, Whole(1, 16_384, "px")]``. Numbers of any library count, ``numpy``'s too; a
bool is no number. The module is light.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Range:
    """From ``least`` to ``most``, both finite, in ``unit``; ``above`` leaves ``least`` itself out
    and ``below`` ``most``."""

    least: float
    most: float
    unit: str = ""
    above: bool = False
    below: bool = False

    def __post_init__(self) -> None:
        assert math.isfinite(self.least) and math.isfinite(self.most) and self.least < self.most

    def check(self, name: str, value: Any) -> Any:
        """``value`` as Python's own number.

        Raises:
            ValueError: it is not in the range; the message has ``name``, the range and the value.
        """
        if not self.holds(value):
            raise ValueError(f"{name} must be {self}, got {_shown(value)}")
        return self._plain(value)

    def parse(self, text: str) -> Any:
        """The number that a text says.

        Raises:
            ValueError: it says none, or one that is not in the range; the message needs a name
                before it.
        """
        try:
            value = self._plain(text.strip())
        except ValueError:
            value = None
        if value is None or not self.holds(value):
            raise ValueError(f"must be {self}, got {text.strip()[:60] or 'nothing'}")
        return value

    def holds(self, value: Any) -> bool:
        """Whether it is a number of this range."""
        if isinstance(value, bool) or not isinstance(value, self._kind()):
            return False
        # Comparisons alone: NaN fails them, and integers too great for a float do not overflow.
        over = value > self.least if self.above else value >= self.least
        return bool(over and (value < self.most if self.below else value <= self.most))

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        least, most = _number(self.least), _number(self.most)
        if not (self.above or self.below):
            return f"{self._what()} between {least} and {most}{unit}"
        low = f"more than {least}" if self.above else f"at least {least}"
        return f"{self._what()}, {low} and {'less than' if self.below else 'at most'} {most}{unit}"

    def _kind(self) -> type[Any]:
        return numbers.Real

    def _what(self) -> str:
        return "a number"

    def _plain(self, value: Any) -> Any:
        return float(value)

    # What pydantic asks of an annotation.

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(self._of_field)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        low = "exclusiveMinimum" if self.above else "minimum"
        high = "exclusiveMaximum" if self.below else "maximum"
        return {"type": self._json_type(), low: self.least, high: self.most}

    def _of_field(self, value: Any) -> Any:
        if not self.holds(value):  # pydantic says of which field
            raise ValueError(f"must be {self}, got {_shown(value)}")
        return self._plain(value)

    def _json_type(self) -> str:
        return "number"


class Real(Range):
    """Any number of the range."""


class Whole(Range):
    """A whole number of the range."""

    def _kind(self) -> type:
        return numbers.Integral

    def _what(self) -> str:
        return "a whole number"

    def _plain(self, value: Any) -> Any:
        return int(value)

    def _json_type(self) -> str:
        return "integer"


#: Of everything random, with all its bits: 0 to 2^63 - 1.
SEED = Whole(0, 2**63 - 1)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
