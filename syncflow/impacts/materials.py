"""What things are made of: label sets, colours, the modes they ring with, and the pairs kept for
the test split.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.12, 0.10),
    "orange": (0.96, 0.48, 0.06),
    "yellow": (0.94, 0.84, 0.12),
    "green": (0.14, 0.64, 0.20),
    "cyan": (0.14, 0.78, 0.82),
    "blue": (0.14, 0.26, 0.86),
    "purple": (0.56, 0.18, 0.76),
    "white": (0.94, 0.94, 0.94),
}

SIZES: dict[str, float] = {"small": 0.055, "medium": 0.08, "large": 0.11}
"""Radius of an object as a part of the frame's shorter side."""

SIZE_PITCH = {"small": 1.35, "medium": 1.0, "large": 0.75}

FLOORS = ("concrete", "wood", "tiles", "carpet")


@dataclass(frozen=True)
class Timbre:
    """The sound of one material: damped sines and a short burst of noise.

    `f0` in Hz; `ratios`, `gains` one per mode; `tau` the 1/e time of the lowest mode in seconds,
    higher modes decay as `ratio ** -damping` of it; `click` the burst's level against the modes,
    `click_tau` its 1/e time in seconds, `click_cut` its low-pass frequency in Hz.
    """

    f0: float
    ratios: tuple[float, ...]
    gains: tuple[float, ...]
    tau: float
    damping: float
    click: float
    click_tau: float
    click_cut: float


TIMBRES: dict[str, Timbre] = {
    "metal": Timbre(
        620.0,
        (1.0, 1.52, 2.31, 2.93, 3.87, 4.73, 5.92, 7.41, 9.13),
        (1.0, 0.85, 0.75, 0.6, 0.55, 0.4, 0.35, 0.25, 0.18),
        0.24,
        0.35,
        0.35,
        0.0025,
        9000.0,
    ),
    "wood": Timbre(
        410.0,
        (1.0, 1.98, 2.76, 3.95, 5.40, 6.8),
        (1.0, 0.75, 0.55, 0.4, 0.25, 0.15),
        0.020,
        0.45,
        0.9,
        0.003,
        3500.0,
    ),
    "glass": Timbre(
        2350.0,
        (1.0, 1.43, 1.91, 2.66, 3.38, 4.21, 5.1),
        (0.8, 1.0, 0.7, 0.65, 0.5, 0.3, 0.2),
        0.085,
        0.5,
        0.6,
        0.0015,
        14000.0,
    ),
    "rubber": Timbre(
        135.0,
        (1.0, 1.55, 2.2, 2.9, 4.1, 5.3),
        (1.0, 0.8, 0.5, 0.3, 0.12, 0.06),
        0.030,
        0.6,
        0.6,
        0.005,
        600.0,
    ),
}

TIMBRES |= {
    "plastic": Timbre(
        760.0,
        (1.0, 1.67, 2.48, 3.31, 4.62),
        (1.0, 0.8, 0.6, 0.35, 0.2),
        0.032,
        0.3,
        0.6,
        0.003,
        6000.0,
    ),
    "stone": Timbre(
        1500.0,
        (1.0, 1.35, 1.82, 2.4, 3.3, 4.0),
        (0.8, 1.0, 0.8, 0.7, 0.5, 0.3),
        0.011,
        0.3,
        1.5,
        0.004,
        7000.0,
    ),
    "ceramic": Timbre(
        1430.0,
        (1.0, 1.62, 2.41, 3.12, 4.3, 5.5),
        (1.0, 0.7, 0.6, 0.4, 0.25, 0.15),
        0.13,
        0.6,
        0.5,
        0.002,
        9000.0,
    ),
    "cardboard": Timbre(
        190.0,
        (1.0, 1.9, 3.1, 4.4),
        (1.0, 0.6, 0.5, 0.3),
        0.016,
        0.4,
        1.6,
        0.014,
        1800.0,
    ),
    "foam": Timbre(
        80.0,
        (1.0, 1.5, 2.1),
        (1.0, 0.6, 0.3),
        0.014,
        0.5,
        1.2,
        0.022,
        380.0,
    ),
    "drum": Timbre(
        112.0,
        (1.0, 1.594, 2.136, 2.296, 2.653, 2.918, 3.5),
        (1.0, 0.8, 0.6, 0.4, 0.4, 0.3, 0.2),
        0.15,
        0.9,
        0.5,
        0.006,
        2500.0,
    ),
}

_FIRST = ("metal", "wood", "glass", "rubber")
_ALL = (*_FIRST, "plastic", "stone", "ceramic", "cardboard", "foam", "drum")
LEVEL_MATERIALS: dict[int, tuple[str, ...]] = {1: _FIRST, 2: _ALL, 3: _ALL, 4: _ALL}


def held_out(colour: str, material: str) -> bool:
    """Whether the pair is kept for the test split. A fixed hash, so that it holds for every
    version and machine.
    """
    digest = hashlib.md5(f"pair {colour} {material} 9027".encode()).digest()
    return int.from_bytes(digest[:4], "big") % 1000 < 125


@cache
def pairs(level: int, kept: bool, drums: bool = True) -> tuple[tuple[str, str], ...]:
    """The (colour, material) pairs of a level: those held out (`kept`) or those that training
    sees.
    """
    return tuple(
        (c, m)
        for m in LEVEL_MATERIALS[level]
        for c in COLOURS
        if held_out(c, m) == kept and (drums or m != "drum")
    )
