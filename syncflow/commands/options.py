"""Types for argparse, each with a clear refusal, and the arguments that commands share."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable

from syncflow import ranges
from syncflow.ranges import Number, Range, Real, Whole
from syncflow.sampling import OPTIONS


def number(within: Range[Number]) -> Callable[[str], Number]:
    """A number of a range."""

    def parse(text: str) -> Number:
        try:
            return within.parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"it {error}") from None

    return parse


seed = number(ranges.SEED)
count = number(Whole(1, 10**9))
port = number(Whole(1, 65_535))
positive, real = number(Real(0, 1e6, above=True)), number(Real(0, 1e6))


def times(text: str) -> list[float]:
    """Seconds, such as 0.4,1.1."""
    return [real(part) for part in text.split(",")]


def contacts(text: str) -> list[float]:
    """Seconds, or no times for "none"."""
    return [] if text.casefold() == "none" else times(text)


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


def at_most(kind: Callable[[str], Number], most: float, unit: str = "") -> Callable[[str], Number]:
    """What ``kind`` reads, if it is not more than ``most``."""

    def parse(text: str) -> Number:
        value = kind(text)
        if value > most:
            raise argparse.ArgumentTypeError(f"it must be at most {most:g}{unit}, got {text}")
        return value

    return parse


def share(text: str) -> tuple[int, int]:
    """A part of the work, such as 2/8: which, from 0, and of how many."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a share like 2/8")
    return int(found[1]) - 1, int(found[2])


def add_share(parser: argparse.ArgumentParser, what: str) -> None:
    """``--share``, for commands whose work several processes do."""
    text = f"{what} the I-th of N parts (default: as torchrun, srun or a Slurm array has numbered "
    text += "this process; else all)"
    parser.add_argument("--share", type=share, metavar="I/N", help=text)


def add_model(parser: argparse.ArgumentParser, what: str = "") -> None:
    """``--model``, for every command that needs one; ``what`` it is needed for."""
    text = f"{what}a folder or a Hugging Face id, owner/name (default: the model in the package)"
    parser.add_argument("--model", help=text)


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """How to sample, for every command that generates."""
    for name, option in OPTIONS.items():
        what = f"{option.help} (default: the model's)"
        flag = f"--{name.replace('_', '-')}"
        if option.choices:
            parser.add_argument(flag, choices=option.choices, help=what)
        else:
            parser.add_argument(flag, type=number(option.range), metavar="N", help=what)
