"""Where the end of a swung stick is, frame by frame.

A decoder smears the tip of a stick and leaves specks on what is struck, so that the lowest pixel
that differs says little. A stick has many pixels, though, and one unknown: the angle about its
hinge. Rays of its length are laid from the hinge at every angle, and the one along which most of
the picture moves is the stick.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from syncflow.detect.settings import TrackSettings

# Chosen on 62 validation strikes of levels 2 to 4, as rendered and after the VAE.
#: Rows a column that are tried, and how many rows the hinge may lie beside where it seems to.
_SLOPES, _BESIDE = np.linspace(-1.2, 1.2, 121), np.linspace(-2.0, 2.0, 5)
#: Part of the stick that is looked at: the half near the hinge hardly moves.
_OUTER = 0.35
#: A ray counts that has this share of the best one's motion: of several the lowest is the stick,
#: and what is above is where it rested, seen in the background. Its middle is that of its
#: neighbours with this share of its motion.
_SECOND, _NEIGHBOUR = 0.7, 0.7
#: In half of the frames so much moves along the best ray; of what rolls or falls less.
_STRAIGHT = 0.45
#: A frame shows the stick where the best ray has this share of what it has in clear frames.
_FAINT = 0.15


def end(
    weight_FHW: np.ndarray, mass_F: np.ndarray, typical: float, settings: TrackSettings
) -> tuple[np.ndarray, float] | None:
    """Row of the moving end of a stick in every frame (nan where it is not seen) and its column;
    None for anything else.

    ``weight_FHW`` says how much each pixel moves, ``mass_F`` is its sum and ``typical`` a frame's.
    A stick is many times as wide as it is thick, without gaps, and straight; of its ends the one
    that moves less is the hinge.
    """
    if not _is_slender(weight_FHW, mass_F, typical, settings):
        return None
    used = np.flatnonzero((weight_FHW > 0.5).any((0, 1)))
    if not len(used):
        return None
    reach, length = max(2, round(0.2 * len(used))), float(used[-1] - used[0])
    hinges = []
    for part, column, away in ((used[:reach], used[0], 1), (used[-reach:], used[-1], -1)):
        row_F = _middle(weight_FHW[:, :, part])
        if not len(row_F):
            return None
        hinges.append((float(np.ptp(row_F)), float(np.median(row_F)), column + 0.5, away * length))
    _, row, column, reaches = min(hinges)
    moved_FA, tip_A = _rays(weight_FHW, row, column, reaches)
    best_F = moved_FA.max(1)
    if np.median(best_F) < _STRAIGHT:
        return None
    y_F = np.array([row + _lowest(moved_A, tip_A) for moved_A in moved_FA])
    y_F[best_F <= _FAINT * np.quantile(best_F, 0.9)] = np.nan
    return y_F, column + reaches


def _is_slender(
    weight_FHW: np.ndarray, mass_F: np.ndarray, typical: float, settings: TrackSettings
) -> bool:
    shapes = []
    for f in np.flatnonzero(mass_F > 0.5 * typical):
        columns = np.flatnonzero(weight_FHW[f].sum(0) > 0.5)
        if len(columns) > 1:
            width = columns[-1] - columns[0] + 1
            shapes.append((width**2 / mass_F[f], len(columns) / width))
    if not shapes:
        return False
    slender, filled = np.median(shapes, axis=0)
    return bool(slender >= settings.slender and filled >= 0.95)


def _middle(weight_FHW: np.ndarray) -> np.ndarray:
    """Row of the middle of what moves, in the frames where something does."""
    rows_FH = weight_FHW.sum(2)
    mass_F = rows_FH.sum(1)
    seen = mass_F > 0.5
    middle: np.ndarray = (rows_FH @ (np.arange(rows_FH.shape[1]) + 0.5))[seen] / mass_F[seen]
    return middle


def _rays(
    weight_FHW: np.ndarray, row: float, column: float, reach: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean motion along rays from the hinge, [F, angles], and how far below it each of them ends,
    [angles]. ``reach`` is the stick's length in px, below zero to the left."""
    frames, height, width = weight_FHW.shape
    part_P = np.linspace(_OUTER, 1.0, 2 * round(abs(reach)) + 2)
    cosine_A = 1 / np.hypot(1.0, _SLOPES)
    tip_A = _SLOPES * cosine_A * abs(reach)
    x_AP = column + reach * cosine_A[:, None] * part_P
    y_AP = row + tip_A[:, None] * part_P
    weight_F1HW = torch.from_numpy(np.ascontiguousarray(weight_FHW))[:, None].float()
    found = []
    for beside in _BESIDE:
        grid_AP2 = np.stack([2 * x_AP / width - 1, 2 * (y_AP + beside) / height - 1], -1)
        grid = torch.from_numpy(grid_AP2).float().expand(frames, -1, -1, -1)
        along = F.grid_sample(weight_F1HW, grid, align_corners=False)
        found.append(along[:, 0].mean(-1).numpy())
    return np.max(found, axis=0), tip_A


def _lowest(moved_A: np.ndarray, tip_A: np.ndarray) -> float:
    """Where the lowest of the rays that count ends, below the hinge, in px."""
    around_A = np.pad(moved_A, 1, mode="edge")
    peaks = (moved_A >= around_A[:-2]) & (moved_A >= around_A[2:])
    best = int(np.flatnonzero(peaks & (moved_A >= _SECOND * moved_A.max()))[-1])
    weight_A = np.maximum(moved_A - _NEIGHBOUR * moved_A[best], 0.0)
    above = np.flatnonzero(weight_A[:best] == 0)
    below = np.flatnonzero(weight_A[best:] == 0)
    first = int(above[-1]) + 1 if len(above) else 0
    last = best + int(below[0]) if len(below) else len(weight_A)
    lobe = slice(first, max(last, best + 1))
    if not weight_A[lobe].sum():
        return float(tip_A[best])
    return float(weight_A[lobe] @ tip_A[lobe] / weight_A[lobe].sum())
