"""Captions in which words that nobody knows stand for some: what is left has to be read without the
company that training always gave it.

A reader that has only ever seen "red" beside the materials that the training split pairs with red
may take a red thing of another material for a thing of another colour. Beside any string of letters
it cannot. No pair that is held out is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import cast

import numpy as np

from syncflow.impacts import captions, materials
from syncflow.impacts.scene import Attributes

_SYLLABLES = ("bcdfghjklmnprstvwz", "aeiou", "lmnrstdk")
#: What binds an attribute to its thing stays: without it nobody could tell "a wooden ball" on a
#: floor from a ball on "a wooden floor".
_KEPT = frozenset(
    "a an the on onto of made into and with stick floor floorboards ground ball balls box boxes "
    "cube cubes block blocks disc discs disk disks drum drums".split()
)
_HIDDEN = 0.4
"""How often an attribute is not legible."""
_TURNED = 0.3
"""How often a caption begins in the middle, as the test split's patterns do."""


def put_in(
    caption: str, attributes: Attributes, mentioned: Sequence[str], rng: np.random.Generator
) -> tuple[str, list[str]]:
    """The caption with unknown words for some of its own, and which attributes it still mentions.

    Args:
        caption, attributes, mentioned: of one scene.
        rng: draws which words, and theirs.
    """
    words = caption.split()
    bare = [re.sub(r"\W+$", "", word.casefold()) for word in words]
    found = {name: _find(bare, phrases) for name, phrases in _phrases(attributes, mentioned)}
    legible = [name for name, at in found.items() if at and rng.random() >= _HIDDEN]
    kept = {bare[index] for name in legible for index in found[name]}
    named = {bare[index] for at in found.values() for index in at}
    rate = rng.random() * 0.5
    for index, word in enumerate(bare):
        if word in kept or (word in _KEPT and word not in named):
            continue
        if word in named or rng.random() < rate:
            words[index] = unknown(rng) + words[index][len(word) :]
    if attributes["kind"] != "pair" and rng.random() < _TURNED:
        begin = int(rng.integers(len(words)))
        words = words[begin:] + words[:begin]
    return " ".join(words), sorted(legible)


def put_in_some(
    caption: str, attributes: Attributes, share: float, seed: int
) -> tuple[str, list[str]]:
    """``put_in`` for a ``share`` of captions, chosen by ``seed``; the others as they are."""
    rng = np.random.default_rng([seed, 0])
    mentioned = list(attributes["mentioned"])
    if rng.random() < share:
        return put_in(caption, attributes, mentioned, rng)
    return caption, mentioned


def unknown(rng: np.random.Generator) -> str:
    """A word of one to three made-up syllables."""
    word = ""
    while not word or word in _known():
        parts = []
        for _ in range(int(rng.integers(1, 4))):
            first, vowel, last = (letters[rng.integers(len(letters))] for letters in _SYLLABLES)
            parts.append(first + vowel + (last if rng.random() < 0.5 else ""))
        word = "".join(parts)
    return word


@cache
def _known() -> frozenset[str]:
    phrases = [p for values in captions.WORDS.values() for each in values.values() for p in each]
    return frozenset(word for phrase in phrases for word in phrase.split()) | set(materials.COLOURS)


def _phrases(
    attributes: Attributes, mentioned: Sequence[str]
) -> Iterable[tuple[str, tuple[str, ...]]]:
    values: Mapping[str, object] = {**attributes}
    for name in mentioned:
        value = cast("str | int", values[name])
        # A colour is its own word, and a drum's material its shape.
        known = captions.WORDS.get(name, {}).get(value, ())
        if name == "count":
            yield name, (*known, captions.NUMBERS[attributes["count"]], "a single")
        else:
            yield name, (*known, str(value))


def _find(words: list[str], phrases: tuple[str, ...]) -> list[int]:
    """Where the longest of the phrases stands, every time; nothing where none does."""
    for phrase in sorted(phrases, key=len, reverse=True):
        wanted = phrase.split()
        starts = [i for i in range(len(words)) if words[i : i + len(wanted)] == wanted]
        if starts:
            return [start + step for start in starts for step in range(len(wanted))]
    return []
