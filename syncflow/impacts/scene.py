"""What a scene is made of: plain frozen data, from which picture, sound and caption follow."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypedDict

import numpy as np


class Attributes(TypedDict, total=False):
    """What a clip shows, in the words that captions choose theirs by.

    Attributes:
        kind: of what happens, one of `events.KINDS`.
        shape, material, colour, size: of the thing; of both of a pair where the size is the same.
        count: contacts that can be told apart.
        floor: what is fallen on, rolled on or splashed into.
        ambience: what is heard beside it.
        second: the other thing of a pair.
        mentioned: which of these the caption says.
    """

    kind: str
    shape: str
    material: str
    colour: str
    size: str
    count: int
    floor: str
    ambience: str
    second: Attributes
    mentioned: list[str]


@dataclass(frozen=True)
class Piece:
    """Motion from `start` seconds on, until the next piece starts; units, seconds, radians."""

    start: float
    x: float
    y: float
    vx: float = 0.0
    vy: float = 0.0
    ax: float = 0.0
    ay: float = 0.0
    angle: float = 0.0
    spin: float = 0.0
    twist: float = 0.0
    """Angular acceleration."""


@dataclass(frozen=True)
class Thing:
    """One visible object.

    `radius` (units) is half of its height, and `stretch` half of its width as a multiple of that.
    A stick turns about its end at (x, y), every other thing is centred there. `pitch` multiplies
    its material's lowest mode; a thing that stands or falls on the ground casts a shadow at the
    height `ground`.
    """

    shape: str
    material: str
    colour: str
    size: str
    radius: float
    pitch: float
    pieces: tuple[Piece, ...]
    ground: float | None = None
    stretch: float = 1.0

    def pose(self, time_s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, y (units) and angle (radians) at each time, in the shape of `time_s`."""
        starts = np.array([p.start for p in self.pieces])
        rows = np.array([dataclasses.astuple(p) for p in self.pieces])
        which = np.clip(np.searchsorted(starts, time_s, side="right") - 1, 0, len(starts) - 1)
        start, x, y, vx, vy, ax, ay, angle, spin, twist = np.moveaxis(rows[which], -1, 0)
        dt = time_s - start
        return (
            x + vx * dt + 0.5 * ax * dt * dt,
            y + vy * dt + 0.5 * ay * dt * dt,
            angle + spin * dt + 0.5 * twist * dt * dt,
        )

    @property
    def still(self) -> bool:
        """Whether it never moves."""
        return (
            len(self.pieces) == 1
            and not any(dataclasses.astuple(self.pieces[0])[3:7])
            and not (self.pieces[0].spin or self.pieces[0].twist)
        )


@dataclass(frozen=True)
class Contact:
    """One touch. `speed` in units a second; `kind` names the event.

    A sound from outside the picture (a distant knock, a bird) is audible and not visible, and its
    `thing` is -1.
    """

    time_s: float
    thing: int
    material: str
    kind: str
    speed: float
    audible: bool = True
    visible: bool = True


@dataclass(frozen=True)
class Noise:
    """A sound that is no touch: hum, wind, or the rumble of rolling. `level` against the loudest
    contact.
    """

    kind: str
    start: float
    stop: float
    level: float
    pitch: float = 1.0


@dataclass(frozen=True)
class Stage:
    """What is behind the things: `ground` is the height that things touch, `horizon` the edge of
    wall and floor.

    `water` is the height of a pool's surface; `light_end` is where the light has moved to by the
    end of the clip; `tilt` is how round shadows are: the camera's height.
    """

    ground: float
    horizon: float
    floor: str
    floor_rgb: tuple[float, float, float]
    wall_rgb: tuple[float, float, float]
    wall_slope: tuple[float, float]
    light: tuple[float, float, float]
    light_end: tuple[float, float, float] | None = None
    water: float | None = None
    tilt: float = 0.30


@dataclass(frozen=True)
class View:
    """A camera: the point of the world in the middle of the frame, zoom, and roll in radians."""

    x: float
    y: float
    zoom: float
    roll: float


@dataclass(frozen=True)
class Scene:
    """Everything that a clip is made from.

    `views` are the camera at the start and at the end of the clip, None for a camera that looks
    straight at the unit square; `room` the delays (s) and gains of early reflections; `loudness`
    the peak in dBFS.
    """

    seed: int
    level: int
    split: str
    seconds: float
    fps: float
    sample_rate: int
    caption: str
    attributes: Attributes
    contacts: tuple[Contact, ...]
    things: tuple[Thing, ...]
    stage: Stage
    room: tuple[tuple[float, float], ...]
    loudness: float
    noises: tuple[Noise, ...] = ()
    views: tuple[View, View] | None = None

    @property
    def num_frames(self) -> int:
        """Frames of the picture, ``seconds`` at ``fps``."""
        return round(self.seconds * self.fps)

    @property
    def num_samples(self) -> int:
        """Samples of the sound, ``seconds`` at ``sample_rate``."""
        return round(self.seconds * self.sample_rate)
