"""Pictures of a scene: shaded, anti-aliased sprites with motion blur over wall, floor and water.
Pure numpy.
"""

from __future__ import annotations

import numpy as np

from syncflow.impacts import shapes
from syncflow.impacts.scene import Contact, Scene, Stage, Thing, View

SUBFRAMES, STICK_SUBFRAMES = 4, 10
"""Moments that a frame is averaged over; a stick is thin and swift and shows too few of them as
ghosts.
"""
SHUTTER = 0.5
"""Part of a frame's time for which the shutter is open, centred on the frame's time."""


class Camera:
    """Where the world falls on the pixels of a frame, at any time of the clip."""

    def __init__(self, scene: Scene, height: int, width: int) -> None:
        self.height, self.width, self.seconds = height, width, scene.seconds
        self.scale = float(min(height, width))
        self.views = scene.views
        self.moving = scene.views is not None and scene.views[0] != scene.views[1]
        stage = scene.stage
        self.light, self.light_end = stage.light, stage.light_end or stage.light
        self.lit_the_same = self.light == self.light_end

    def _view(self, time_s: np.ndarray | np.floating) -> View:
        assert self.views is not None
        first, second = self.views
        part = np.clip(time_s / self.seconds, 0, 1)
        return View(
            *(
                getattr(first, k) + (getattr(second, k) - getattr(first, k)) * part
                for k in ("x", "y", "zoom", "roll")
            )
        )

    def project(
        self, x: np.ndarray, y: np.ndarray, angle: np.ndarray, time_s: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | float]:
        """Column and row in pixels, angle on the screen, and pixels per unit."""
        if self.views is None:
            column = (x - 0.5) * self.scale + self.width / 2
            return column, self.height / 2 - (y - 0.5) * self.scale, angle, self.scale
        view = self._view(time_s)
        cos, sin, scale = np.cos(view.roll), np.sin(view.roll), self.scale * view.zoom
        dx, dy = x - view.x, y - view.y
        column = (dx * cos - dy * sin) * scale + self.width / 2
        row = self.height / 2 - (dx * sin + dy * cos) * scale
        return column, row, angle + view.roll, scale

    def grid(self, time_s: float) -> tuple[np.ndarray, np.ndarray, float]:
        """World x and y of every pixel ([1, W] and [H, 1] where they are separable, else [H, W]),
        pixels per unit.
        """
        columns = np.arange(self.width, dtype=np.float32)[None] + 0.5 - self.width / 2
        rows = np.arange(self.height, dtype=np.float32)[:, None] + 0.5 - self.height / 2
        if self.views is None:
            return columns / self.scale + 0.5, 0.5 - rows / self.scale, self.scale
        view = self._view(np.float32(time_s))
        cos, sin, scale = np.cos(view.roll), np.sin(view.roll), self.scale * view.zoom
        x = (columns * cos - rows * sin) / scale + view.x
        y = (-columns * sin - rows * cos) / scale + view.y
        return x.astype(np.float32), y.astype(np.float32), float(scale)

    def light_at(self, time_s: np.ndarray) -> shapes.Light:
        """Direction towards the light, a unit vector, at each time in seconds."""
        if self.lit_the_same:
            return self.light
        part = np.clip(time_s / self.seconds, 0, 1).astype(np.float32)
        x, y, z = (a + (b - a) * part for a, b in zip(self.light, self.light_end, strict=True))
        norm = np.sqrt(x * x + y * y + z * z)
        return x / norm, y / norm, z / norm


