"""What can happen: every kind of event draws its things, their motion and the exact times at
which they touch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from syncflow.impacts import materials
from syncflow.impacts.scene import Attributes, Contact, Noise, Piece, Stage, Thing
from syncflow.impacts.stages import stage

MIN_GAP = 0.20
"""Seconds between any two contacts that are seen in one scene, at least."""

Event = tuple[tuple[Thing, ...], tuple[Contact, ...], Stage, tuple[Noise, ...]]
_Rng = np.random.Generator


def bounce_times(
    rng: _Rng, count: int, seconds: float, room: float
) -> tuple[list[float], float, float, list[float]]:
    """Contact times of something that falls and bounces `count` times, and no further within the
    clip.

    A flight of T seconds peaks at g T^2 / 8, and each is shorter than the one before by the
    restitution of the contact between. Returns the times, the length of the flight that ends at
    the first contact (it may start before the clip), gravity and the restitutions. `room` is the
    greatest peak in units. Peaks between contacts are at least .07 units, about 4 px of 64.
    """
    last, after = seconds - 0.15, seconds + 0.05
    while True:
        first = rng.uniform(0.13, 0.84 * seconds if count == 1 else 0.6 * seconds)
        # A floor is never quite even: the restitution varies from contact to contact, which also
        # spreads the gaps.
        e = np.clip(rng.uniform(0.60, 0.93) * np.exp(rng.normal(0, 0.15, count)), 0.5, 0.97)
        powers = np.cumprod(e)
        total, shown = powers.sum(), powers[:-1].sum()
        # Early enough for the start, gaps long enough, the contact after the last one too late to
        # be seen.
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


def bounce(what: Attributes, rng: _Rng, look: _Rng, seconds: float, through: float = 0.5) -> Event:
    """One thing that falls and bounces, seen from the side; `through` as for `stage`."""
    scenery = stage(look, [what], through)
    thing, contacts = _bouncer(what, 0, rng, seconds, scenery.ground)
    return (thing,), contacts, scenery, ()


def pair(what: Attributes, rng: _Rng, look: _Rng, seconds: float) -> Event:
    """Two things of different materials that bounce side by side, never within 0.2 s of each
    other.
    """
    scenery = stage(look, [what, what["second"]])
    lanes = ((0.08, 0.44), (0.56, 0.92))
    lanes = lanes if rng.random() < 0.5 else lanes[::-1]
    while True:
        one, first = _bouncer(what, 0, rng, seconds, scenery.ground, lanes[0])
        two, second = _bouncer(what["second"], 1, rng, seconds, scenery.ground, lanes[1])
        contacts = tuple(sorted(first + second, key=lambda c: c.time_s))
        gaps = [b.time_s - a.time_s for a, b in zip(contacts, contacts[1:], strict=False)]
        if min(gaps) >= MIN_GAP:
            return (one, two), contacts, scenery, ()


def _bouncer(
    what: Attributes,
    index: int,
    rng: _Rng,
    seconds: float,
    ground: float,
    lane: tuple[float, float] = (0.0, 1.0),
) -> tuple[Thing, tuple[Contact, ...]]:
    radius = materials.SIZES[what["size"]] * rng.uniform(0.94, 1.06)
    room = 0.96 - ground - 2 * radius
    times, flight, gravity, restitutions = bounce_times(rng, what["count"], seconds, room)
    margin = radius + 0.03
    low, high = lane[0] + margin, max(lane[1] - margin, lane[0] + margin + 0.01)
    x_start, x_end = rng.uniform(low, high), rng.uniform(low, high)
    # A slow drift: a third of the frame at most.
    x_end = x_start + np.clip(x_end - x_start, -0.35, 0.35)
    vx = (x_end - x_start) / seconds
    spin = -vx / radius * rng.uniform(0.2, 1.0)
    angle = rng.uniform(0, 2 * np.pi)
    if what["shape"] == "box":
        # A box that turned would touch with its corners, at other times than its centre says.
        spin, angle = 0.0, 0.0
    floor = ground + radius

    speed = 0.5 * gravity * flight
    t0 = times[0]
    pieces = [
        Piece(
            0.0,
            x_start,
            floor + speed * t0 - 0.5 * gravity * t0 * t0,
            vx,
            gravity * t0 - speed,
            0.0,
            -gravity,
            angle,
            spin,
        )
    ]
    contacts = []
    for time, restitution in zip(times, restitutions, strict=True):
        contacts.append(Contact(time, index, what["material"], "bounce", float(speed)))
        speed *= restitution
        pieces.append(
            Piece(
                time,
                x_start + vx * time,
                floor,
                vx,
                speed,
                0.0,
                -gravity,
                angle + spin * time,
                spin,
            )
        )
    return _thing(what, radius, pieces, ground), tuple(contacts)


def strike(what: Attributes, rng: _Rng, look: _Rng, seconds: float) -> Event:
    """A stick swings down on a thing that stands on the floor, `count` times, harder and softer."""
    scenery = stage(look, [what])
    radius = 1.25 * materials.SIZES[what["size"]] * rng.uniform(0.94, 1.06)
    x, y = rng.uniform(0.25, 0.75), scenery.ground + radius
    target = _thing(what, radius, [Piece(0.0, x, y)], scenery.ground)
    down, up = rng.uniform(0.13, 0.20), rng.uniform(0.16, 0.24)
    count = what["count"]
    gap = down + up + 0.01
    spare = seconds - 0.15 - 0.16 - gap * (count - 1)
    times = 0.16 + np.sort(rng.uniform(0, spare, count)) + gap * np.arange(count)

    side = 1.0 if x < 0.5 else -1.0
    slope = rng.uniform(0.2, 0.55)
    thick, length = 0.016, rng.uniform(0.36, 0.48)
    reach = length - thick
    touch = (x, y + radius + thick)
    hinge = (touch[0] + side * reach * np.cos(slope), touch[1] + reach * np.sin(slope))
    rest = float(np.arctan2(touch[1] - hinge[1], touch[0] - hinge[0]))
    raises = -side * rng.uniform(0.45, 0.85, count)
    pieces, contacts = [], []
    for i, time in enumerate(times):
        swing = raises[i]
        # The stick hangs in the air, falls on the thing, and springs back to where the next blow
        # starts.
        start = 0.0 if i == 0 else times[i - 1] + up
        if i == 0 or time - down > start:
            pieces.append(Piece(start, *hinge, angle=rest + swing))
        pieces.append(Piece(time - down, *hinge, angle=rest + swing, twist=-2 * swing / down**2))
        back = raises[min(i + 1, count - 1)]
        pieces.append(Piece(time, *hinge, angle=rest, spin=2 * back / up, twist=-2 * back / up**2))
        speed = 2 * abs(swing) / down * reach
        contacts.append(Contact(float(time), 0, what["material"], "strike", float(speed)))
    pieces.append(Piece(times[-1] + up, *hinge, angle=rest + raises[-1]))
    stick = Thing(
        "stick",
        "wood",
        "orange",
        "medium",
        thick,
        1.0,
        _floats(pieces),
        None,
        float(0.5 * length / thick),
    )
    return (target, stick), tuple(contacts), scenery, ()


def roll(what: Attributes, rng: _Rng, look: _Rng, seconds: float) -> Event:
    """A round thing rolls along a shelf, falls off its end and bounces on the floor."""
    scenery = stage(look, [what])
    count = what["count"]
    radius = 0.9 * materials.SIZES[what["size"]] * rng.uniform(0.94, 1.06)
    while True:
        drop, gravity = rng.uniform(0.28, 0.50), rng.uniform(1.2, 9.0)
        speed_x, e = rng.uniform(0.12, 0.60), rng.uniform(0.5, 0.9)
        x_start, edge = rng.uniform(0.03, 0.35), rng.uniform(0.25, 0.65)
        leave = (edge - x_start) / speed_x
        fall = float(np.sqrt(2 * drop / gravity))
        speed = gravity * fall
        gaps = 2 * speed * e ** np.arange(1, count + 1) / gravity
        times = leave + fall + np.concatenate([[0.0], np.cumsum(gaps)])
        slow = 0.6 * speed_x
        x_land = edge + speed_x * fall
        x_last = x_land + slow * (seconds - times[0])
        if (
            leave > 0.10
            and times[count - 1] < seconds - 0.15
            and times[count] > seconds + 0.05
            and x_last < 0.97 - radius
            and scenery.ground + drop + 2 * radius < 0.97
            and (count == 1 or (gaps[:-1].min() > MIN_GAP and drop * e ** (2 * count - 2) > 0.07))
        ):
            break
    floor, spin = scenery.ground + radius, -speed_x / radius
    pieces = [
        Piece(0.0, x_start, floor + drop, speed_x, spin=spin),
        Piece(leave, edge, floor + drop, speed_x, ay=-gravity, angle=spin * leave, spin=spin),
    ]
    contacts, x, angle = [], x_land, spin * times[0]
    for i in range(count):
        contacts.append(Contact(float(times[i]), 0, what["material"], "fall", float(speed)))
        speed *= e
        pieces.append(
            Piece(times[i], x, floor, slow, speed, ay=-gravity, angle=angle, spin=0.6 * spin)
        )
        x, angle = x + slow * gaps[i], angle + 0.6 * spin * gaps[i]
    half = 0.016
    shelf_x, reach = (edge - 0.4) / 2, (edge + 0.4) / 2
    board = [Piece(0.0, shelf_x, scenery.ground + drop - half)]
    if rng.random() < 0.5:
        pieces, board = _mirror(pieces), _mirror(board)
    thing = _thing(what, radius, pieces, scenery.ground)
    shelf = Thing(
        "shelf", "wood", "orange", "large", half, 1.0, _floats(board), None, float(reach / half)
    )
    rumble = Noise("rumble", 0.0, float(leave), 0.05, float(speed_x))
    return (thing, shelf), tuple(contacts), scenery, (rumble,)


def splash(what: Attributes, rng: _Rng, look: _Rng, seconds: float) -> Event:
    """`count` equal things fall into a pool one after another, throw up drops and sink."""
    scenery = stage(look, [what])
    level = rng.uniform(0.30, 0.40)
    scenery = dataclasses.replace(scenery, water=float(level), ground=0.06)
    count = what["count"]
    gap = MIN_GAP + 0.05
    spare = seconds - 0.15 - 0.25 - gap * (count - 1)
    times = 0.25 + np.sort(rng.uniform(0, spare, count)) + gap * np.arange(count)
    gravity = rng.uniform(3.0, 6.0)
    places = (rng.permutation(count) + rng.uniform(0.3, 0.7, count)) / count * 0.8 + 0.1
    things, drops, contacts = [], [], []
    for i, (time, x) in enumerate(zip(times, places, strict=True)):
        radius = 0.9 * materials.SIZES[what["size"]] * rng.uniform(0.94, 1.06)
        y, height = level + radius, 1.15 - level
        push = rng.uniform(0.0, 0.6)
        fall = (np.sqrt(push**2 + 2 * gravity * height) - push) / gravity
        speed, sink = push + gravity * fall, rng.uniform(0.06, 0.12)
        drag = 0.10
        depth = y - drag * (speed + sink) / 2
        pieces = [
            Piece(0.0, x, y + height),
            Piece(time - fall, x, y + height, vy=-push, ay=-gravity),
            Piece(time, x, y, vy=-speed, ay=(speed - sink) / drag),
            Piece(time + drag, x, depth, vy=-sink),
        ]
        bottom = 0.06 + radius
        pieces.append(Piece(time + drag + max(depth - bottom, 0) / sink, x, min(bottom, depth)))
        if fall > time:
            # It was on its way when the clip began.
            pieces[0] = dataclasses.replace(pieces[1])
        things.append(_thing(what, radius, pieces, None))
        contacts.append(Contact(float(time), i, "water", "splash", float(speed)))
        drops += _drops(rng, float(time), x, level, radius, gravity, seconds)
    return tuple(things) + tuple(drops), tuple(contacts), scenery, ()


def _drops(
    rng: _Rng, time: float, x: float, level: float, radius: float, gravity: float, seconds: float
) -> list[Thing]:
    drops = []
    for side in (-1, -1, -1, 1, 1, 1):
        size = rng.uniform(0.010, 0.020)
        vx, vy = side * rng.uniform(0.1, 0.5), rng.uniform(0.7, 1.5)
        pieces = [
            Piece(0.0, x, -9.0),
            Piece(time, x + side * 0.7 * radius, level - size, vx, vy, ay=-gravity),
            Piece(time + 2.1 * vy / gravity, x, -9.0),
        ]
        drops.append(
            Thing("drop", "water", "cyan", "small", float(size), 1.0, _floats(pieces), None)
        )
    return drops


def _thing(what: Attributes, radius: float, pieces: list[Piece], ground: float | None) -> Thing:
    stretch = {"drum": 1.35}.get(what["shape"], 1.0)
    return Thing(
        what["shape"],
        what["material"],
        what["colour"],
        what["size"],
        float(radius),
        1.0,
        _floats(pieces),
        ground,
        stretch,
    )


def _floats(pieces: list[Piece]) -> tuple[Piece, ...]:
    return tuple(Piece(*(float(v) for v in dataclasses.astuple(p))) for p in pieces)


def _mirror(pieces: list[Piece]) -> list[Piece]:
    return [
        dataclasses.replace(p, x=1 - p.x, vx=-p.vx, angle=-p.angle, spin=-p.spin) for p in pieces
    ]


def first_bounce(what: Attributes, rng: _Rng, look: _Rng, seconds: float) -> Event:
    """Level 1's bounce: its distance of walls from glass is kept, since data sets are made from
    it.
    """
    return bounce(what, rng, look, seconds, through=0.65)


KINDS: dict[str, Callable[[Attributes, _Rng, _Rng, float], Event]] = {
    "bounce": bounce,
    "strike": strike,
    "roll": roll,
    "splash": splash,
    "pair": pair,
}
