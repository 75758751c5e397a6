"""One English sentence for a scene, from a small grammar; the test split speaks in patterns that training never hears.

A pattern holds `{np}` (the thing), `{n}` (how often, "three times"), `{N}` ("three bounces"), `{on}` ("on a wooden floor"),
`{onto}`, `{floor}`. A pattern without the count, or one whose count is left out, still reads well.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

MAX_LENGTH = 110

WORDS: dict[str, dict[Any, tuple[str, ...]]] = {
    "material": {
        "metal": ("metal", "metal", "steel", "metallic"),
        "wood": ("wooden", "wooden", "wood"),
        "glass": ("glass",),
        "rubber": ("rubber",),
    },
    "size": {
        "small": ("small", "small", "little", "tiny"),
        "medium": ("medium", "medium-sized", "mid-sized"),
        "large": ("large", "big", "big", "huge"),
    },
    "count": {
        1: ("once", "once", "one time", "a single time"),
        2: ("twice", "twice", "two times"),
        3: ("three times", "three times", "3 times", "thrice"),
        4: ("four times", "four times", "4 times"),
    },
    "floor": {
        "concrete": ("a concrete floor", "concrete", "bare concrete"),
        "wood": ("a wooden floor", "floorboards", "a wood floor"),
        "tiles": ("a tiled floor", "tiles", "floor tiles"),
        "carpet": ("a carpet", "carpet", "a carpeted floor"),
    },
}
MASS = {"metal": "metal", "wood": "wood", "glass": "glass", "rubber": "rubber"}
NUMBERS = ("", "one", "two", "three", "four")
SAID = {"material": 0.92, "count": 0.92, "colour": 0.8, "size": 0.6, "floor": 0.35}

PATTERNS: dict[str, dict[str, tuple[str, ...]]] = {
    "train": {
        "bounce": (
            "{np} bounces {n} {on}",
            "{np} bounces {n} {on}",
            "{np} falls and bounces {n} {on}",
            "{np} drops {onto} and bounces {n}",
            "{np} is dropped {onto} and bounces {n}",
            "{np} hits {floor} {n}",
            "{np} falls {onto} and hits it {n}",
            "{np} bouncing {n} {on}",
            "a clip of {np} bouncing {n} {on}",
            "a video of {np} that hits {floor} {n}",
            "you can hear {np} bounce {n} {on}",
            "the sound of {np} bouncing {n} {on}",
            "there is {np} that falls and bounces {n} {on}",
            "{np} lands {on} and bounces {n} in all",
            "{N} of {np} {on}",
            "{np} makes {N} {on}",
            "{N}: {np} {on}",
            "falling {onto}, {np} bounces {n}",
        ),
    },
    "test": {
        "bounce": (
            "watch {np} as it hits {floor} {n}",
            "{n}, {np} bounces {on}",
            "dropped {onto}, {np} makes {N}",
            "we see and hear {np} that bounces {on} {n}",
            "{np} falling down: {N} {on}",
            "{on}, {np} bounces {n}",
            "here {np} drops and lands {n} {on}",
            "{np}, which falls and hits {floor} {n}",
        ),
    },
}
"""Patterns by split and kind; validation speaks as training does."""


def caption(
    attributes: dict[str, Any], seed: int | np.random.Generator, split: str = "train"
) -> tuple[str, list[str]]:
    """A sentence of at most 110 characters, and which of the attributes it mentions.

    attributes: as in `Scene.attributes` (kind, shape, material, colour, size, count, floor). Nothing is rendered.
    """
    rng = np.random.default_rng(seed)
    patterns = PATTERNS["test" if split == "test" else "train"][attributes["kind"]]
    while True:
        pattern = patterns[rng.integers(len(patterns))]
        said = {name for name, p in SAID.items() if rng.random() < p}
        if "{N}" in pattern and "count" not in said:
            continue
        text, mentioned = _fill(pattern, attributes, said, rng)
        if len(text) <= MAX_LENGTH:
            return text, mentioned


def _fill(
    pattern: str, attributes: dict[str, Any], said: set[str], rng: np.random.Generator
) -> tuple[str, list[str]]:
    if "{on" not in pattern and "{floor}" not in pattern:
        said.discard("floor")
    slots = {
        "np": _noun(attributes, said, rng),
        "n": _pick("count", attributes, rng) if "count" in said else "",
        "N": _number(attributes["count"], rng),
    }
    if "floor" in said:
        floor = _pick("floor", attributes, rng)
    else:
        floor = ("the floor", "the ground")[rng.integers(2)]
    bare = "floor" not in said and rng.random() < 0.5
    slots["floor"] = floor
    slots["onto"] = ("onto " if rng.random() < 0.7 else "on ") + floor
    slots["on"] = "" if bare and not pattern.startswith("{on}") else "on " + floor
    text = re.sub(r"{(\w+)}", lambda m: slots[m[1]], pattern)
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"^[,:]\s*|\s+(?=[,:])|[,:]$", "", text)
    style = rng.random()
    if style < 0.5:
        text = text[0].upper() + text[1:] + "."
    elif style < 0.6:
        text = text[0].upper() + text[1:]
    return text, sorted(said)


def _pick(name: str, attributes: dict[str, Any], rng: np.random.Generator) -> str:
    words = WORDS[name][attributes[name]]
    return words[rng.integers(len(words))]


def _number(count: int, rng: np.random.Generator) -> str:
    noun = ("bounce", "hit")[rng.integers(2)]
    if count == 1:
        return ("one ", "a single ")[rng.integers(2)] + noun
    return f"{NUMBERS[count]} {noun}s"


def _noun(attributes: dict[str, Any], said: set[str], rng: np.random.Generator) -> str:
    size = [_pick("size", attributes, rng)] if "size" in said else []
    colour = [attributes["colour"]] if "colour" in said else []
    shape = attributes["shape"]
    order = rng.random()
    adjective = _pick("material", attributes, rng) if "material" in said else ""
    mass = MASS[attributes["material"]] if "material" in said else ""
    if not mass:
        words = [*size, *colour, shape]
    elif order < 0.75:
        words = [*size, *colour, adjective, shape]
    elif order < 0.9:
        words = [*size, *colour, shape, "made of" if rng.random() < 0.6 else "of", mass]
    else:
        words = [*colour, *size, adjective, shape]
    article = "the" if rng.random() < 0.15 else ("an" if words[0][0] in "aeiou" else "a")
    return " ".join([article, *words])
