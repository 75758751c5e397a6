"""Wall, floor and light behind the things of a scene."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from math import cos, dist, pi

import numpy as np

from syncflow.impacts import materials
from syncflow.impacts.scene import Attributes, Stage

FLOOR_RGB = {
    "concrete": (0.46, 0.46, 0.47),
    "wood": (0.50, 0.36, 0.23),
    "tiles": (0.62, 0.62, 0.58),
    "carpet": (0.36, 0.30, 0.40),
}


def stage(rng: np.random.Generator, whats: list[Attributes], through: float = 0.5) -> Stage:
    """Wall, floor and light, muted, and far from the things' colours; `through` is how far where
    things are of glass.
    """
    things: list[tuple[float, ...]] = [materials.COLOURS[w["colour"]] for w in whats]
    fars = [through if w["material"] == "glass" else 0.45 for w in whats]
    if len(whats) > 1:
        fars = [0.40] * len(whats)
    ground = rng.uniform(0.12, 0.20)
    tries = 0
    while True:
        if tries >= 16 and tries % 2 == 0:
            _skip_failures(rng, things, fars)
        tries += 1
        hue = rng.uniform(0, 3)
        value, saturation = rng.uniform(0.30, 0.80), rng.uniform(0.05, 0.30)
        floor = materials.FLOORS[rng.integers(len(materials.FLOORS))]
        shade = rng.uniform(0.65, 1.2)
        wall = [
            value * (1 - saturation + saturation * (0.5 + 0.5 * cos(2 * pi * (hue - k) / 3)))
            for k in range(3)
        ]
        floor_rgb = [v * shade for v in FLOOR_RGB[floor]]
        if all(
            dist(wall, thing) > far and dist(floor_rgb, thing) > min(0.40, 0.9 * far)
            for thing, far in zip(things, fars, strict=True)
        ):
            break
    light = np.array([rng.uniform(-0.7, 0.7), rng.uniform(0.6, 1.0), rng.uniform(0.5, 0.9)])
    light /= np.linalg.norm(light)
    return Stage(
        float(ground),
        float(ground + rng.uniform(0.05, 0.12)),
        floor,
        _three(floor_rgb),
        _three(wall),
        (float(rng.uniform(-0.2, 0.2)), float(rng.uniform(0.0, 0.35))),
        _three(float(v) for v in light),
    )


def laid(stage: Stage, floor: str) -> Stage:
    """The stage with another floor, as bright or dark of its kind as the one it has."""
    if floor == stage.floor:
        return stage
    shade = stage.floor_rgb[0] / FLOOR_RGB[stage.floor][0]
    return dataclasses.replace(
        stage, floor=floor, floor_rgb=_three(v * shade for v in FLOOR_RGB[floor])
    )


def _skip_failures(
    rng: np.random.Generator, things: list[tuple[float, ...]], fars: list[float]
) -> None:
    """Moves `rng` to the next try whose wall may do, as if every try before it had been made one
    by one.

    Hardly any wall is far enough from level 1's purple glass: thousands of tries, which take a
    millisecond this way. Two tries of `stage` consume nine words: three fractions, half a word
    for the floor, one fraction; the second takes the other half.
    """
    bits = rng.bit_generator
    assert isinstance(bits, np.random.PCG64)  # of NumPy's, not all can be moved ahead
    colours = np.array(things)[:, None]
    while True:
        before = bits.state
        words = bits.random_raw(9 * 2048).reshape(-1, 9)
        part = (words >> np.uint64(11)) * 2.0**-53
        part = part[:, [0, 1, 2, 5, 6, 7]].reshape(-1, 2, 3)
        hue, value, saturation = (
            3 * part[..., 0],
            0.3 + 0.5 * part[..., 1],
            0.05 + 0.25 * part[..., 2],
        )
        wheel = 0.5 + 0.5 * np.cos(2 * np.pi * (hue[..., None] - np.arange(3)) / 3)
        wall = value[..., None] * (1 - saturation[..., None] * (1 - wheel))
        away = np.linalg.norm(wall.reshape(1, -1, 3) - colours, axis=-1)
        good = np.all(away > np.array(fars)[:, None] - 1e-6, axis=0).reshape(-1, 2).any(axis=1)
        if good.any():
            bits.state = before
            bits.advance(9 * int(np.argmax(good)))
            return


def _three(values: Iterable[float]) -> tuple[float, float, float]:
    first, second, third = values
    return first, second, third