def render(scene: Scene, height: int = 64, width: int = 64) -> np.ndarray:
    """The clip's frames, uint8 [F, 3, H, W]; frame f is centred on f / fps seconds. ValueError
    under 16 pixels.
    """
    if min(height, width) < 16:
        raise ValueError(f"height and width must be at least 16 pixels, got {height} x {width}")
    frames = np.empty((scene.num_frames, 3, height, width), np.uint8)
    camera = Camera(scene, height, width)
    still = None if camera.moving else background(scene.stage, *camera.grid(0.0))
    step = max(1, 32 * 64 * 64 // (height * width))
    for first in range(0, scene.num_frames, step):
        index = np.arange(first, min(first + step, scene.num_frames))
        frames[index] = _draw(scene, index, camera, still)
    return frames


def _draw(scene: Scene, index: np.ndarray, camera: Camera, still: np.ndarray | None) -> np.ndarray:
    """Frames of the given numbers, uint8 [N, 3, H, W]; in pieces so that great pictures stay in
    the cache.
    """
    time_F = index / scene.fps
    if still is None:
        image = np.stack([background(scene.stage, *camera.grid(t)) for t in time_F])
    else:
        image = np.repeat(still[None], len(index), axis=0)
    for thing in scene.things:
        _shadow(image, thing, time_F, scene.stage, camera)
    for thing in scene.things:
        subframes = STICK_SUBFRAMES if thing.shape == "stick" else SUBFRAMES
        offsets = ((np.arange(subframes) + 0.5) / subframes - 0.5) * SHUTTER
        _composite(image, thing, (index[:, None] + offsets) / scene.fps, camera)
    if scene.stage.water is not None:
        _water(image, scene, time_F, camera)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def background(stage: Stage, x: np.ndarray, y: np.ndarray, scale: float) -> np.ndarray:
    """Wall and floor, float32 [3, H, W], for pixels at x, y of the world."""
    shade = 1 + stage.wall_slope[0] * (x - 0.5) + stage.wall_slope[1] * (y - 0.6)
    wall = np.array(stage.wall_rgb, np.float32)[:, None, None] * shade
    depth = np.clip((stage.horizon - y) / max(stage.horizon, 1e-3), 0, 1)
    bright = (0.82 + 0.3 * depth) * (1 + 0.5 * stage.wall_slope[0] * (x - 0.5))
    bright = bright * _floor_pattern(stage, x, depth)
    floor = np.array(stage.floor_rgb, np.float32)[:, None, None] * bright
    cover = np.clip((stage.horizon - y) * scale + 0.5, 0, 1)
    return (wall * (1 - cover) + floor * cover).astype(np.float32)


def _floor_pattern(stage: Stage, x: np.ndarray, depth: np.ndarray) -> np.ndarray:
    # Lines on the floor run towards a vanishing point, so that they spread with depth.
    u = (x - 0.5) * (1.6 - 0.6 * depth)
    if stage.floor == "tiles":
        lines = np.exp(-((np.mod(u * 5 + 0.5, 1) - 0.5) ** 2) / 0.004)
        rows = np.exp(-((depth - 0.45) ** 2) / 0.003)
        return 1 - 0.22 * np.maximum(lines, rows)
    if stage.floor == "wood":
        return (
            1 + 0.08 * np.sin(2 * np.pi * 3.5 * u) + 0.05 * np.sin(2 * np.pi * 9.1 * u + 4 * depth)
        )
    if stage.floor == "carpet":
        return 1 + 0.10 * np.sin(14 * depth + 0 * u)
    return 1 + 0 * u


def _shadow(
    image: np.ndarray, thing: Thing, time_F: np.ndarray, stage: Stage, camera: Camera
) -> None:
    if thing.ground is None:
        return
    cx, cy, _ = thing.pose(time_F)
    high = np.maximum(cy - thing.radius - thing.ground, 0)
    wide = thing.radius * (1.0 + 1.2 * high)
    dark = (0.34 if thing.material == "glass" else 0.55) * np.exp(-high / 0.28)
    for f, time in enumerate(time_F):
        x, y, _ = camera.grid(time)
        across = np.exp(-(((x - cx[f]) / (wide[f] * thing.stretch)) ** 2))
        down = np.exp(-(((y - thing.ground + 0.1 * thing.radius) / (stage.tilt * wide[f])) ** 2))
        shade = 1 - dark[f] * (down * (y < stage.horizon)) * across
        image[f] *= shade.astype(np.float32)


def _composite(image: np.ndarray, thing: Thing, time_FK: np.ndarray, camera: Camera) -> None:
    """Draws a thing over the frames, averaged over the sub-frames."""
    frames, subframes = time_FK.shape
    height, width = image.shape[2:]
    same = thing.still and not camera.moving and camera.lit_the_same
    if same:
        time_FK = time_FK[:1, :1]
    x, y, angle = thing.pose(time_FK)
    half_width = thing.stretch * thing.radius
    if thing.shape == "stick":
        x, y = x + half_width * np.cos(angle), y + half_width * np.sin(angle)
    column, row, angle, scale = camera.project(x, y, angle, time_FK)
    reach = max(1.0, thing.stretch) * thing.radius * scale
    half = int(np.ceil(np.max(reach))) + 2
    seen_F = np.any(
        (column > -half) & (column < width + half) & (row > -half) & (row < height + half), axis=1
    )
    if not seen_F.any():
        return
    kept = np.nonzero(seen_F)[0]
    column, row, angle = column[kept].reshape(-1), row[kept].reshape(-1), angle[kept].reshape(-1)
    radius = thing.radius * scale
    if isinstance(radius, np.ndarray):
        radius = radius[kept].reshape(-1, 1, 1).astype(np.float32)
    light = camera.light_at(time_FK[kept].reshape(-1, 1, 1))
    left, top = np.floor(column).astype(int) - half, np.floor(row).astype(int) - half
    steps = np.arange(2 * half + 1, dtype=np.float32) + 0.5
    dx = (left[:, None] + steps - column[:, None]).astype(np.float32)[:, None, :]
    dy = (row[:, None] - top[:, None] - steps).astype(np.float32)[:, :, None]
    sprite = shapes.draw(thing, dx, dy, radius, angle.astype(np.float32)[:, None, None], light)
    size = 2 * half + 1
    count = time_FK.shape[1]
    sprite = sprite.reshape(4, len(kept), count, size, size) / count
    left, top = left.reshape(-1, count), top.reshape(-1, count)
    canvas = np.zeros((4, height + 2 * size, width + 2 * size), np.float32)
    for i, f in enumerate(kept):
        rows, columns = np.clip(top[i], -size, height), np.clip(left[i], -size, width)
        for k in range(count):
            a, b = rows[k] + size, columns[k] + size
            canvas[:, a : a + size, b : b + size] += sprite[:, i, k]
        a, b = max(rows.min(), 0), max(columns.min(), 0)
        c, d = min(rows.max() + size, height), min(columns.max() + size, width)
        if c > a and d > b:
            seen = canvas[:, a + size : c + size, b + size : d + size]
            area = image[slice(None) if same else f, :, a:c, b:d]
            area *= 1 - seen[3]
            area += seen[:3]
        canvas[
            :,
            rows.min() + size : rows.max() + 2 * size,
            columns.min() + size : columns.max() + 2 * size,
        ] = 0


_WATER_RGB = (0.16, 0.42, 0.55)


def _water(image: np.ndarray, scene: Scene, time_F: np.ndarray, camera: Camera) -> None:
    """Lays a pool over everything below its surface, which ripples away from every splash."""
    stage = scene.stage
    splashes: list[tuple[Contact, float]] = []
    for contact in scene.contacts:
        if contact.visible:
            where, _, _ = scene.things[contact.thing].pose(np.array(contact.time_s))
            splashes.append((contact, float(where)))
    for f, time in enumerate(time_F):
        x, y, scale = camera.grid(time)
        surface = stage.water + 0.004 * np.sin(17 * x + 5 * time)
        for contact, place in splashes:
            age = time - contact.time_s
            if age > 0:
                away = np.abs(x - place)
                front = np.clip((0.9 * age + 0.03 - away) / 0.05, 0, 1)
                wave = np.cos(55 * away - 30 * age) * np.exp(-3.0 * age - 2.5 * away)
                surface = surface + 0.03 * front * wave
        cover = np.clip((surface - y) * scale + 0.5, 0, 1)
        line = np.exp(-(((surface - y) * scale / 1.2) ** 2))
        bright = 1.15 - 0.8 * (stage.water - y)
        for c, tone in enumerate(_WATER_RGB):
            image[f, c] += (0.62 * cover * (tone * bright - image[f, c])).astype(np.float32)
            image[f, c] += (0.35 * line * (0.95 - image[f, c])).astype(np.float32)
