"""The words of the world's captions, by what they say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import cast

from syncflow.impacts import captions, world

#: What `captions` puts between the words of its patterns.
_FILLED = "a an the on onto floor ground single hit hits bounce bounces made of"
_SEVERAL = "some fall falls drop drops"

_HAPPENS = {
    "bounce": "fall and bounce",
    "strike": "are hit with a stick",
    "roll": "roll off a shelf",
    "splash": "drop into water",
    "pair": "bounce beside each other",
}
_EXAMPLES = {
    "bounce": (
        "a metal ball bounces three times on concrete",
        "a large yellow wooden ball bounces twice on a carpet",
        "a small blue glass ball falls and bounces four times on tiles",
        "a big green rubber ball hits a wooden floor once",
    ),
    "strike": ("a stick hits a large wooden drum three times",),
    "roll": ("a red metal ball rolls off a shelf and bounces twice on tiles",),
    "splash": ("three small stone balls drop into water one after another",),
    "pair": ("a glass ball bounces twice and a wooden ball bounces once",),
}


def vocabulary(levels: Sequence[int], materials: Sequence[str] = ()) -> dict[str, object]:
    """What training captions of ``levels`` say, and of the same things of other ``materials``, for
    a model's config.

    Returns:
        "summary", half a sentence; "words", lists of words and phrases by what they say, each word
        of the grammar in one of them; "examples", prompts.

    Raises:
        ValueError: a level or a material that there is not.
    """
    if not levels:
        raise ValueError("a vocabulary is of at least one level, 1 to 4")
    if isinstance(materials, str):
        raise ValueError(f"materials are a list of names, got {materials!r}")
    known = captions.WORDS["material"]  # without drums, which are a shape too
    for material in materials:
        if material not in known:
            names = ", ".join(map(str, known))
            raise ValueError(f"unknown material {material!r}; known are {names}")
    values: dict[str, list[str | int]] = {}
    more: dict[str, tuple[str | int, ...]] = {"material": tuple(materials)}
    for found in (*map(world.attribute_values, levels), more):
        for name, some in found.items():
            seen = values.setdefault(name, [])
            seen += [value for value in dict.fromkeys(some) if value not in seen]
    words = {
        name: _said(name, values[name])
        for name in ("shape", "material", "colour", "size", "count", "floor")
    }
    if sounds := [value for value in values.get("ambience", ()) if value != "none"]:
        words["ambience"] = _said("ambience", sounds)
    # Names all, but for the counts.
    kinds, shapes, made_of = (
        cast("list[str]", values[name]) for name in ("kind", "shape", "material")
    )
    words["others"] = _others(kinds, bool(sounds), words)
    things = [_several(shape) for shape in shapes]
    materials = [value for value in made_of if value not in shapes]
    return {
        "summary": f"{_listed(things, 'and')} of {_listed(materials, 'or')} that "
        f"{_listed([_HAPPENS[kind] for kind in kinds], 'or')}",
        "words": words,
        "examples": [text for kind in kinds for text in _EXAMPLES[kind]],
    }


def _said(name: str, values: Sequence[str | int]) -> list[str]:
    known = captions.WORDS.get(name, {})
    said = [phrase for value in values for phrase in known.get(value, (str(value),))]
    return list(dict.fromkeys(said))


def _others(kinds: Sequence[str], sounds: bool, words: dict[str, list[str]]) -> list[str]:
    """The other words of the patterns and of what fills them, in order of the alphabet."""
    patterns = [text for kind in kinds for text in captions.PATTERNS["train"][kind]]
    patterns += captions.SURROUNDINGS["train"] if sounds else ()
    texts = [re.sub(r"{\w+}", " ", text) for text in patterns]
    texts += [_FILLED, *captions.NUMBERS]
    if "splash" in kinds:  # of anything but drums
        texts += [_SEVERAL, *(_several(shape) for shape in words["shape"] if shape != "drum")]
    said = {word for group in words.values() for phrase in group for word in phrase.split()}
    found = {word for text in texts for word in re.findall(r"[a-z]+", text)}
    return sorted(found - said)


def _several(thing: str) -> str:
    return thing + ("es" if thing.endswith("x") else "s")


def _listed(names: Sequence[str], last: str) -> str:
    return f" {last} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
