"""Scenes of the synthetic world: which things there are, how they move, when they touch.

Time. Frame f of a clip is centred on f / fps seconds; sample m of its sound is at m / sample_rate seconds; a contact's
time is exact, in seconds, and counts for both.
Space. One unit is the frame's shorter side; x runs to the right and y up, and the unit square lies in the middle of the
frame. A motion is a chain of pieces with constant acceleration.
Chance. Every purpose draws from a stream of its own, keyed by (seed, level, purpose): a purpose that learns to draw
one more number leaves all others as they were.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from syncflow.data.impacts import captions, materials

SEEDS = {
    "train": range(0, 10_000_000),
    "val": range(10_000_000, 11_000_000),
    "test": range(11_000_000, 12_000_000),
}
"""The seed alone decides the split of a clip."""

MIN_GAP = 0.20
"""Seconds between any two contacts of one scene, at least."""

_WHAT, _MOTION, _LOOK, _SOUND, _CAPTION = range(5)


@dataclass(frozen=True)
class Piece:
    """Motion from `start` seconds on, until the next piece starts: position, velocity, acceleration, angle, spin."""

    start: float
    x: float
    y: float
    vx: float = 0.0
    vy: float = 0.0
    ax: float = 0.0
    ay: float = 0.0
    angle: float = 0.0
    spin: float = 0.0


@dataclass(frozen=True)
class Thing:
    """One visible object. `radius` in units; `pitch` multiplies its material's lowest mode; `y` of a piece is its centre."""

    shape: str
    material: str
    colour: str
    size: str
    radius: float
    pitch: float
    pieces: tuple[Piece, ...]
    ground: float | None = None

    def pose(self, time_s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, y (units) and angle (radians) at each time, in the shape of `time_s`."""
        starts = np.array([p.start for p in self.pieces])
        rows = np.array([dataclasses.astuple(p) for p in self.pieces])
        which = np.clip(np.searchsorted(starts, time_s, side="right") - 1, 0, len(starts) - 1)
        start, x, y, vx, vy, ax, ay, angle, spin = np.moveaxis(rows[which], -1, 0)
        dt = time_s - start
        return x + vx * dt + 0.5 * ax * dt * dt, y + vy * dt + 0.5 * ay * dt * dt, angle + spin * dt


@dataclass(frozen=True)
class Contact:
    """One touch. `speed` in units a second; `kind` names the event; an off-screen sound is audible and not visible."""

    time_s: float
    thing: int
    material: str
    kind: str
    speed: float
    audible: bool = True
    visible: bool = True


@dataclass(frozen=True)
class Stage:
    """What is behind the things: `ground` is the height that things touch, `horizon` the edge of wall and floor."""

    ground: float
    horizon: float
    floor: str
    floor_rgb: tuple[float, float, float]
    wall_rgb: tuple[float, float, float]
    wall_slope: tuple[float, float]
    light: tuple[float, float, float]


@dataclass(frozen=True)
class Scene:
    """Everything that a clip is made from; `to_dict` is plain JSON."""

    seed: int
    level: int
    split: str
    seconds: float
    fps: float
    sample_rate: int
    caption: str
    attributes: dict[str, Any]
    contacts: tuple[Contact, ...]
    things: tuple[Thing, ...]
    stage: Stage
    room: tuple[tuple[float, float], ...]
    loudness: float

    @property
    def num_frames(self) -> int:
        return round(self.seconds * self.fps)

    @property
    def num_samples(self) -> int:
        return round(self.seconds * self.sample_rate)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def split_of(seed: int) -> str:
    """The split that a seed belongs to; ValueError where it is in none."""
    for name, seeds in SEEDS.items():
        if seed in seeds:
            return name
    raise ValueError(f"seed must be in [0, {SEEDS['test'].stop}), got {seed!r}")


def sample_scene(
    seed: int,
    level: int = 1,
    split: str | None = None,
    seconds: float = 2.0,
    fps: float = 16,
    sample_rate: int = 48000,
) -> Scene:
    """The scene of a seed: a pure function of its arguments, under a millisecond, no pixel or sample computed.

    `split` may be given to have it checked against the seed (`SEEDS`); by default the seed decides. fps and sample rate
    do not change what happens. Raises ValueError for a level, split, seed, duration or rate that is out of range.
    """
    _check(seed, level, split, seconds, fps, sample_rate)
    split = split_of(seed)

    def stream(purpose: int) -> np.random.Generator:
        return np.random.default_rng([seed, level, purpose])

    what = _sample_what(stream(_WHAT), level, split, seconds)
    things, contacts, stage = _bounce(what, stream(_MOTION), stream(_LOOK), seconds)
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
    attributes = {**what, "floor": stage.floor}
    caption, attributes["mentioned"] = captions.caption(
        attributes, np.random.default_rng([seed, level, _CAPTION]), split
    )
    return Scene(
        seed, level, split, float(seconds), fps, sample_rate, caption, attributes, contacts,
        things, stage, room, loudness,
    )


def _check(
    seed: int, level: int, split: str | None, seconds: float, fps: float, sample_rate: int
) -> None:
    if split is not None and split not in SEEDS:
        raise ValueError(f"split must be one of {', '.join(SEEDS)}, got {split!r}")
    if split is not None and split_of(seed) != split:
        raise ValueError(
            f"seed {seed} belongs to the {split_of(seed)} split, not to {split}; "
            f"{split} has the seeds {SEEDS[split].start} to {SEEDS[split].stop - 1}"
        )
    if level not in materials.LEVEL_MATERIALS:
        raise ValueError(f"level must be one of {sorted(materials.LEVEL_MATERIALS)}, got {level!r}")
    if not 1.0 <= seconds <= 20.0:
        raise ValueError(f"seconds must be in [1, 20], got {seconds!r}")
    if not 1 <= fps <= 240:
        raise ValueError(f"fps must be in [1, 240], got {fps!r}")
    if not 8000 <= sample_rate <= 192000:
        raise ValueError(f"sample_rate must be in [8000, 192000] Hz, got {sample_rate!r}")


def _sample_what(
    rng: np.random.Generator, level: int, split: str, seconds: float
) -> dict[str, Any]:
    """Kind, material, colour, size and count, each close to uniform, so that no label can be guessed."""
    most = 4 if seconds >= 1.6 else 2
    kept = split == "test" and rng.random() < 0.5
    choices = materials.pairs(level, kept)
    colour, material = choices[rng.integers(len(choices))]
    return {
        "kind": "bounce",
        "shape": "ball",
        "material": material,
        "colour": colour,
        "size": list(materials.SIZES)[rng.integers(len(materials.SIZES))],
        "count": int(rng.integers(1, most + 1)),
    }


def bounce_times(
    rng: np.random.Generator, count: int, seconds: float, room: float
) -> tuple[list[float], float, float, list[float]]:
    """Contact times of something that falls and bounces `count` times, and no further within the clip.

    A flight of T seconds peaks at g T^2 / 8, and each is shorter than the one before by the restitution of the contact
    between. Returns the times, the length of the flight that ends at the first contact (it may start before the clip),
    gravity and the restitutions. `room` is the greatest peak in units. Peaks between contacts are at least .07 units,
    about 4 px of 64.
    """
    last, after = seconds - 0.15, seconds + 0.05
    while True:
        first = rng.uniform(0.13, 0.84 * seconds if count == 1 else 0.6 * seconds)
        # A floor is never quite even: the restitution varies from contact to contact, which also spreads the gaps.
        e = np.clip(rng.uniform(0.60, 0.93) * np.exp(rng.normal(0, 0.15, count)), 0.5, 0.97)
        powers = np.cumprod(e)
        total, shown = powers.sum(), powers[:-1].sum()
        # Early enough for the start, gaps long enough, the contact after the last one too late to be seen.
        low = max((after - first) / total, 1.04 * first)
        high = (last - first) / shown if count > 1 else 1.5 * seconds
        if count > 1:
            low = max(low, (MIN_GAP + 0.002) / powers[-2])
        if first > last or low > high:
            continue
        flight = rng.uniform(low, min(high, 1.6 * low))
        peak = rng.uniform(0.55, 1.0) * room
        gravity = 8 * peak / flight**2
        start_height = 0.5 * gravity * first * (flight - first)
        lowest = peak * (powers[-2] ** 2 if count > 1 else 1.0)
        if start_height < 0.12 or lowest < 0.07 or gravity > 16:
            continue
        times = first + flight * np.concatenate([[0.0], np.cumsum(powers[:-1])])
        return [float(t) for t in times], float(flight), float(gravity), [float(v) for v in e]


def _bounce(
    what: dict[str, Any], rng: np.random.Generator, look: np.random.Generator, seconds: float
) -> tuple[tuple[Thing, ...], tuple[Contact, ...], Stage]:
    """One ball that falls and bounces, seen from the side."""
    stage = _stage(look, what["colour"], what["material"])
    radius = materials.SIZES[what["size"]] * rng.uniform(0.94, 1.06)
    room = 0.96 - stage.ground - 2 * radius
    times, flight, gravity, e = bounce_times(rng, what["count"], seconds, room)
    margin = radius + 0.03
    x_start, x_end = rng.uniform(margin, 1 - margin), rng.uniform(margin, 1 - margin)
    # A slow drift: a third of the frame at most.
    x_end = x_start + np.clip(x_end - x_start, -0.35, 0.35)
    vx = (x_end - x_start) / seconds
    spin = -vx / radius * rng.uniform(0.2, 1.0)
    angle = rng.uniform(0, 2 * np.pi)
    floor = stage.ground + radius

    speed = 0.5 * gravity * flight
    t0 = times[0]
    pieces = [
        Piece(
            0.0, x_start, floor + speed * t0 - 0.5 * gravity * t0 * t0, vx, gravity * t0 - speed,
            0.0, -gravity, angle, spin,
        )
    ]
    contacts = []
    for time, restitution in zip(times, e, strict=True):
        contacts.append(Contact(time, 0, what["material"], "bounce", speed))
        speed *= restitution
        pieces.append(
            Piece(
                time, x_start + vx * time, floor, vx, speed, 0.0, -gravity, angle + spin * time,
                spin,
            )
        )
    pieces = [Piece(*(float(v) for v in dataclasses.astuple(p))) for p in pieces]
    contacts = [dataclasses.replace(c, speed=float(c.speed)) for c in contacts]
    thing = Thing(
        "ball", what["material"], what["colour"], what["size"], float(radius), 1.0, tuple(pieces),
        stage.ground,
    )
    return (thing,), tuple(contacts), stage


_FLOOR_RGB = {
    "concrete": (0.46, 0.46, 0.47),
    "wood": (0.50, 0.36, 0.23),
    "tiles": (0.62, 0.62, 0.58),
    "carpet": (0.36, 0.30, 0.40),
}


def _stage(rng: np.random.Generator, colour: str, material: str) -> Stage:
    """Wall, floor and light, muted, and far from the thing's colour; farther where one sees through the thing."""
    far = 0.65 if material == "glass" else 0.45
    thing = np.array(materials.COLOURS[colour])
    ground = rng.uniform(0.12, 0.20)
    while True:
        hue = rng.uniform(0, 3)
        wheel = 0.5 + 0.5 * np.cos(2 * np.pi * (hue / 3 - np.arange(3) / 3))
        value, saturation = rng.uniform(0.30, 0.80), rng.uniform(0.05, 0.30)
        wall = value * (1 - saturation + saturation * wheel)
        floor = materials.FLOORS[rng.integers(len(materials.FLOORS))]
        floor_rgb = np.array(_FLOOR_RGB[floor]) * rng.uniform(0.65, 1.2)
        if np.linalg.norm(wall - thing) > far and np.linalg.norm(floor_rgb - thing) > 0.40:
            break
    light = np.array([rng.uniform(-0.7, 0.7), rng.uniform(0.6, 1.0), rng.uniform(0.5, 0.9)])
    light /= np.linalg.norm(light)
    return Stage(
        float(ground),
        float(ground + rng.uniform(0.05, 0.12)),
        floor,
        tuple(float(v) for v in floor_rgb),
        tuple(float(v) for v in wall),
        (float(rng.uniform(-0.2, 0.2)), float(rng.uniform(0.0, 0.35))),
        tuple(float(v) for v in light),
    )




attribute_names = ("kind", "shape", "material", "colour", "size", "count", "floor")


def attribute_values(level: int = 4) -> dict[str, tuple[Any, ...]]:
    """The labels of each attribute that can occur up to a level, for classifiers."""
    return {
        "kind": ("bounce",),
        "shape": ("ball",),
        "material": materials.LEVEL_MATERIALS[level],
        "colour": tuple(materials.COLOURS),
        "size": tuple(materials.SIZES),
        "count": (1, 2, 3, 4),
        "floor": materials.FLOORS,
    }
