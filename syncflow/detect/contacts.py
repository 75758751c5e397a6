"""When things touch, seen in the picture: kinks in the flight of the tracked object.

Between contacts an object falls freely (its height is a parabola, one gravity for the clip) or
moves evenly (it rests, rolls or is carried). A dynamic programme cuts the track into such pieces; a
contact is a cut where downward speed is lost at once, and its time is where the two pieces meet, to
a fraction of a frame.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from syncflow.clip import FPS
from syncflow.detect import matching
from syncflow.detect.settings import ContactSettings, load
from syncflow.detect.tracking import Track, tracks

#: Second look at gravity, around the best of the first.
_NEARBY = np.linspace(0.88, 1.12, 7)
#: px at 64 px above the place where something sank that what falls after it is seen at.
_ABOVE = 6.0


@dataclass(frozen=True)
class Contact:
    """``time`` s; ``impulse`` loss of downward speed, px/frame at 64 px; ``row`` and ``column`` of
    the object there (0..1 of the picture)."""

    time: float
    impulse: float
    row: float
    column: float


@dataclass(frozen=True)
class _Piece:
    """Frames ``first..last`` follow ``offset + slope t + gravity t^2 / 2`` (t in frames)."""

    first: int
    last: int
    offset: float
    slope: float
    gravity: float

    def velocity(self, t: float) -> float:
        return self.slope + self.gravity * t

    def row(self, t: float) -> float:
        return self.offset + self.slope * t + self.gravity * t**2 / 2


def _lines(t_F: np.ndarray, z_F: np.ndarray, w_F: np.ndarray) -> tuple[np.ndarray, ...]:
    """Weighted least-squares line of every run of frames: cost, offset, slope, each [F,F]."""

    def runs(values: np.ndarray) -> np.ndarray:
        total = np.concatenate([[0.0], np.cumsum(values)])
        return total[None, 1:] - total[:-1, None]

    n, st, stt = runs(w_F), runs(w_F * t_F), runs(w_F * t_F**2)
    sz, szz, stz = runs(w_F * z_F), runs(w_F * z_F**2), runs(w_F * t_F * z_F)
    spread = n * stt - st**2
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(spread > 1e-9, (n * stz - st * sz) / spread, 0.0)
        offset = np.where(n > 0, (sz - slope * st) / n, 0.0)
    cost = szz - offset * sz - slope * stz
    return np.maximum(cost, 0.0), offset, slope


def _cut(y_F: np.ndarray, w_F: np.ndarray, gravity: float, penalty: float) -> tuple[float, list]:
    """Best pieces under one gravity: total cost and the pieces, in order."""
    frames = len(y_F)
    t_F = np.arange(frames, dtype=float)
    fall_cost, fall_offset, fall_slope = _lines(t_F, y_F - gravity * t_F**2 / 2, w_F)
    even_cost, even_offset, even_slope = _lines(t_F, y_F, w_F)
    even = even_cost < fall_cost
    cost = np.where(even, even_cost, fall_cost) + penalty
    # A piece of one frame says nothing about speed; it is allowed only to step over a bad frame.
    cost[np.arange(frames), np.arange(frames)] += penalty
    best, origin = np.full(frames + 1, np.inf), np.zeros(frames + 1, dtype=int)
    best[0] = 0.0
    for end in range(1, frames + 1):
        options = best[:end] + cost[:end, end - 1]
        origin[end] = int(options.argmin())
        best[end] = options[origin[end]]
    pieces, end = [], frames
    while end:
        i, j = int(origin[end]), end - 1
        if even[i, j]:
            pieces.append(_Piece(i, j, even_offset[i, j], even_slope[i, j], 0.0))
        else:
            pieces.append(_Piece(i, j, fall_offset[i, j], fall_slope[i, j], gravity))
        end = i
    return float(best[-1]), pieces[::-1]


def _meet(a: _Piece, b: _Piece) -> float | None:
    """Frame time at which two pieces have the same height, near the cut between them."""
    roots = np.roots([(a.gravity - b.gravity) / 2, a.slope - b.slope, a.offset - b.offset])
    real = [float(r.real) for r in roots if abs(r.imag) < 0.3]
    low, high = a.last - 0.75, b.first + 0.75
    near = [r for r in real if low <= r <= high]
    return min(near, key=lambda r: abs(r - (a.last + b.first) / 2)) if near else None


def pieces(y_F: np.ndarray, settings: ContactSettings, frame_scale: float = 1.0) -> list[_Piece]:
    """Cuts a track (px at 64 px high, no nan) into falls and even motion. ``frame_scale`` is
    16 / fps."""
    precision = 1 / settings.sigma**2
    w_F = np.full(len(y_F), precision)
    chosen: list[_Piece] = []
    gravities = np.array(settings.gravities) * frame_scale**2
    for _ in range(2):
        trials = [(*_cut(y_F, w_F, float(g), settings.penalty), float(g)) for g in gravities]
        _, chosen, gravity = min(trials, key=lambda trial: trial[0])
        gravities = gravity * _NEARBY
        fit_F = np.empty(len(y_F))
        for piece in chosen:
            t = np.arange(piece.first, piece.last + 1)
            fit_F[piece.first : piece.last + 1] = (
                piece.offset + piece.slope * t + piece.gravity * t**2 / 2
            )
        error_F = np.abs(y_F - fit_F) / settings.sigma
        w_F = precision / np.maximum(1.0, error_F / 2)
    return chosen


def from_track(
    path: Track, fps: float, height: int, width: int, settings: ContactSettings
) -> list[Contact]:
    """Contacts of a tracked object."""
    seen = np.flatnonzero(~np.isnan(path.y_F))
    if len(seen) < 4:
        return []
    first, last = seen[0], seen[-1]
    y_F = np.interp(np.arange(first, last + 1), seen, path.y_F[seen]) * 64 / height
    if path.swings:
        return _blows(y_F, int(first), path, fps, width, settings)
    cuts = [p for p in pieces(y_F, settings, 16 / fps) if p.last > p.first]
    per_frame = 16 / fps
    losses: list[tuple[float, float, float]] = []
    sunk: tuple[float, float] | None = None
    for before, after in itertools.pairwise(cuts):
        t = _meet(before, after)
        if t is None or (sunk and not _comes_again(y_F, *sunk, t)):
            continue
        arriving = before.velocity(t)
        impulse = arriving - after.velocity(t)
        if arriving >= settings.speed * per_frame and impulse >= settings.impulse * per_frame:
            if _sinks(path, first + t, arriving, after):
                sunk = t, before.row(t)
                # What falls into water touches it with its lower edge, and is seen to slow down
                # when it is half below: as much later as half of it takes.
                t -= np.sqrt(path.area / np.pi) * 64 / height / arriving
            losses.append((t, impulse, before.row(t) / 64))
    found: list[Contact] = []
    for t, impulse, row in losses:
        time = max(0.0, (first + t) / fps - settings.bias)
        if impulse < settings.relative * max(loss[1] for loss in losses):
            continue
        if found and time - found[-1].time < settings.gap:
            # Two cuts around one smeared frame: the stronger one is the contact.
            if impulse <= found[-1].impulse:
                continue
            found.pop()
        column = float(np.interp(first + t, seen, path.x_F[seen])) / width
        found.append(Contact(float(time), float(impulse), float(row), column))
    return found


def _sinks(path: Track, frame: float, arriving: float, piece: _Piece) -> bool:
    """Whether it goes on down slowly, or a good part of it vanishes, as in water."""
    leaving = piece.velocity(piece.first)
    if leaving < -0.1 * arriving:
        return False
    if 0.2 < leaving < 0.5 * arriving and not piece.gravity and piece.last - piece.first > 3:
        return True
    before, after = (
        path.mass_F[max(0, int(frame) + a) : max(0, int(frame) + b)] for a, b in ((-3, 0), (1, 4))
    )
    if not len(before) or not len(after):
        return False
    return float(np.median(after)) < 0.75 * float(np.median(before))


def _comes_again(y_F: np.ndarray, sank: float, row: float, t: float) -> bool:
    """Whether something was clearly above ``row`` since then: what sinks touches nothing more."""
    between = y_F[int(sank) + 1 : int(t) + 1]
    return len(between) > 0 and float(between.min()) < row - _ABOVE


def _blows(
    y_F: np.ndarray, first: int, path: Track, fps: float, width: int, settings: ContactSettings
) -> list[Contact]:
    """Contacts of the end of a stick, whose rows are ``y_F`` from frame ``first`` on: where it
    turns from down to up at speed.

    It falls on the thing faster and faster and springs back slower and slower, within two or three
    frames each; the blow is where the last step down and the first step up, drawn on, meet.
    """
    found: list[Contact] = []
    frames = len(y_F)
    for p in range(1, frames - 1):
        if not (y_F[p] >= y_F[p - 1] and y_F[p] > y_F[p + 1]):
            continue
        around = y_F[max(0, p - 4) : p].min(), y_F[p + 1 : p + 5].min()
        rise = y_F[p] - max(around)
        if rise < 2 * settings.impulse * 16 / fps:
            continue
        down = y_F[p - 1] - y_F[max(0, p - 2)]
        up = y_F[p + 1] - y_F[min(frames - 1, p + 2)]
        if y_F[p + 1] > y_F[p - 1]:  # between p and p + 1
            down, up = max(y_F[p] - y_F[p - 1], 0.5), max(up, 0.5)
            t = p + np.clip((y_F[p + 1] + up - y_F[p]) / (down + up), 0, 1)
        else:
            down, up = max(down, 0.5), max(y_F[p] - y_F[p + 1], 0.5)
            t = p - 1 + np.clip((y_F[p] + up - y_F[p - 1]) / (down + up), 0, 1)
        time = max(0.0, (first + float(t)) / fps - settings.bias)
        column = float(path.x_F[0]) / width
        found.append(Contact(time, float(down + up), float(y_F[p]) / 64, column))
    return found


def from_tracks(
    paths: Sequence[Track], fps: float, height: int, width: int, settings: ContactSettings
) -> list[Contact]:
    """Contacts of all tracked objects, in order of time; two at once are one event."""
    every = [c for path in paths for c in from_track(path, fps, height, width, settings)]
    found: list[Contact] = []
    for contact in sorted(every, key=lambda c: c.time):
        if found and contact.time - found[-1].time < settings.gap:
            if contact.impulse > found[-1].impulse:
                found[-1] = contact
        else:
            found.append(contact)
    return found


def detect(
    video_F3HW: Tensor, fps: float = FPS, settings: ContactSettings | None = None
) -> list[Contact]:
    """Visible contacts of ``uint8 [F,3,H,W]``, in order of time."""
    settings = settings or default_settings()
    height, width = video_F3HW.shape[2:]
    paths = tracks(video_F3HW, settings.tracking)
    return from_tracks(paths, fps, height, width, settings)


def times(
    video_F3HW: Tensor, fps: float = FPS, settings: ContactSettings | None = None
) -> list[float]:
    """Contact times in seconds."""
    return [contact.time for contact in detect(video_F3HW, fps, settings)]


def score(
    videos: Sequence[Tensor], true_times: Sequence[Sequence[float]], fps: float = FPS
) -> dict[str, float]:
    """How well contacts are found in these videos: f1_50, f1_100, median_ms, bias_ms,
    count_accuracy. Judges a video VAE by what sync needs of it, where PSNR is blind."""
    return matching.score([times(video, fps) for video in videos], true_times)


def default_settings() -> ContactSettings:
    """The settings fitted on validation clips (``detectors.json``)."""
    return load().contacts
