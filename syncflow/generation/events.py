"""When things are to touch, as a user says it, or as it was in a training clip."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Collection, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from syncflow.config import ModelConfig
from syncflow.generation.choice.candidates import said_count, said_counts
from syncflow.ranges import Real

Times = Sequence[float]

#: Of some of the prompts, by their rows and seeds: seconds as of ``events``, or None.
When = Callable[[Sequence[int], Sequence[int]], Tensor | None]

#: Seconds between two contacts that count like one that the other has not, and like one more or
#: fewer than the caption says.
_MISSED = 0.3
_NEAR = 0.1  # s, of rhythms that fit as well
_SHORTEST = 0.5  # of a flight, as a share of the one before
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
    clips that the model's folder keeps (``rhythms``), with as many contacts as the caption says
    where it says how many. None where the folder keeps none or the clip is of another length; NaN
    alone for a prompt that says nothing, or a number that no rhythm has.

    Args:
        config: of the model.
        prompts, seeds: one seed a prompt; it alone decides.
        seconds: of the clips.
    """
    if not (config.rhythms or config.rhythms_of) or seconds != config.geometry.seconds:
        return None
    found = []
    for prompt, seed in zip(prompts, seeds, strict=True):
        count = said_count(prompt)
        fitting = [times for times in rhythms(config, prompt) if count in (None, len(times))]
        if not prompt.strip() or not fitting:
            found.append(torch.full((1,), math.nan))
            continue
        drawn = np.random.default_rng([seed, _PLAN]).integers(len(fitting))
        found.append(torch.tensor(fitting[drawn], dtype=torch.float32))
    return torch.nn.utils.rnn.pad_sequence(found, batch_first=True, padding_value=math.nan)


def rhythms(config: ModelConfig, prompt: str) -> Sequence[Times]:
    """Those of the model's folder that are of captions like this one: of the first sort that it is
    of (``ModelConfig.rhythms_of``), else ``ModelConfig.rhythms``."""
    for sort in config.rhythms_of or ():
        if is_of(prompt, sort.words, sort.counts):
            return sort.times
    return config.rhythms or ()


def is_of(caption: str, words: Collection[str], counts: int) -> bool:
    """Whether a caption has one of ``words``, if there are any, and says at least ``counts``
    numbers of contacts, if that is more than 1."""
    said = set(re.findall(r"\w+", caption.casefold()))
    named = not words or not said.isdisjoint(word.casefold() for word in words)
    return named and (counts < 2 or len(said_counts(caption)) >= counts)


def going_on(
    config: ModelConfig,
    prompt: str,
    before: Times,
    known: float,
    draw: np.random.Generator,
) -> list[float]:
    """Times (s) of a window after its first ``known`` seconds, where things touched ``before``:
    those of one of the training clips (``rhythms``) that began as the window does.

    The seed draws among those that come nearest: their contacts in the known part are where the
    window's are, no flight is longer, or much shorter, than the one before it, the one under way at
    the window's end included, and the window has as many as the caption says. Where bounces have
    become shorter than any in the rhythms, they go on about as short.

    Args:
        config: of the model; it has rhythms.
        prompt: the caption.
        before: times in the window, in order; what was before it is negative.
        known: s.
        draw: of the seed.
    """
    seconds, count = config.geometry.seconds, said_count(prompt)
    kept, seen = rhythms(config, prompt), sum(time >= 0 for time in before)
    costs = []
    for rhythm in kept:
        new = [time for time in rhythm if time >= known]
        missing = 0 if count is None else abs(seen + len(new) - count)
        far = _unlike(rhythm, before, known) + _longer(before, new, seconds)
        costs.append(far + _MISSED * missing)
    near = [i for i, cost in enumerate(costs) if cost <= min(costs) + _NEAR]
    return [time for time in kept[near[draw.integers(len(near))]] if time >= known]


def _unlike(rhythm: Times, before: Times, known: float) -> float:
    """How far (s) the known part of a window is from that of one that is ``rhythm``."""
    seen = [time for time in before if time >= 0]
    old = [time for time in rhythm if time < known]
    # Of the last contacts, which the new ones follow.
    far = sum(abs(a - b) for a, b in zip(reversed(old), reversed(seen), strict=False))
    return far + _MISSED * abs(len(old) - len(seen))


def _longer(before: Times, new: Times, seconds: float) -> float:
    """How much (s) flights grow, or become much shorter than the one before, from the last that is
    known to the one under way at the window's end."""
    if len(before) < 2:
        return 0.0
    times = [*before[-2:], *new]
    gaps = [b - a for a, b in zip(times, times[1:], strict=False)]
    far = sum(
        max(0.0, gap - last) + max(0.0, _SHORTEST * last - gap)
        for last, gap in zip(gaps, gaps[1:], strict=False)
    )
    return far + max(0.0, seconds - times[-1] - gaps[-1])  # it lasts at least so long


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
    if isinstance(contacts, np.ndarray):
        contacts = cast("Times", contacts.tolist())
    if not isinstance(contacts, (list, tuple)):
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
