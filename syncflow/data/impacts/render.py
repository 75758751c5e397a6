"""Pictures of a scene: shaded, anti-aliased sprites with motion blur over a still background. Pure numpy."""

from __future__ import annotations

import numpy as np

from syncflow.data.impacts import materials
from syncflow.data.impacts.world import Scene, Stage, Thing

SUBFRAMES = 4
SHUTTER = 0.5
"""Part of a frame's time for which the shutter is open, centred on the frame's time."""


def render(scene: Scene, height: int = 64, width: int = 64) -> np.ndarray:
    """The clip's frames, uint8 [F, 3, H, W]; frame f is centred on f / fps seconds. ValueError under 16 pixels."""
    if min(height, width) < 16:
        raise ValueError(f"height and width must be at least 16 pixels, got {height} x {width}")
    frames = np.empty((scene.num_frames, 3, height, width), np.uint8)
    back = background(scene.stage, height, width)
    step = max(1, 32 * 64 * 64 // (height * width))
    for first in range(0, scene.num_frames, step):
        index = np.arange(first, min(first + step, scene.num_frames))
        frames[index] = _draw(scene, index, back)
    return frames


def _draw(scene: Scene, index: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Frames of the given numbers, uint8 [N, 3, H, W]; in pieces so that great pictures stay in the cache."""
    height, width = back.shape[1:]
    image = np.repeat(back[None], len(index), axis=0)
    for thing in scene.things:
        _shadow(image, thing, index / scene.fps, scene.stage)
    offsets = ((np.arange(SUBFRAMES) + 0.5) / SUBFRAMES - 0.5) * SHUTTER
    time_FK = (index[:, None] + offsets) / scene.fps
    for thing in scene.things:
        _composite(image, thing, time_FK, scene.stage)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray, float]:
    """World x of every column, world y of every row, pixels per unit."""
    scale = min(height, width)
    x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / scale + 0.5
    y = 0.5 - (np.arange(height, dtype=np.float32) + 0.5 - height / 2) / scale
    return x, y, float(scale)


def background(stage: Stage, height: int, width: int) -> np.ndarray:
    """Wall and floor, float32 [3, H, W]."""
    x, y, scale = grid(height, width)
    shade = 1 + stage.wall_slope[0] * (x[None] - 0.5) + stage.wall_slope[1] * (y[:, None] - 0.6)
    wall = np.array(stage.wall_rgb, np.float32)[:, None, None] * shade
    depth = np.clip((stage.horizon - y) / max(stage.horizon, 1e-3), 0, 1)[:, None]
    bright = (0.82 + 0.3 * depth) * (1 + 0.5 * stage.wall_slope[0] * (x[None] - 0.5))
    bright = bright * _floor_pattern(stage, x, depth)
    floor = np.array(stage.floor_rgb, np.float32)[:, None, None] * bright
    cover = np.clip((stage.horizon - y) * scale + 0.5, 0, 1)[:, None]
    return (wall * (1 - cover) + floor * cover).astype(np.float32)


def _floor_pattern(stage: Stage, x: np.ndarray, depth: np.ndarray) -> np.ndarray:
    # Lines on the floor run towards a vanishing point, so that they spread with depth.
    u = (x[None] - 0.5) * (1.6 - 0.6 * depth)
    if stage.floor == "tiles":
        lines = np.exp(-((np.mod(u * 5 + 0.5, 1) - 0.5) ** 2) / 0.004)
        rows = np.exp(-((depth - 0.45) ** 2) / 0.003)
        return 1 - 0.22 * np.maximum(lines, rows)
    if stage.floor == "wood":
        return 1 + 0.08 * np.sin(2 * np.pi * 3.5 * u) + 0.05 * np.sin(2 * np.pi * 9.1 * u + 4 * depth)
    if stage.floor == "carpet":
        return 1 + 0.10 * np.sin(14 * depth + 0 * u)
    return 1 + 0 * u


def _shadow(image: np.ndarray, thing: Thing, time_F: np.ndarray, stage: Stage) -> None:
    if thing.ground is None:
        return
    x, y, _ = grid(*image.shape[2:])
    cx, cy, _ = thing.pose(time_F)
    high = np.maximum(cy - thing.radius - thing.ground, 0)
    wide = thing.radius * (1.0 + 1.2 * high)
    dark = (0.34 if thing.material == "glass" else 0.55) * np.exp(-high / 0.28)
    across = np.exp(-(((x[None] - cx[:, None]) / wide[:, None]) ** 2))
    down = np.exp(-(((y[None] - thing.ground + 0.1 * thing.radius) / (0.30 * wide[:, None])) ** 2))
    down = down * (y[None] < stage.horizon)
    shade = 1 - dark[:, None, None] * down[:, :, None] * across[:, None, :]
    image *= shade[:, None].astype(np.float32)


def _composite(image: np.ndarray, thing: Thing, time_FK: np.ndarray, stage: Stage) -> None:
    """Draws a thing over the frames, averaged over the sub-frames."""
    frames, subframes = time_FK.shape
    height, width = image.shape[2:]
    scale = float(min(height, width))
    x, y, angle = (v.reshape(-1) for v in thing.pose(time_FK))
    column = (x - 0.5) * scale + width / 2
    row = height / 2 - (y - 0.5) * scale
    radius = thing.radius * scale
    half = int(np.ceil(radius)) + 2
    left, top = np.floor(column).astype(int) - half, np.floor(row).astype(int) - half
    steps = np.arange(2 * half + 1, dtype=np.float32) + 0.5
    dx = (left[:, None] + steps - column[:, None]).astype(np.float32)[:, None, :]
    dy = (row[:, None] - top[:, None] - steps).astype(np.float32)[:, :, None]
    sprite = ball(thing, dx, dy, radius, angle.astype(np.float32)[:, None, None], stage.light)
    size = 2 * half + 1
    sprite = sprite.reshape(4, frames, subframes, size, size) / subframes
    left, top = left.reshape(frames, subframes), top.reshape(frames, subframes)
    canvas = np.zeros((4, height + 2 * size, width + 2 * size), np.float32)
    for f in range(frames):
        rows, columns = np.clip(top[f], -size, height), np.clip(left[f], -size, width)
        for k in range(subframes):
            a, b = rows[k] + size, columns[k] + size
            canvas[:, a : a + size, b : b + size] += sprite[:, f, k]
        a, b = max(rows.min(), 0), max(columns.min(), 0)
        c, d = min(rows.max() + size, height), min(columns.max() + size, width)
        if c > a and d > b:
            seen = canvas[:, a + size : c + size, b + size : d + size]
            area = image[f, :, a:c, b:d]
            area *= 1 - seen[3]
            area += seen[:3]
        canvas[:, rows.min() + size : rows.max() + 2 * size,
               columns.min() + size : columns.max() + 2 * size] = 0


def ball(
    thing: Thing,
    dx: np.ndarray,
    dy: np.ndarray,
    radius: float,
    angle: np.ndarray,
    light: tuple[float, float, float],
) -> np.ndarray:
    """Spheres around (0, 0): colour times cover, and cover, [4, N, P, P]; dx, dy in pixels, y up."""
    nx, ny = dx / radius, dy / radius
    rho2 = nx * nx + ny * ny
    nz = np.sqrt(np.maximum(1 - rho2, 0))
    cover = np.clip((1 - np.sqrt(rho2)) * radius + 0.5, 0, 1)
    lx, ly, lz = light
    diffuse = np.maximum(nx * lx + ny * ly + nz * lz, 0)
    norm = float(np.sqrt(lx * lx + ly * ly + (lz + 1) ** 2))
    shine = np.maximum((nx * lx + ny * ly + nz * (lz + 1)) / norm, 0)
    rgb = materials.COLOURS[thing.colour]
    white = np.zeros_like(cover)
    brown = None
    if thing.material == "metal":
        mirror = 0.5 + 0.5 * np.tanh(5 * (2 * nz * ny + 0.10 * nx))
        light_rgb = 0.22 + 0.62 * mirror + 0.18 * diffuse
        white = 0.95 * shine**26 + 0.16 * mirror
    elif thing.material == "glass":
        rim = (1 - nz) ** 1.6
        glow = np.maximum(-(nx * lx + ny * ly), 0) * rim
        light_rgb = 0.72 + 0.2 * diffuse + 0.9 * glow - 0.40 * rim
        white = np.minimum(1.1 * shine**40, 1)
        cover = cover * np.clip(0.40 + 0.60 * rim + white, 0, 1)
    elif thing.material == "wood":
        cos, sin = np.cos(angle), np.sin(angle)
        u, v = nx * cos + ny * sin, ny * cos - nx * sin
        grain = 0.5 + 0.5 * np.sin(2 * np.pi * 1.35 * u + 0.7 * np.sin(2.5 * v) + 0.8)
        brown = 0.08 + 0.62 * grain
        light_rgb = 0.34 + 0.66 * diffuse
    else:
        light_rgb = 0.30 + 0.60 * diffuse
    out = np.empty((4, *cover.shape), np.float32)
    for c, bark in enumerate((0.30, 0.17, 0.07)):
        base = rgb[c] if brown is None else rgb[c] + (bark - rgb[c]) * brown
        out[c] = np.minimum(base * light_rgb + white * (1 - 0.3 * rgb[c]), 1) * cover
    out[3] = cover
    return out
