"""What ``generate`` takes: the names and types of its arguments, and the checks of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypeAlias, TypedDict, cast

import numpy as np
from torch import Tensor

from syncflow import flow
from syncflow.clip import RANGES, Clip
from syncflow.generation.events import Times
from syncflow.generation.remarks.preview import Show
from syncflow.ranges import SEED, Whole
from syncflow.sampling import SamplingOptions

#: What of a clip is drawn anew.
Part = Literal["audio", "video", "both"]


class Array(Protocol):
    """A PIL image or an array of numpy."""

    @property
    def __array_interface__(self) -> Mapping[str, object]: ...


#: Pictures with a rate of their own, or the model's: uint8 [F,3,H,W].
Film: TypeAlias = Clip | str | Path | Tensor
#: A tensor is uint8 [3,H,W], an array [H,W,3].
Picture: TypeAlias = Tensor | str | Path | Array

#: Words that ``generate`` takes beside those of sampling.
_WORDS = {
    "v2a": ("one-pass", "paper"),
    "rank": ("sync", None),
    "part": ("audio", "video", "both"),
}
_TAKES = Whole(1, 1000)


class Numbers(NamedTuple):
    """What ``generate`` takes beside the numbers of sampling."""

    seed: int
    audio_takes: int
    seconds: float | None
    height: int | None
    width: int | None


class Size(TypedDict):
    """What was asked for of a clip's geometry; None = as the model has it."""

    seconds: float | None
    height: int | None
    width: int | None


class GenerateOptions(SamplingOptions, total=False):
    """All keyword arguments of ``generate`` but ``audio_takes``, on which depends what it returns;
    ``SyncFlow.generate`` says what they mean."""

    seconds: float | None
    height: int | None
    width: int | None
    seed: int
    negative_prompt: str | None
    negative_audio_prompt: str | None
    video: Film | Sequence[Film] | None
    image: Picture | None
    extend: Clip | str | Path | Sequence[Clip | str | Path] | None
    retake: Clip | str | Path | None
    span: tuple[float, float] | None
    part: Part
    contacts: Times | Sequence[Times] | None
    v2a: Literal["one-pass", "paper"]
    rank: Literal["sync"] | None
    callback: flow.Callback | None
    progress: bool
    preview: Show | None
    preview_every: int
    lora: str | Path | None
    strength: float


def checked(
    seed: object = 0,
    audio_takes: object = 1,
    seconds: object = None,
    height: object = None,
    width: object = None,
) -> Numbers:
    """``generate``'s own numbers as Python's; a size that is None stays.

    Raises:
        ValueError: one is not what its name says: not whole, not finite, or out of bounds.
    """

    def size(name: str, value: object) -> float | None:
        return None if value is None else RANGES[name].check(name, value)

    return Numbers(
        SEED.check("seed", seed),
        _TAKES.check("audio_takes", audio_takes),
        size("seconds", seconds),
        cast("int | None", size("height", height)),
        cast("int | None", size("width", width)),
    )


def choose(**given: object) -> None:
    """Raises ValueError where one of ``generate``'s own words is none that it knows."""
    for name, value in given.items():
        known = _WORDS[name]
        if value not in known:
            raise ValueError(f"unknown {name} {value!r}; known are {', '.join(map(str, known))}")


def texts(**given: object) -> None:
    """Raises ValueError where what is led away from is neither one text nor None."""
    for name, value in given.items():
        if not (value is None or isinstance(value, str)):
            raise ValueError(f"{name} must be a string, got {value!r}")
        _check_utf8(name, value or "")


def function(name: str, what: str, value: object) -> None:
    """Raises ValueError where ``value`` is neither None nor can be called, with ``what``."""
    if not (value is None or callable(value)):
        raise ValueError(f"{name} is a function that is given {what}, got {value!r}")


def flag(name: str, value: object) -> bool:
    """``value`` as Python's own, where it is a bool, numpy's too.

    Raises:
        ValueError: it is none, "no" and 0 among them.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def prompt_list(prompt: object) -> list[str]:
    """One sentence or several, in whatever they come, as a list.

    Raises:
        ValueError: it is neither.
    """
    several = hasattr(prompt, "__iter__") and not isinstance(prompt, (str, bytes, dict))
    several = several and getattr(prompt, "ndim", 1) == 1  # arrays of other shapes are no lists
    prompts = list(cast("Iterable[object]", prompt)) if several else [prompt]
    for one in prompts:
        if not isinstance(one, str):
            what = f"a prompt must be a string, got {one!r}"
            raise ValueError(what if several else f"{what}; give a sentence or a list of them")
        _check_utf8("a prompt", one)
    return [str(one) for one in prompts]  # numpy has strings of its own


def _check_utf8(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:  # what Python makes of other bytes on a command line
        raise ValueError(f"{name} must be UTF-8 text, got {text!r}") from None
