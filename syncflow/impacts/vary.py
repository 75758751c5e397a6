"""The same scene with one thing changed: what a cause does, everything else being equal. And other
scenes of which the same can be said.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import cast

import numpy as np

from syncflow.impacts import captions, events, materials, stages
from syncflow.impacts.scene import Attributes, Scene
from syncflow.impacts.world import CAPTION, LOOK, MOTION, SEEDS, sample_attributes, sample_scene

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
            things = tuple(dataclasses.replace(thing, material=name) for thing in things)
        else:
            things = tuple(dataclasses.replace(thing, colour=name) for thing in things)
        if factor == "material":
            contacts = tuple(
                dataclasses.replace(c, material=name) if c.thing == 0 else c for c in contacts
            )
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
