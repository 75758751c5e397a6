"""Types for argparse, each with a clear refusal, and the arguments that commands share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

from syncflow.sampling import OPTIONS


def number(
    kind: type, least: float, open_end: bool = False, most: float | None = None
) -> Callable[[str], Any]:
    """A finite number of ``kind`` that is at least (``open_end``: more than) ``least`` and at most
    ``most``."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}") from None
        if not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"it must be finite, got {text}")
        if not (value > least if open_end else value >= least):
            bound = f"more than {least:g}" if open_end else f"at least {least:g}"
            raise argparse.ArgumentTypeError(f"it must be {bound}, got {text}")
        if most is not None and value > most:
            raise argparse.ArgumentTypeError(f"it must be at most {most:g}, got {text}")
        return value

    return parse


def seed(text: str) -> int:
    """A seed that torch takes."""
    value = number(int, 0)(text)
    if value >= 2**63:
        raise argparse.ArgumentTypeError(f"it must be less than 2^63, got {text}")
    return value


count = number(int, 1)
positive, real = number(float, 0, open_end=True), number(float, 0)


def times(text: str) -> list[float]:
    """Seconds, such as 0.4,1.1."""
    return [number(float, 0)(part) for part in text.split(",")]


def levels(text: str) -> list[int]:
    """Levels of impacts, such as 1,2."""
    try:
        found = [int(level) for level in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list like 1,2") from None
    if len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{text!r} names a level twice")
    return found


#: Of a clip, or of a film that gets a sound, in one call.
MOST_SECONDS = 600


def seconds(text: str) -> float:
    """The length of a clip."""
    return at_most(positive, MOST_SECONDS, " (ten minutes)")(text)


def at_most(kind: Callable[[str], Any], most: float, unit: str = "") -> Callable[[str], Any]:
    """What ``kind`` reads, if it is not more than ``most``."""

    def parse(text: str) -> Any:
        value = kind(text)
        if value > most:
            raise argparse.ArgumentTypeError(f"it must be at most {most:g}{unit}, got {text}")
        return value

    return parse


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """How to sample, for every command that generates."""
    for name, option in OPTIONS.items():
        what = f"{option.help} (default: the model's)"
        flag = f"--{name.replace('_', '-')}"
        if option.choices:
            parser.add_argument(flag, choices=option.choices, help=what)
            continue
        least = option.least if option.above is None else option.above
        assert least is not None, name
        kind = number(option.kind, least, option.above is not None, option.most)
        parser.add_argument(flag, type=kind, metavar="N", help=what)
