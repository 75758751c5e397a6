"""From a seed to a scene: which things there are, how they move, when they touch.

Time. Frame f of a clip is centred on f / fps seconds; sample m of its sound is at m / sample_rate
seconds; a contact's time is exact, in seconds, and counts for both.
Space. One unit is the frame's shorter side; x runs to the right and y up, and the unit square
lies in the middle of the frame. A motion is a chain of pieces with constant acceleration.
Chance. Every purpose draws from a stream of its own, keyed by (seed, level, purpose): a purpose
that learns to draw one more number leaves all others as they were. What level 1 draws is fixed
for good: data sets are made from it.
Levels. 1: a ball of four materials bounces. 2: ten materials, balls, boxes, discs and drums,
which bounce or are struck. 3: also things that roll off a shelf, fall into water, or bounce in
pairs. 4: also camera angles and moves, moving light, and sounds from outside the picture.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from syncflow.clip import FPS, SAMPLE_RATE, SECONDS
from syncflow.impacts import captions, events, materials
from syncflow.impacts.scene import Attributes, Contact, Noise, Scene, Stage, View

SEEDS = {
    "train": range(0, 10_000_000),
    "val": range(10_000_000, 11_000_000),
    "test": range(11_000_000, 12_000_000),
}
"""The seed alone decides the split of a clip."""

LEVELS = (1, 2, 3, 4)
LEVEL_KINDS = {
    1: ("bounce",),
    2: ("bounce", "strike"),
    3: ("bounce", "strike", "roll", "splash", "pair"),
    4: ("bounce", "strike", "roll", "splash", "pair"),
}
MOST = {"bounce": 4, "strike": 4, "roll": 3, "splash": 3, "pair": 2}
"""The greatest count of each kind; of each of the two things for a pair."""

AMBIENCES = ("none", "hum", "wind", "birds", "knocks")

_WHAT, MOTION, LOOK, _SOUND, CAPTION, _VIEW, _AMBIENCE, MATERIAL = range(8)

attribute_names = ("kind", "shape", "material", "colour", "size", "count", "floor", "ambience")


def attribute_values(level: int = 4) -> dict[str, tuple[str | int, ...]]:
    """The labels of each attribute that can occur at a level, for classifiers."""
    _check_level(level)
    values: dict[str, tuple[str | int, ...]] = {
        "kind": LEVEL_KINDS[level],
        "shape": ("ball",) if level == 1 else ("ball", "box", "disc", "drum"),
        "material": materials.LEVEL_MATERIALS[level],
        "colour": tuple(materials.COLOURS),
        "size": tuple(materials.SIZES),
        "count": (1, 2, 3, 4),
        "floor": materials.FLOORS if level < 3 else (*materials.FLOORS, "water"),
    }
    if level == 4:
        values["ambience"] = AMBIENCES
    return values


def split_of(seed: int) -> str:
    """The split that a seed belongs to; ValueError where it is in none."""
    for name, seeds in SEEDS.items():
        if seed in seeds:
            return name
    raise ValueError(f"seed must be an integer in [0, {SEEDS['test'].stop}), got {seed!r}")


def seeds_of(split: str) -> range:
    """``SEEDS`` of a split; ValueError where there is no such split."""
    if split not in SEEDS:
        raise ValueError(f"split must be one of {', '.join(SEEDS)}, got {split!r}")
    return SEEDS[split]


def sample_scene(
    seed: int,
    level: int = 1,
    split: str | None = None,
    seconds: float = SECONDS,
    fps: float = FPS,
    sample_rate: int = SAMPLE_RATE,
) -> Scene:
    """The scene of a seed: a pure function of its arguments, about half a millisecond, no pixel
    or sample computed.

    `split` may be given to have it checked against the seed (`SEEDS`); by default the seed
    decides. fps and sample rate do not change what happens; in long clips it happens more slowly.
    Raises ValueError for a level, split, seed, duration or rate that is out of range.
    """
    _check(seed, level, split, seconds, fps, sample_rate)
    split = split_of(seed)

    def stream(purpose: int) -> np.random.Generator:
        return np.random.default_rng([seed, level, purpose])

    what = sample_attributes(seed, level, split, seconds)
    make = events.first_bounce if level == 1 else events.KINDS[what["kind"]]
    things, contacts, stage, noises = make(what, stream(MOTION), stream(LOOK), seconds)
    sound = stream(_SOUND)
    things = tuple(
        dataclasses.replace(
            thing,
            pitch=materials.SIZE_PITCH[thing.size] * float(np.exp(sound.uniform(-0.08, 0.08))),
        )
        for thing in things
    )
    room = tuple(
        (float(delay), float(gain))
        for delay, gain in zip(
            np.cumsum(sound.uniform(0.004, 0.012, 4)), sound.uniform(0.04, 0.16, 4), strict=True
        )
    )
    loudness = float(sound.uniform(-10.0, -3.0))
    floor = "water" if what["kind"] == "splash" else stage.floor
    attributes: Attributes = {**what, "floor": floor}
    views = None
    if level == 4:
        stage, views = _sample_view(stream(_VIEW), stage)
        attributes["ambience"], outside, more = _sample_ambience(stream(_AMBIENCE), seconds)
        contacts = tuple(sorted(contacts + outside, key=lambda c: c.time_s))
        noises = noises + more
    caption, attributes["mentioned"] = captions.caption(
        attributes, np.random.default_rng([seed, level, CAPTION]), split
    )
    return Scene(
        seed,
        level,
        split,
        float(seconds),
        fps,
        sample_rate,
        caption,
        attributes,
        contacts,
        things,
        stage,
        room,
        loudness,
        noises,
        views,
    )


def sample_attributes(
    seed: int, level: int, split: str | None = None, seconds: float = SECONDS
) -> Attributes:
    """What `sample_scene` draws first, in a tenth of its time: all but floor, ambience and what is
    mentioned."""
    split = split_of(seed) if split is None else split
    return _sample_what(np.random.default_rng([seed, level, _WHAT]), level, split, seconds)


def _check_level(level: int) -> None:
    if level not in LEVELS:
        raise ValueError(f"level must be one of {', '.join(map(str, LEVELS))}, got {level!r}")


def _check(
    seed: int, level: int, split: str | None, seconds: float, fps: float, sample_rate: int
) -> None:
    if split is not None and seed not in seeds_of(split):
        raise ValueError(
            f"seed {seed} belongs to the {split_of(seed)} split, not to {split}; "
            f"{split} has the seeds {SEEDS[split].start} to {SEEDS[split].stop - 1}"
        )
    _check_level(level)
    if not 1.0 <= seconds <= 20.0:
        raise ValueError(f"seconds must be in [1, 20], got {seconds!r}")
    if not 1 <= fps <= 240:
        raise ValueError(f"fps must be in [1, 240], got {fps!r}")
    if not 8000 <= sample_rate <= 192000:
        raise ValueError(f"sample_rate must be in [8000, 192000] Hz, got {sample_rate!r}")


def _sample_what(rng: np.random.Generator, level: int, split: str, seconds: float) -> Attributes:
    """Kind, material, colour, size and count, each close to uniform, so that no label can be
    guessed.
    """
    kinds = LEVEL_KINDS[level]
    kind = kinds[rng.integers(len(kinds))] if len(kinds) > 1 else kinds[0]
    what: Attributes = {"kind": kind, **_sample_thing(rng, level, split, seconds, kind)}
    if kind == "pair":
        while True:
            other = _sample_thing(rng, level, split, seconds, kind)
            if other["material"] != what["material"] and other["colour"] != what["colour"]:
                break
        what["second"] = other
    return what


def _sample_thing(
    rng: np.random.Generator, level: int, split: str, seconds: float, kind: str
) -> Attributes:
    most = MOST[kind] if seconds >= 1.6 else (MOST[kind] + 1) // 2
    kept = split == "test" and rng.random() < 0.5
    choices = materials.pairs(level, kept, drums=kind == "strike")
    colour, material = choices[rng.integers(len(choices))]
    what: Attributes = {
        "shape": "ball",
        "material": material,
        "colour": colour,
        "size": list(materials.SIZES)[rng.integers(len(materials.SIZES))],
        "count": int(rng.integers(1, most + 1)),
    }
    if level > 1:
        shapes = ("ball", "disc") if kind == "roll" else ("ball", "box", "disc")
        shape = shapes[rng.integers(len(shapes))]
        what["shape"] = "drum" if material == "drum" else shape
    return what


def _sample_view(rng: np.random.Generator, stage: Stage) -> tuple[Stage, tuple[View, View]]:
    """A camera that stands higher or lower, nearer or farther, rolled, and in half of the clips
    moving; so too the light.
    """

    def near(view: View, much: float) -> View:
        x, y, zoom, roll = rng.uniform(-1, 1, 4) * much
        return View(
            float(view.x + 0.05 * x),
            float(view.y + 0.03 * y),
            float(view.zoom * np.exp(0.12 * zoom)),
            float(view.roll + 0.08 * roll),
        )

    start = near(View(0.5, 0.5, 1.0, 0.0), 1.0)
    end = near(start, 0.8) if rng.random() < 0.5 else start
    light = stage.light
    if rng.random() < 0.5:
        turned = np.array(light) + np.array([rng.uniform(-0.9, 0.9), 0.0, rng.uniform(-0.3, 0.3)])
        x, y, z = (float(v) for v in turned / np.linalg.norm(turned))
        light = (x, y, z)
    up = rng.uniform(0.0, 1.0)
    stage = dataclasses.replace(
        stage,
        horizon=float(stage.horizon + 0.12 * up),
        tilt=float(0.25 + 0.25 * up),
        light_end=light,
    )
    return stage, (start, end)


def _sample_ambience(
    rng: np.random.Generator, seconds: float
) -> tuple[str, tuple[Contact, ...], tuple[Noise, ...]]:
    """In half of the clips a sound from outside the picture."""
    kind = AMBIENCES[rng.integers(1, len(AMBIENCES))] if rng.random() < 0.5 else "none"
    if kind in ("hum", "wind"):
        level, pitch = rng.uniform(0.02, 0.06), rng.uniform(0.8, 1.25)
        return kind, (), (Noise(kind, 0.0, seconds, float(level), float(pitch)),)
    if kind == "none":
        return kind, (), ()
    often = int(rng.integers(1, 4))
    times = np.sort(rng.uniform(0.05, seconds - 0.2, often))
    if kind == "knocks":
        times = times[0] * 0.6 + rng.uniform(0.18, 0.3) * np.arange(often)
    material, name = ("wood", "knock") if kind == "knocks" else ("bird", "chirp")
    return (
        kind,
        tuple(
            Contact(float(t), -1, material, name, float(rng.uniform(0.5, 1.0)), True, False)
            for t in times
        ),
        (),
    )
