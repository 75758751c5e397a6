"""The same scene with one thing changed: what a cause does, everything else being equal. And other
scenes of which the same can be said.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import cast

import numpy as np

from syncflow.impacts import captions, events, materials, stages
from syncflow.impacts.scene import Attributes, Contact, Scene, Stage, Thing
from syncflow.impacts.world import (
    CAPTION,
    LEVELS,
    LOOK,
    MATERIAL,
    MOTION,
    SEEDS,
    sample_attributes,
    sample_scene,
)

#: What can be changed.
FACTORS = ("material", "colour", "count", "floor")


def vary(scene: Scene, factor: str, value: str | int) -> Scene:
    """The scene with one attribute of its one bouncing thing changed.

    Another material or colour leaves the motion, the times of contacts, the stage, the room and the
    loudness as they are, to the last digit; another floor the sound and the motion, in the same
    light and shade; another count moves otherwise in the same place. The caption says the new thing
    in the same words.

    Raises:
        ValueError: a factor that cannot be changed, a value that does not exist at the scene's
            level, or a scene of another kind than one bouncing thing.
    """
    if factor not in FACTORS:
        raise ValueError(f"unknown factor {factor!r}; known are {', '.join(FACTORS)}")
    if scene.attributes["kind"] != "bounce":
        raise ValueError(f"only a bounce can be varied, got {scene.attributes['kind']!r}")
    choices: dict[str, tuple[str | int, ...]] = {
        "material": materials.LEVEL_MATERIALS[scene.level],
        "colour": tuple(materials.COLOURS),
        "count": tuple(range(1, captions.MOST_COUNT + 1)),
        "floor": materials.FLOORS,
    }
    known = choices[factor]
    if value not in known:
        raise ValueError(f"{factor} must be one of {', '.join(map(str, known))}, got {value!r}")
    kept = {k: v for k, v in scene.attributes.items() if k != "mentioned"}
    attributes = cast(Attributes, kept | {factor: value})
    things, contacts, stage = scene.things, scene.contacts, scene.stage
    if factor == "count":
        make = events.first_bounce if scene.level == 1 else events.bounce
        motion, look = (np.random.default_rng([scene.seed, scene.level, p]) for p in (MOTION, LOOK))
        made, contacts, _, _ = make(attributes, motion, look, scene.seconds)
        things = (dataclasses.replace(made[0], pitch=scene.things[0].pitch),)
    elif factor == "floor":
        stage = stages.laid(stage, cast(str, value))
    else:
        name = cast(str, value)
        if factor == "material":
            return _made_of(scene, name)
        things = tuple(dataclasses.replace(thing, colour=name) for thing in things)
    return _said(scene, attributes, things, contacts, stage)


def of_any_material(scene: Scene) -> Scene:
    """The scene with its one bouncing thing made of whatever the world has, drums left out, and
    training sees in its colour, each as often; the same one at every call. More pairs of a
    colour and a material are seen so than a level has, and nothing else is.

    Raises:
        ValueError: a scene of another kind than one bouncing thing.
    """
    if scene.attributes["kind"] != "bounce":
        raise ValueError(f"only a bounce can be varied, got {scene.attributes['kind']!r}")
    colour = scene.attributes["colour"]
    known = [m for c, m in materials.pairs(max(LEVELS), kept=False, drums=False) if c == colour]
    drawn = np.random.default_rng([scene.seed, scene.level, MATERIAL]).integers(len(known))
    return _made_of(scene, known[drawn])


def _made_of(scene: Scene, material: str) -> Scene:
    kept = {k: v for k, v in scene.attributes.items() if k != "mentioned"}
    attributes = cast(Attributes, kept | {"material": material})
    things = tuple(dataclasses.replace(thing, material=material) for thing in scene.things)
    contacts = tuple(
        dataclasses.replace(c, material=material) if c.thing == 0 else c for c in scene.contacts
    )
    return _said(scene, attributes, things, contacts, scene.stage)


def _said(
    scene: Scene,
    attributes: Attributes,
    things: tuple[Thing, ...],
    contacts: tuple[Contact, ...],
    stage: Stage,
) -> Scene:
    """The scene with these in place of its own, and its caption, in the same words, of them."""
    words = np.random.default_rng([scene.seed, scene.level, CAPTION])
    caption, attributes["mentioned"] = captions.caption(attributes, words, scene.split)
    return dataclasses.replace(
        scene,
        caption=caption,
        attributes=attributes,
        things=things,
        contacts=contacts,
        stage=stage,
    )


def alike(scene: Scene, first: int = 500_000) -> Iterator[Scene]:
    """Other scenes of its split and level of which its caption is as true: what is mentioned is the
    same, and all else is as it comes.

    Args:
        first: how far into the split's seeds to begin.
    """
    if scene.attributes["kind"] != "bounce":
        raise ValueError(f"only to a bounce are scenes alike, got {scene.attributes['kind']!r}")
    known: dict[str, object] = {**scene.attributes}
    mentioned = ["kind", "shape", *scene.attributes["mentioned"]]
    drawn_later = ("floor", "ambience")
    early = [name for name in mentioned if name not in drawn_later]
    late = [name for name in mentioned if name in drawn_later]
    for seed in SEEDS[scene.split][first:]:
        what = sample_attributes(seed, scene.level, scene.split, scene.seconds)
        found: dict[str, object] = {**what}
        if seed == scene.seed or any(found[name] != known[name] for name in early):
            continue
        other = sample_scene(
            seed, scene.level, scene.split, scene.seconds, scene.fps, scene.sample_rate
        )
        theirs: dict[str, object] = {**other.attributes}
        if all(theirs[name] == known[name] for name in late):
            yield other
