"""Clips drawn again until picture, sound and caption agree.

Contacts are seen and onsets heard by the package's detectors, so what they say of a chosen clip is
too good: whoever measures chosen clips needs other detectors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from syncflow.clip import Clip
from syncflow.detect import contacts, matching, onsets
from syncflow.generation.choice import ranking

#: Candidate k of a prompt draws its noise from the prompt's seed + k times this.
STRIDE = 1_000_003
_TOLERANCE = 0.05

_NUMBERS = {
    name: number
    for number, names in enumerate(
        ("", "a single|single|one", "two|a couple of", "three", "four", "five", "six", "seven",
         "eight", "nine", "ten")
    )
    for name in names.split("|") if name
}  # fmt: skip
_ADVERBS = {"once": 1, "twice": 2, "thrice": 3}
_EVENTS = "times?|bounces?|hits?|contacts?|impacts?|strikes?|knocks?|taps?|blows?|beats?"
_SAID = re.compile(
    rf"\b(?:(?P<adverb>{'|'.join(_ADVERBS)})"
    rf"|(?P<number>\d+|{'|'.join(sorted(_NUMBERS, key=len, reverse=True))})[\s-]+(?:{_EVENTS}))\b",
    re.IGNORECASE,
)

_WATER = re.compile(r"\binto (?:\w+ )?(?:water|pool)\b", re.IGNORECASE)
#: The first thing that is told of: so many of them, or one, unless there is a plural.
_THINGS = re.compile(
    rf"\b(?:(?P<number>\d+|{'|'.join(sorted(_NUMBERS, key=len, reverse=True))})\b(?! after\b)"
    r"|(?:an?|the) (?!video\b|clip\b|sound\b|water\b|pool\b))",
    re.IGNORECASE,
)
_SEVERAL = re.compile(r"\b(?!falls|drops|is\b|its\b)\w+[^s\W]s\b", re.IGNORECASE)

#: draw(rows, seeds): a clip of each of these prompts, each from its own seed.
Draw = Callable[[Sequence[int], Sequence[int]], list[Clip]]


def said_count(prompt: str) -> int | None:
    """How many contacts a caption asks for; those of several things add up. None where it does not
    say."""
    return sum(said_counts(prompt)) or None


def said_counts(prompt: str) -> list[int]:
    """Each number of contacts in a caption: "twice", "3 times", "four bounces", and of what falls
    into water, where each thing splashes once, "two balls", "a ball"."""
    found = [_number(match) for match in _SAID.finditer(prompt)]
    if not found and _WATER.search(prompt):
        things = _THINGS.search(prompt)
        if things and things["number"]:
            found = [_value(things["number"])]
        elif things and not _SEVERAL.search(prompt):
            found = [1]
    return found


def _number(match: re.Match[str]) -> int:
    if match["adverb"]:
        return _ADVERBS[match["adverb"].lower()]
    return _value(match["number"])


def _value(word: str) -> int:
    return int(word) if word.isdecimal() else _NUMBERS[word.lower()]


def best(draw: Draw, prompts: Sequence[str], seed: int, most: int) -> list[Clip]:
    """For each prompt the first of at most ``most`` candidates that agrees, else the one that comes
    nearest, with its ``scores``: ``candidate`` (from 0, the clip that one draw gives), ``agrees``
    (0 or 1), ``contacts`` and ``onsets`` found, ``agreement`` (``ranking``).

    A clip agrees when something touches, every contact has its onset within 50 ms, no onset is
    without contact, and there are as many contacts as the caption asks for, if it does.
    """
    chosen: dict[int, Clip] = {}
    rows = list(range(len(prompts)))
    for candidate in range(most):
        for row, clip in zip(
            rows,
            draw(rows, [(seed + row + candidate * STRIDE) % 2**63 for row in rows]),
            strict=True,
        ):
            count = said_count(prompts[row])
            judged = judge(clip, count, candidate)
            if row not in chosen or _rank(judged, count) > _rank(chosen[row], count):
                chosen[row] = judged
        rows = [row for row in rows if not (chosen[row].scores or {})["agrees"]]
        if not rows:
            break
    return [chosen[row] for row in range(len(prompts))]


def judge(clip: Clip, count: int | None, candidate: int = 0) -> Clip:
    """The clip with its ``scores``; ``count``: what its caption asks for."""
    seen = contacts.times(clip.video, clip.fps)
    heard = onsets.times(clip.audio, clip.sample_rate)
    met = len(matching.match(seen, heard, _TOLERANCE)) == len(seen) == len(heard)
    scores = {
        "candidate": float(candidate),
        "agrees": float(bool(seen) and met and count in (None, len(seen))),
        "contacts": float(len(seen)),
        "onsets": float(len(heard)),
        ranking.RANKED_BY: ranking.agreement(seen, heard) if seen or heard else 0.0,
    }
    return replace(clip, scores=scores)


def _rank(clip: Clip, count: int | None) -> tuple[float, float]:
    """Larger is better: agreement, times the smaller of two counts as a share of the larger."""
    scores = clip.scores or {}
    found = scores["contacts"]
    share = 1.0 if count is None else min(found, count) / max(found, count, 1)
    return scores["agrees"], scores[ranking.RANKED_BY] * share
