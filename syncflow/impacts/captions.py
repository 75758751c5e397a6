"""One English sentence for a scene, from a small grammar; the test split speaks in patterns that
training never hears.

A pattern holds `{np}` (the thing), `{n}` (how often, "three times"), `{N}` ("three bounces"),
`{on}` ("on a wooden floor"), `{onto}`, `{floor}`. A pattern without the count, or one whose count
is left out, still reads well.
"""

from __future__ import annotations

import re
from typing import Literal

import numpy as np

from syncflow.impacts.scene import Attributes

MAX_LENGTH = 110
#: Attributes whose values have words of their own.
Worded = Literal["material", "shape", "size", "count", "floor", "ambience"]

WORDS: dict[str, dict[str | int, tuple[str, ...]]] = {
    "material": {
        "metal": ("metal", "metal", "steel", "metallic"),
        "wood": ("wooden", "wooden", "wood"),
        "glass": ("glass",),
        "rubber": ("rubber",),
        "plastic": ("plastic",),
        "stone": ("stone", "stone", "rock"),
        "ceramic": ("ceramic", "ceramic", "china"),
        "cardboard": ("cardboard",),
        "foam": ("foam",),
    },
    "shape": {
        "ball": ("ball",),
        "box": ("box", "cube", "block"),
        "disc": ("disc", "disc", "disk"),
        "drum": ("drum",),
    },
    "ambience": {
        "hum": ("a humming machine", "a hum", "a low hum"),
        "wind": ("wind", "the wind"),
        "birds": ("birds", "a bird", "birds singing"),
        "knocks": ("distant knocking", "knocks next door", "someone knocking far away"),
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
        "water": ("water", "the water", "a pool"),
    },
}
NUMBERS = ("", "one", "two", "three", "four")
MOST_COUNT = len(NUMBERS) - 1
"""The greatest count that captions can say."""
SAID = {"material": 0.92, "count": 0.92, "colour": 0.8, "size": 0.6, "floor": 0.35}
"""How often an attribute is mentioned; the order belongs to what level 1 draws."""

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
        "strike": (
            "a stick hits {np} {n}",
            "{np} is hit {n} with a stick",
            "{np} is struck {n} by a stick",
            "someone taps {np} {n} with a stick",
            "a stick swings down and strikes {np} {n}",
            "{np} being hit {n} with a wooden stick",
            "the sound of a stick hitting {np} {n}",
            "a video of a stick that strikes {np} {n}",
            "you can hear a stick hit {np} {n}",
            "{N} of a stick on {np}",
        ),
        "roll": (
            "{np} rolls off a shelf and bounces {n} {on}",
            "{np} rolls along a shelf, falls and hits {floor} {n}",
            "{np} rolls and falls {onto}, bouncing {n}",
            "{np} rolling off a shelf and bouncing {n} {on}",
            "a clip of {np} that rolls off a shelf and hits {floor} {n}",
            "the sound of {np} falling off a shelf {onto} and bouncing {n}",
            "there is {np} that rolls off a board and bounces {n} {on}",
        ),
        "splash": (
            "{ns} {fall} into {floor}",
            "{ns} {fall} into {floor} with a splash",
            "{ns} {drop} into {floor} one after another",
            "{ns} splashing into {floor}",
            "a video of {ns} falling into {floor}",
            "the sound of {ns} splashing into {floor}",
            "you can hear {ns} drop into {floor}",
        ),
        "pair": (
            "{np} bounces {n} and {np2} bounces {n2}",
            "{np} hits {floor} {n} and {np2} {n2}",
            "{np} and {np2} fall and bounce {n} and {n2}",
            "{np} bouncing {n} beside {np2} bouncing {n2}",
            "two things fall: {np} bounces {n}, {np2} {n2}",
            "{np} bounces {n} next to {np2} that bounces {n2}",
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
        "strike": (
            "watch a stick as it strikes {np} {n}",
            "{n}, a stick hits {np}",
            "with a stick, someone hits {np} {n}",
            "we see and hear {np} that is struck {n}",
            "here a stick swings down on {np} {n}",
            "{np} and a stick that taps it {n}",
        ),
        "roll": (
            "watch {np} roll off a shelf and hit {floor} {n}",
            "off a shelf rolls {np}, which bounces {n} {on}",
            "we see and hear {np} that falls off a shelf and bounces {n}",
            "here {np} rolls, falls {onto} and bounces {n}",
        ),
        "splash": (
            "watch {ns} drop into {floor}",
            "into {floor} {fall} {ns}",
            "we see and hear {ns} splashing into {floor}",
            "here {ns} {fall} into {floor} with a splash",
        ),
        "pair": (
            "watch {np} bounce {n} and {np2} {n2}",
            "we see and hear {np} bounce {n} and {np2} {n2}",
            "{n} bounces {np}, {n2} {np2}",
            "here {np} hits {floor} {n}, and {np2} {n2}",
        ),
    },
}
"""Patterns by split and kind; validation speaks as training does."""

