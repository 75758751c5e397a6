"""How single things look: anti-aliased shapes and the shading of every material. Pure numpy,
float32.
"""

from __future__ import annotations

import numpy as np

from syncflow.impacts import materials
from syncflow.impacts.scene import Thing

Light = tuple[np.ndarray | float, np.ndarray | float, np.ndarray | float]

_BARK = (0.30, 0.17, 0.07)
#: Material -> the colour that is mixed into the thing's own.
_MIXED = {
    "wood": _BARK,
    "stone": (0.42, 0.41, 0.40),
    "ceramic": (0.97, 0.95, 0.90),
    "cardboard": (0.66, 0.48, 0.29),
    "foam": (0.95, 0.95, 0.92),
    "water": (0.75, 0.88, 0.95),
}


def draw(
    thing: Thing,
    dx: np.ndarray,
    dy: np.ndarray,
    radius: np.ndarray | float,
    angle: np.ndarray,
    light: Light,
) -> np.ndarray:
    """Colour times cover, and cover, [4, N, P, P], of a thing centred at (0, 0).

    dx [N, 1, P], dy [N, P, 1] in pixels, y up; radius in pixels and angle in radians, [N, 1, 1]
    or a number.
    """
    if thing.shape in ("ball", "drop"):
        return _ball(thing, dx, dy, radius, angle, light)
    if thing.shape == "disc":
        return _disc(thing, dx, dy, radius, angle, light)
    return _box(thing, dx, dy, radius, angle, light)


def _ball(
    thing: Thing,
    dx: np.ndarray,
    dy: np.ndarray,
    radius: np.ndarray | float,
    angle: np.ndarray,
    light: Light,
) -> np.ndarray:
    nx, ny = dx / radius, dy / radius
    rho2 = nx * nx + ny * ny
    nz = np.sqrt(np.maximum(1 - rho2, 0))
    cover = np.clip((1 - np.sqrt(rho2)) * radius + 0.5, 0, 1)
    u = v = nx
    if thing.material in ("wood", "stone", "cardboard", "foam"):
        u, v = _turned(nx, ny, angle)
    return _shade(thing, nx, ny, nz, u, v, cover, light)


def _disc(
    thing: Thing,
    dx: np.ndarray,
    dy: np.ndarray,
    radius: np.ndarray | float,
    angle: np.ndarray,
    light: Light,
) -> np.ndarray:
    """A flat round plate that faces the camera: a raised rim and a cross, so that its turning
    shows.
    """
    px, py = dx / radius, dy / radius
    rho = np.sqrt(px * px + py * py)
    cover = np.clip((1 - rho) * radius + 0.5, 0, 1)
    rim = np.clip((rho - 0.72) / 0.28, 0, 1) * 0.9 - 0.6 * np.exp(-(((rho - 0.66) / 0.07) ** 2))
    nx, ny = px / np.maximum(rho, 1e-3) * rim, py / np.maximum(rho, 1e-3) * rim + 0.15
    nz = np.sqrt(np.maximum(1 - nx * nx - ny * ny, 0.02))
    u, v = _turned(px, py, angle)
    out = _shade(thing, nx, ny, nz, u, v, cover, light)
    cross = np.exp(-((u / 0.12) ** 2)) + np.exp(-((v / 0.12) ** 2))
    out[:3] *= 1 - 0.45 * np.minimum(cross, 1) * (rho < 0.62)
    return out


def _box(
    thing: Thing,
    dx: np.ndarray,
    dy: np.ndarray,
    radius: np.ndarray | float,
    angle: np.ndarray,
    light: Light,
) -> np.ndarray:
    """Boxes, drums, shelves and sticks: a rounded rectangle with bevelled edges."""
    px, py = _turned(dx / radius, dy / radius, angle)
    wide = thing.stretch
    round_by = {"box": 0.16, "drum": 0.12, "shelf": 0.2}.get(thing.shape, 1.0)
    qx, qy = np.abs(px) - (wide - round_by), np.abs(py) - (1 - round_by)
    outside = np.sqrt(np.maximum(qx, 0) ** 2 + np.maximum(qy, 0) ** 2)
    distance = outside + np.minimum(np.maximum(qx, qy), 0) - round_by
    cover = np.clip(0.5 - distance * radius, 0, 1)
    if thing.shape == "drum":
        # A standing cylinder: round from left to right, hoops at both ends.
        bend, rise = 0.95 * px / wide, 0.1 + 0 * py
    elif thing.shape == "box":
        bend = np.sign(px) * np.clip((np.abs(px) - 0.66) / 0.34, 0, 1) * 0.8
        rise = np.sign(py) * np.clip((np.abs(py) - 0.66) / 0.34, 0, 1) * 0.8 + 0.1
    else:
        bend, rise = 0 * px, 0.9 * py
    bend, rise = np.broadcast_arrays(bend, rise)
    nx, ny = _turned(bend, rise, -angle)
    nz = np.sqrt(np.maximum(1 - nx * nx - ny * ny, 0.05))
    along = 0.9 if thing.stretch < 2 else 0.07
    out = _shade(thing, nx, ny, nz, along * px, 0.9 * py, cover, light)
    if thing.shape == "drum":
        hoops = (np.abs(py) > 0.80) & (np.abs(py) < 1.1)
        for c, tone in enumerate((0.86, 0.82, 0.70)):
            out[c] = np.where(hoops, tone * (0.55 + 0.45 * nz) * cover, out[c])
    return out


