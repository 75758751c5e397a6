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
from typing import TYPE_CHECKING, Generic, TypeGuard, TypeVar, cast

if TYPE_CHECKING:
    from pydantic_core import CoreSchema


Number = TypeVar("Number", bound=float)


@dataclass(frozen=True)
class Range(Generic[Number]):
    """From ``least`` to ``most``, both finite, in ``unit``; ``above`` leaves ``least`` itself out
    and ``below`` ``most``."""

    least: float
    most: float
    unit: str = ""
    above: bool = False
    below: bool = False

    def __post_init__(self) -> None:
        assert math.isfinite(self.least) and math.isfinite(self.most) and self.least < self.most

    def check(self, name: str, value: object) -> Number:
        """``value`` as Python's own number.

        Raises:
            ValueError: it is not in the range; the message has ``name``, the range and the value.
        """
        if not self.holds(value):
            raise ValueError(f"{name} must be {self}, got {_shown(value)}")
        return self._plain(value)

    def parse(self, text: str) -> Number:
        """The number that a text says.

        Raises:
            ValueError: it says none, or one that is not in the range; the message needs a name
                before it.
        """
        value: Number | None
        try:
            value = self._plain(text.strip())
        except ValueError:
            value = None
        held = value is not None and self.holds(value)
        if value is None or not held:
            raise ValueError(f"must be {self}, got {text.strip()[:60] or 'nothing'}")
        return value

    def holds(self, value: object) -> TypeGuard[float]:
        """Whether it is a number of this range."""
        if isinstance(value, bool) or not isinstance(value, self._kind()):
            return False
        # Comparisons alone: NaN fails them, and integers too great for a float do not overflow.
        number = cast(float, value)
        over = number > self.least if self.above else number >= self.least
        return bool(over and (number < self.most if self.below else number <= self.most))

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        least, most = _number(self.least), _number(self.most)
        if not (self.above or self.below):
            return f"{self._what()} between {least} and {most}{unit}"
        low = f"more than {least}" if self.above else f"at least {least}"
        return f"{self._what()}, {low} and {'less than' if self.below else 'at most'} {most}{unit}"

    def _kind(self) -> type:
        return numbers.Real

    def _what(self) -> str:
        return "a number"

    def _plain(self, value: float | str) -> Number:
        raise NotImplementedError

    # What pydantic asks of an annotation.

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(self._of_field)

    def __get_pydantic_json_schema__(self, schema: object, handler: object) -> dict[str, object]:
        low = "exclusiveMinimum" if self.above else "minimum"
        high = "exclusiveMaximum" if self.below else "maximum"
        return {"type": self._json_type(), low: self.least, high: self.most}

    def _of_field(self, value: object) -> Number:
        if not self.holds(value):  # pydantic says of which field
            raise ValueError(f"must be {self}, got {_shown(value)}")
        return self._plain(value)

    def _json_type(self) -> str:
        return "number"


class Real(Range[float]):
    """A number of the range, whole or not."""

    def _plain(self, value: float | str) -> float:
        return float(value)


class Whole(Range[int]):
    """A whole number of the range."""

    def _kind(self) -> type:
        return numbers.Integral

    def _what(self) -> str:
        return "a whole number"

    def _plain(self, value: float | str) -> int:
        return int(value)

    def _json_type(self) -> str:
        return "integer"


#: Of everything random, with all its bits: 0 to 2^63 - 1.
SEED = Whole(0, 2**63 - 1)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