SURROUNDINGS = {
    "train": (
        "{text}, with {what} in the background",
        "{text} and there is {what}",
        "{text}, and {what}",
    ),
    "test": ("{text} while you can hear {what}", "with {what} in the background, {text}"),
}


def caption(
    attributes: Attributes, seed: int | np.random.Generator, split: str = "train"
) -> tuple[str, list[str]]:
    """A sentence of at most 110 characters, and which of the attributes it mentions.

    attributes: as in `Scene.attributes` (kind, shape, material, colour, size, count, floor).
    Nothing is rendered.
    """
    rng = np.random.default_rng(seed)
    voice = "test" if split == "test" else "train"
    patterns = PATTERNS[voice][attributes["kind"]]
    while True:
        pattern = patterns[rng.integers(len(patterns))]
        said = {name for name, p in SAID.items() if rng.random() < p}
        # These need the count to read well.
        if ("{N}" in pattern or attributes["kind"] == "pair") and "count" not in said:
            continue
        text, mentioned = _fill(pattern, attributes, said, voice, rng)
        if len(text) <= MAX_LENGTH:
            return text, mentioned


def _fill(
    pattern: str, attributes: Attributes, said: set[str], voice: str, rng: np.random.Generator
) -> tuple[str, list[str]]:
    if attributes["kind"] == "splash":
        said.add("floor")
    elif "{on" not in pattern and "{floor}" not in pattern:
        said.discard("floor")
    slots = {
        "np": _noun(attributes, said, rng),
        "n": _pick("count", attributes, rng) if "count" in said else "",
        "N": _number(attributes, rng),
    }
    if attributes["kind"] == "splash":
        one = attributes["count"] == 1
        slots["ns"] = slots["np"] if one else _nouns(attributes, said, rng)
        slots["fall"], slots["drop"] = ("falls", "drops") if one else ("fall", "drop")
        if one:
            pattern = pattern.replace(" one after another", "")
    if "second" in attributes:
        slots["np2"] = _noun(attributes["second"], said, rng)
        slots["n2"] = _pick("count", attributes["second"], rng)
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
    if attributes.get("ambience", "none") != "none" and rng.random() < 0.5:
        whole = SURROUNDINGS[voice][rng.integers(len(SURROUNDINGS[voice]))]
        text = whole.format(text=text, what=_pick("ambience", attributes, rng))
        said.add("ambience")
    style = rng.random()
    if style < 0.5:
        text = text[0].upper() + text[1:] + "."
    elif style < 0.6:
        text = text[0].upper() + text[1:]
    return text, sorted(said)


def _pick(name: Worded, attributes: Attributes, rng: np.random.Generator) -> str:
    words = WORDS[name][attributes[name]]
    return words[rng.integers(len(words))]


def _number(attributes: Attributes, rng: np.random.Generator) -> str:
    count = attributes["count"]
    noun = ("bounce", "hit")[rng.integers(2)]
    if attributes["kind"] == "strike":
        noun = "hit"
    if count == 1:
        return ("one ", "a single ")[rng.integers(2)] + noun
    return f"{NUMBERS[count]} {noun}s"


def _noun(attributes: Attributes, said: set[str], rng: np.random.Generator) -> str:
    size = [_pick("size", attributes, rng)] if "size" in said else []
    colour = [attributes["colour"]] if "colour" in said else []
    # A ball has one name and draws nothing: level 1 says what it always said.
    shape = (
        attributes["shape"] if attributes["shape"] == "ball" else _pick("shape", attributes, rng)
    )
    order = rng.random()
    named = "material" in said and attributes["material"] != shape
    adjective = _pick("material", attributes, rng) if named else ""
    mass = attributes["material"] if named else ""
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


def _nouns(attributes: Attributes, said: set[str], rng: np.random.Generator) -> str:
    """Several equal things: "three small red metal balls"."""
    words = [NUMBERS[attributes["count"]] if "count" in said else "some"]
    for name in ("size", "colour", "material"):
        if name in said:
            words.append(attributes[name] if name == "colour" else _pick(name, attributes, rng))
    shape = _pick("shape", attributes, rng)
    return " ".join([*words, shape + ("es" if shape.endswith("x") else "s")])