def _turned(x: np.ndarray, y: np.ndarray, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cos, sin = np.cos(angle), np.sin(angle)
    return x * cos + y * sin, y * cos - x * sin


def _shade(
    thing: Thing,
    nx: np.ndarray,
    ny: np.ndarray,
    nz: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    cover: np.ndarray,
    light: Light,
) -> np.ndarray:
    """Colour times cover, and cover, from normals (nx, ny, nz) and places (u, v) on the thing
    itself.
    """
    lx, ly, lz = light
    diffuse = np.maximum(nx * lx + ny * ly + nz * lz, 0)
    norm = np.sqrt(lx * lx + ly * ly + (lz + 1) ** 2)
    norm = norm if isinstance(norm, np.ndarray) else float(norm)
    # Only the empty corners around a tiny thing pass 2, where a high power would overflow.
    shine = np.clip((nx * lx + ny * ly + nz * (lz + 1)) / norm, 0, 2)
    rgb = materials.COLOURS[thing.colour]
    white = np.zeros_like(cover)
    mixing: float | np.ndarray | None = None
    material = thing.material
    if material == "metal":
        mirror = 0.5 + 0.5 * np.tanh(5 * (2 * nz * ny + 0.10 * nx))
        light_rgb = 0.22 + 0.62 * mirror + 0.18 * diffuse
        white = 0.95 * shine**26 + 0.16 * mirror
    elif material in ("glass", "water"):
        rim = (1 - nz) ** 1.6
        glow = np.maximum(-(nx * lx + ny * ly), 0) * rim
        light_rgb = 0.72 + 0.2 * diffuse + 0.9 * glow - 0.40 * rim
        white = np.minimum(1.1 * shine**40, 1)
        cover = cover * np.clip(0.40 + 0.60 * rim + white, 0, 1)
        mixing = 0.7 if material == "water" else None
    elif material == "wood":
        grain = 0.5 + 0.5 * np.sin(2 * np.pi * 1.35 * u + 0.7 * np.sin(2.5 * v) + 0.8)
        mixing = 0.08 + 0.62 * grain
        light_rgb = 0.34 + 0.66 * diffuse
    elif material == "plastic":
        light_rgb = 0.46 + 0.56 * diffuse
        white = 0.85 * shine**90 + 0.10 * shine**8
    elif material == "stone":
        spots = np.sin(5.3 * u + 1) * np.sin(6.1 * v + 2) + np.sin(9.7 * u - 4.3 * v)
        mixing = np.clip(0.42 + 0.22 * spots, 0, 0.85)
        light_rgb = 0.30 + 0.62 * diffuse
    elif material == "ceramic":
        band = np.exp(-(((ny - 0.25) / 0.22) ** 2))
        mixing = 0.18 + 0.62 * band
        light_rgb = 0.55 + 0.45 * diffuse
        white = 0.75 * shine**60
    elif material == "cardboard":
        tape = np.exp(-((v / 0.22) ** 4))
        mixing = 0.72 - 0.62 * tape
        light_rgb = 0.38 + 0.52 * diffuse
    elif material == "foam":
        holes = np.maximum(np.sin(8.5 * u + 0.5) * np.sin(8.5 * v), 0) ** 2
        mixing = 0.45 - 0.40 * holes
        light_rgb = (0.62 + 0.34 * diffuse) * (1 - 0.45 * holes)
    else:
        light_rgb = 0.30 + 0.60 * diffuse
    out = np.empty((4, *cover.shape), np.float32)
    for c, mixed in enumerate(_MIXED.get(material, _BARK)):
        base = rgb[c] if mixing is None else rgb[c] + (mixed - rgb[c]) * mixing
        out[c] = np.minimum(base * light_rgb + white * (1 - 0.3 * rgb[c]), 1) * cover
    out[3] = cover
    return out
