"""Where the moving object is, frame by frame, from pixels alone.

The background is the temporal median, repaired where the object itself rests or passes often.
What differs from it is foreground; shadows (the background darkened evenly) count for less. The
object's height is the row above which a fixed share of its mass lies: mass is kept when a decoder
smears the object, and the shadow lies below it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from syncflow.detect import stick
from syncflow.detect.settings import TrackSettings


@dataclass(frozen=True)
class Track:
    """``y_F``, ``x_F`` px (nan where the object is not seen), ``mass_F`` px, ``colour`` RGB in
    0..1, ``area`` px of the object. ``swings``: it is a stick that turns about one of its ends, and
    ``y_F`` is the row of the other."""

    y_F: np.ndarray
    x_F: np.ndarray
    mass_F: np.ndarray
    colour: tuple[float, float, float]
    area: float
    swings: bool = False


def _difference(video_F3HW: Tensor, background_3HW: Tensor) -> Tensor:
    return (video_F3HW - background_3HW).abs().amax(1)


def _across(picture_3HW: np.ndarray, unknown_HW: np.ndarray) -> np.ndarray:
    """The picture with unknown pixels interpolated along their row, [3,H,W]."""
    filled_3HW = picture_3HW.copy()
    columns = np.arange(picture_3HW.shape[2])
    for row in np.flatnonzero(unknown_HW.any(1)):
        known_W = ~unknown_HW[row]
        if known_W.any():
            for channel in filled_3HW[:, row]:
                channel[~known_W] = np.interp(columns[~known_W], columns[known_W], channel[known_W])
    return filled_3HW


def background(video_F3HW: Tensor, settings: TrackSettings) -> Tensor:
    """The picture without the object, [3,H,W], from floats in 0..1.

    The temporal median, except where something is moving often: there the median may be the object
    itself, and the frames that agree best with the rest of the row decide.
    """
    middle_3HW = video_F3HW.median(dim=0).values
    difference_FHW = _difference(video_F3HW, middle_3HW)
    threshold = max(settings.noise, 4 * float(difference_FHW.median()))
    often_HW = (difference_FHW > threshold).float().mean(0)
    suspect_HW = F.max_pool2d((often_HW > settings.rest).float()[None], 3, 1, 1)[0] > 0
    if not suspect_HW.any():
        return middle_3HW
    guess_3HW = torch.from_numpy(_across(middle_3HW.numpy(), suspect_HW.numpy()))
    values_F3N = video_F3HW[:, :, suspect_HW]
    guess_3N = guess_3HW[:, suspect_HW]
    far_FN = (values_F3N - guess_3N).abs().amax(1)
    few = max(1, round(settings.rest * len(video_F3HW)))
    near_KN = far_FN.topk(few, dim=0, largest=False).indices
    chosen_3N = values_F3N.gather(0, near_KN[:, None].expand(-1, 3, -1)).median(dim=0).values
    never_N = far_FN.amin(0) > settings.trust
    still_3HW = middle_3HW.clone()
    still_3HW[:, suspect_HW] = torch.where(never_N, guess_3N, chosen_3N)
    return still_3HW


def foreground(video_F3HW: Tensor, settings: TrackSettings) -> tuple[Tensor, Tensor]:
    """Weight of the object in every pixel, [F,H,W] in 0..1, and its colour [3]."""
    still_3HW = background(video_F3HW, settings)
    difference_FHW = _difference(video_F3HW, still_3HW)
    threshold = max(settings.noise, 4 * float(difference_FHW.median()))
    # A shadow is the background times one factor; what is left after the best factor is colour.
    norm_HW = still_3HW.square().sum(0).clamp_min(1e-3)
    factor_FHW = ((video_F3HW * still_3HW).sum(1) / norm_HW).clamp(0.35, 1.0)
    rest_FHW = (video_F3HW - factor_FHW[:, None] * still_3HW).abs().amax(1)
    shadow_FHW = rest_FHW < 0.5 * threshold
    weight_FHW = ((difference_FHW - threshold) / (2 * threshold)).clamp(0, 1)
    weight_FHW = torch.where(shadow_FHW, settings.shadow * weight_FHW, weight_FHW)
    solid_FHW = weight_FHW > 0.9
    if not solid_FHW.any():
        return weight_FHW, still_3HW.mean((1, 2))
    return weight_FHW, video_F3HW.permute(0, 2, 3, 1)[solid_FHW].median(dim=0).values


def _row_at(mass_FH: np.ndarray, goal: float) -> np.ndarray:
    """Row (fraction of rows, edge coordinates) above which ``goal`` of mass lies, nan if never."""
    total_FH = np.concatenate([np.zeros((len(mass_FH), 1)), mass_FH.cumsum(1)], 1)
    row_F = np.full(len(mass_FH), np.nan)
    for f, total_H in enumerate(total_FH):
        if total_H[-1] >= goal:
            i = int(np.searchsorted(total_H, goal))
            step = total_H[i] - total_H[i - 1]
            row_F[f] = i - 1 + (goal - total_H[i - 1]) / step
    return row_F


def _follow(
    weight_FHW: np.ndarray, left: int, colour: tuple[float, float, float], settings: TrackSettings
) -> Track:
    """The track of one band of columns that begins at column ``left``."""
    mass_F = weight_FHW.sum((1, 2))
    seen = mass_F[mass_F > 0.2 * mass_F.max(initial=0.0)] if mass_F.any() else mass_F
    typical = float(np.median(seen)) if len(seen) else 0.0
    frames, _, width = weight_FHW.shape
    if typical < 2.0:
        empty = np.full(frames, np.nan)
        return Track(empty, empty.copy(), mass_F, colour, 0.0)
    hidden_F = mass_F < settings.minimum * typical
    swung = stick.end(weight_FHW, mass_F, typical, settings)
    if swung is not None:
        y_F, x = swung
        return Track(y_F, np.full(frames, left + x), mass_F, colour, typical, swings=True)
    rows_FH = weight_FHW.sum(2)
    y_F = _row_at(rows_FH, settings.share * typical)
    tip_F = _row_at(rows_FH, settings.tip * typical)
    y_F[hidden_F], tip_F[hidden_F] = np.nan, np.nan
    if _spread(tip_F) > settings.swing * max(_spread(y_F), 1.0):
        # It turns about something above, as a swung stick does: its lower end is what touches.
        y_F = tip_F
    columns_W = np.arange(left, left + width) + 0.5
    x_F = (weight_FHW.sum(1) * columns_W).sum(1) / np.maximum(mass_F, 1e-6)
    x_F[hidden_F] = np.nan
    return Track(y_F, x_F, mass_F, colour, typical)


def _spread(row_F: np.ndarray) -> float:
    known = row_F[~np.isnan(row_F)]
    return float(np.quantile(known, 0.95) - np.quantile(known, 0.05)) if len(known) else 0.0


def _bands(weight_FHW: np.ndarray, settings: TrackSettings) -> list[slice]:
    """Columns of the picture that different objects keep to, left to right."""
    mass_W = weight_FHW.sum((0, 1))
    busy_W = mass_W > settings.valley * mass_W.max(initial=0.0)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], busy_W, [False]]).astype(int)))
    bands = [slice(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
    totals = [float(mass_W[band].sum()) for band in bands]
    return [b for b, t in zip(bands, totals, strict=True) if t > settings.other * max(totals)]


def tracks(video_F3HW: Tensor, settings: TrackSettings | None = None) -> list[Track]:
    """Follows everything that moves in ``uint8 [F,3,H,W]``; objects are told apart by the columns
    they keep to, and those that cross are one."""
    if video_F3HW.dtype != torch.uint8 or video_F3HW.ndim != 4 or video_F3HW.shape[1] != 3:
        raise ValueError(
            f"video must be uint8 [F,3,H,W], got {video_F3HW.dtype} {list(video_F3HW.shape)}"
        )
    settings = settings or TrackSettings()
    weight, colour_3 = foreground(video_F3HW.cpu().float() / 255, settings)
    weight_FHW = weight.numpy()
    red, green, blue = colour_3.tolist()
    colour = (red, green, blue)
    return [
        _follow(weight_FHW[:, :, band], band.start, colour, settings)
        for band in _bands(weight_FHW, settings)
    ]
