"""Types for argparse, each with a clear refusal, and the arguments that commands share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any


def number(kind: type, least: float, open_end: bool = False) -> Callable[[str], Any]:
    """A finite number of ``kind`` that is at least (``open_end``: more than) ``least``."""

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


def levels(text: str) -> list[int]:
    """Levels of impacts, such as 1,2."""
    try:
        found = [int(level) for level in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list like 1,2") from None
    if len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{text!r} names a level twice")
    return found


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """How to sample, for every command that generates."""
    add = parser.add_argument
    add("--steps", type=count, help="solver steps (default: the model's)")
    what = "of the sound, where it moves alone (default: as --steps)"
    add("--audio-steps", type=count, metavar="N", help=what)
    add("--guidance", type=real, help="strength of the prompt (default: the model's)")
    what = "the same for the sound (default: as --guidance)"
    add("--audio-guidance", type=real, help=what)
    add("--solver", choices=("euler", "midpoint", "heun", "ab2"), help="default: the model's")
    add("--schedule", choices=("joint", "cascade"), help="the two clocks (default: the model's)")
    what = "more than 1: more of the picture's steps near noise (default: the model's)"
    add("--shift", type=positive, help=what)
    what = "share of the picture's noise drawn anew at every step, 0 to 1 (default: the model's)"
    add("--renewal", type=real, help=what)
