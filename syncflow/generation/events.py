"""When things are to touch, as a user says it, or as it was in a training clip."""

from __future__ import annotations

import itertools
import math
import numbers
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from syncflow.config import ModelConfig
from syncflow.generation.choice.candidates import said_count
from syncflow.ranges import Real

Times = Sequence[float]

#: Of some of the prompts, by their rows and seeds: seconds as of ``events``, or None.
When = Callable[[Sequence[int], Sequence[int]], Tensor | None]

_NEAREST = 5  # of so many rhythms that fit, the seed draws one
_PLAN = 7  # keeps what is drawn here apart from the noise of the same seed


def times(
    config: ModelConfig,
    contacts: Times | Sequence[Times] | None,
    prompts: Sequence[str],
    seconds: float,
    *,
    free: bool = True,
) -> When:
    """When things are to touch: as it was said, else as it is ``planned``.

    Args:
        config: of the model.
        contacts, prompts, seconds: as in ``events``; an empty list has nothing said or planned.
        free: whether nothing is given that knows already.

    Raises:
        ValueError: as ``events``.
    """
    said = events(contacts, len(prompts), bool(config.ddit.event_bins), seconds)

    def of(rows: Sequence[int], seeds: Sequence[int]) -> Tensor | None:
        if said is not None:
            return said[list(rows)]
        if contacts is not None or not free:
            return None
        return planned(config, [prompts[row] for row in rows], seeds, seconds)

    return of


def planned(
    config: ModelConfig, prompts: Sequence[str], seeds: Sequence[int], seconds: float
) -> Tensor | None:
    """Times as of ``events`` where nobody said any: for each prompt those of one of the training
    clips that the model's folder keeps (``ModelConfig.rhythms``), with as many contacts as the
    caption says where it says how many. None where the folder keeps none or the clip is of another
    length; NaN alone for a prompt that says nothing, or a number that no rhythm has.

    Args:
        config: of the model.
        prompts, seeds: one seed a prompt; it alone decides.
        seconds: of the clips.
    """
    if not config.rhythms or seconds != config.geometry.seconds:
        return None
    found = []
    for prompt, seed in zip(prompts, seeds, strict=True):
        count = said_count(prompt)
        fitting = [times for times in config.rhythms if count in (None, len(times))]
        if not prompt.strip() or not fitting:
            found.append(torch.full((1,), math.nan))
            continue
        drawn = np.random.default_rng([seed, _PLAN]).integers(len(fitting))
        found.append(torch.tensor(fitting[drawn], dtype=torch.float32))
    return torch.nn.utils.rnn.pad_sequence(found, batch_first=True, padding_value=math.nan)


def going_on(
    config: ModelConfig,
    prompt: str,
    before: Times,
    known: float,
    draw: np.random.Generator,
) -> list[float]:
    """Times (s) of a window after its first ``known`` seconds, where things touched ``before``:
    as in one of the training clips (``ModelConfig.rhythms``) that touched so too.

    Among those with as many contacts as the caption says, and as many of them in the known part,
    the seed draws one of the nearest. Its gaps go on from the last contact, longer or shorter as
    the last gap that is known says, so that bounces become shorter as they did.

    Args:
        config: of the model; it has rhythms.
        prompt: the caption.
        before: times in the window; what was before it is negative.
        known: s.
        draw: of the seed.
    """
    seen = [time for time in before if time >= 0]
    rhythms = config.rhythms or []
    split = [([t for t in r if t < known], [t for t in r if t >= known]) for r in rhythms]
    counts = said_count(prompt)
    like = [parts for parts in split if len(parts[0]) == len(seen)]
    fitting = [parts for parts in like if counts in (None, sum(map(len, parts)))] or like
    which = draw.random()
    if not fitting:
        return []
    far = [_far(old, seen) for old, _ in fitting]
    nearest = np.argsort(far, kind="stable")[:_NEAREST]
    old, new = fitting[nearest[int(which * len(nearest))]]
    if not old:
        return new
    scale = 1.0
    if len(old) > 1:
        scale = min(1.0, (seen[-1] - seen[-2]) / (old[-1] - old[-2]))
    times = [seen[-1] + scale * (time - old[-1]) for time in new]
    return [t for t in times if known < t < config.geometry.seconds]


def _far(old: Times, seen: Times) -> float:
    return sum(abs(a - b) for a, b in zip(old, seen, strict=True))


def events(
    contacts: Times | Sequence[Times] | None, prompts: int, takes_times: bool, seconds: float
) -> Tensor | None:
    """Seconds [P, N] for ``DDiT.prepare``, NaN where a prompt has fewer; None where none are said.

    Args:
        contacts: times in seconds from the clip's start for all prompts, or a list of them for
            each.
        prompts: P.
        takes_times: whether the model does (``DDiTConfig.event_bins``).
        seconds: of the clip.

    Raises:
        ValueError: the model takes none, or a time is no time of the clip.
    """
    lists = each(contacts, prompts, takes_times)
    within = Real(0, seconds, "s")
    for time in itertools.chain.from_iterable(lists or []):
        if not within.holds(time):
            raise ValueError(f"a contact must be at 0 to {seconds:g} seconds, got {time!r}")
    return None if lists is None else told(lists)


def each(
    contacts: Times | Sequence[Times] | None, prompts: int, takes_times: bool
) -> list[list[float]] | None:
    """The times of each prompt, whatever clip they are of; None where nobody says any.

    Args:
        contacts, prompts, takes_times: as in ``events``.

    Raises:
        ValueError: the model takes none, or they are no times, or lists for other prompts.
    """
    if contacts is None:
        return None
    if not takes_times:
        raise ValueError("this model was not trained to be told when things touch (contacts)")
    if isinstance(contacts, (str, numbers.Real)):
        raise ValueError(f"contacts are times, or a list of them for each prompt: {contacts!r}")
    own = [list(item) for item in contacts if isinstance(item, (list, tuple))]
    for_all = [item for item in contacts if not isinstance(item, (list, tuple))]
    if own and for_all:
        raise ValueError(f"contacts are times, or a list of them for each prompt: {contacts!r}")
    lists = own or [cast("list[float]", for_all)] * prompts
    if len(lists) != prompts:
        raise ValueError(f"contacts for {len(lists)} prompts, and there are {prompts}")
    return lists


def told(lists: Sequence[Times]) -> Tensor | None:
    """Times as of ``events``, None where there are none."""
    longest = max(map(len, lists), default=0)
    if not longest:
        return None
    rows = [[*times, *[math.nan] * (longest - len(times))] for times in lists]
    return torch.tensor(rows, dtype=torch.float32)
