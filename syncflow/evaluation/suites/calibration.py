"""How good the metrics are: real clips whose sound is moved by a known time, and what each says.

A sync metric is worth something if it is best where the sound is right and worse on both sides, and
if it knows right from chance. Here the sound of real clips is moved by -500 to +500 ms (positive:
late), detected anew, and every metric is read: its response curve. Soundtracks of other clips give
its noise floor, silence the other baseline. A metric that does not fall on both sides is reported
as unfit, with the reason; nothing is concluded from it.

Near the edges the move takes contacts' sounds out of the clip, and a metric that only counts events
would seem to notice the move. So events count only where their partner is still there, and curves
are compared over the time that both have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import TypedDict

import numpy as np
import torch

from syncflow.clip import FPS, Clip
from syncflow.detect import contacts, envelopes, matching, onsets
from syncflow.evaluation.metrics import av_align, metric
from syncflow.evaluation.report import shapes
from syncflow.generation.choice import ranking
from syncflow.progress import bar

#: Milliseconds by which the sound is moved; positive is late.
OFFSETS_MS = tuple(range(-500, 501, 50))
#: A metric must be worse at this offset than at 0 on both sides, and best within the next.
JUDGED_MS, PEAK_MS = 200, 50
_SHUFFLES, _MARGIN = 4, 0.03


@dataclass(frozen=True)
class Evidence:
    """What a metric may look at: ``contacts`` and ``onsets`` (s), and the curves of picture and
    sound (``envelopes``), which both are there between ``begin`` and ``end`` s; ``motions`` and
    ``beats`` are AV-Align's own events, where they are asked for, at ``fps`` frames a second."""

    contacts: list[float]
    onsets: list[float]
    picture: np.ndarray
    sound: np.ndarray
    begin: float
    end: float
    motions: list[float] = field(default_factory=list)
    beats: list[float] = field(default_factory=list)
    fps: float = FPS

    def curves(self) -> tuple[np.ndarray, np.ndarray]:
        """Picture and sound inside the window."""
        part = slice(round(self.begin * envelopes.RATE), round(self.end * envelopes.RATE))
        return self.picture[part], self.sound[part]


#: From the evidence of clips to a function of how often each is drawn, [R,N] -> [R].
Prepared = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Metric:
    """``prepare`` reads the evidence once; ``better`` is "high" or "low"."""

    label: str
    better: str
    prepare: Callable[[Sequence[Evidence]], Prepared]


def _ratio(pairs: Sequence[tuple[float, float]]) -> Prepared:
    """Sum of the first over sum of the second."""
    above_N, below_N = np.array(pairs, float).T
    return lambda drawn_RN: (drawn_RN @ above_N) / np.maximum(drawn_RN @ below_N, 1e-9)


def _f1(tolerance: float) -> Callable[[Sequence[Evidence]], Prepared]:
    def prepare(clips: Sequence[Evidence]) -> Prepared:
        events = [(clip.contacts, clip.onsets) for clip in clips]
        return _ratio(
            [(2 * len(matching.match(a, b, tolerance)), len(a) + len(b)) for a, b in events]
        )

    return prepare


def _agreement(clips: Sequence[Evidence]) -> Prepared:
    events = [(clip.contacts, clip.onsets) for clip in clips]
    sizes = [len(a) + len(b) for a, b in events]
    return _ratio(
        [(ranking.agreement(*pair) * n, n) for pair, n in zip(events, sizes, strict=True)]
    )


def _correlation(clips: Sequence[Evidence]) -> Prepared:
    return _ratio([(envelopes.correlation(*clip.curves()), 1) for clip in clips])


def _av_align(clips: Sequence[Evidence]) -> Prepared:
    return _ratio([(av_align.overlap(e.beats, e.motions, e.fps), 1) for e in clips])


def _median(clips: Sequence[Evidence]) -> Prepared:
    events = [(clip.contacts, clip.onsets) for clip in clips]
    far = [np.abs(matching.nearest(a, b)) * 1000 for a, b in events]
    clip_E = np.repeat(np.arange(len(far)), [len(values) for values in far])
    values_E = np.concatenate([np.zeros(0), *far])
    return lambda drawn_RN: matching.weighted_quantile(values_E, drawn_RN[:, clip_E], 0.5)


METRICS = {
    "f1_50": Metric("F1 at 50 ms", "high", _f1(0.05)),
    "f1_100": Metric("F1 at 100 ms", "high", _f1(0.1)),
    "agreement": Metric("agreement", "high", _agreement),
    "median_ms": Metric("median distance, ms", "low", _median),
    "correlation": Metric("correlation of curves", "high", _correlation),
}
#: Read only where librosa and OpenCV are installed (the extra ``metrics``).
AV_ALIGN = Metric("AV-Align", "high", _av_align)


def moved(clip: Clip, offset: float) -> Clip:
    """The clip with its sound ``offset`` s later (earlier where negative), silence moving in."""
    shift = round(offset * clip.sample_rate)
    silence, audio_M = torch.zeros(abs(shift)), clip.audio
    if shift > 0:
        audio_M = torch.cat([silence, audio_M])[: len(clip.audio)]
    elif shift < 0:
        audio_M = torch.cat([audio_M, silence])[-len(clip.audio) :]
    return replace(clip, audio=audio_M)


def evidence(
    clip: Clip,
    offset: float,
    seen: Sequence[float],
    picture: np.ndarray,
    motions: Sequence[float] | None = None,
) -> Evidence:
    """Of a clip with its sound moved; ``seen`` contacts, the ``picture`` curve and the ``motions``
    of AV-Align (None: not asked for) do not move."""
    late = moved(clip, offset)
    beats = [] if motions is None else av_align.onsets(metric.sound(late, av_align.RATE))
    first, last = max(0.0, -offset) + _MARGIN, clip.seconds - max(0.0, offset) - _MARGIN
    heard = onsets.times(late.audio, late.sample_rate)
    return Evidence(
        [t for t in seen if first <= t <= last],
        [t for t in heard if first <= t - offset <= last],
        picture,
        envelopes.sound(late.audio, late.sample_rate, late.fps),
        max(0.0, offset) + _MARGIN,
        min(clip.seconds, clip.seconds + offset) - _MARGIN,
        [t for t in motions or [] if first <= t <= last],
        [t for t in beats if first <= t - offset <= last],
        clip.fps,
    )


def calibrate(
    clips: Sequence[Clip],
    seen: Sequence[Sequence[float]] | None = None,
    *,
    offsets_ms: Sequence[int] = OFFSETS_MS,
    resamples: int = 500,
    seed: int = 0,
    with_av_align: bool | None = None,
    progress: bool = True,
) -> shapes.Calibration:
    """Response curves of all metrics on real clips.

    Args:
        clips: real clips in sync, at least 2.
        seen: times of their contacts (s), where they are known; None = found in the picture.
        offsets_ms: must hold 0, and ``JUDGED_MS`` on both sides.
        with_av_align: whether to read AV-Align too; None = where what it needs is installed.

    Returns:
        ``{"clips", "offsets_ms", "metrics": {name: {"label", "better", "curve" and "shuffled" and
        "silent" as [value, low, high], "fit", "why", "resolution_ms": [early, late]}}}``; the
        resolution is the smallest offset from which on (to ``JUDGED_MS``) the metric is
        significantly worse than at 0, None where there is none.
    """
    if len(clips) < 2:
        raise ValueError(f"a calibration needs at least 2 clips, got {len(clips)}")
    missing = {0, JUDGED_MS, -JUDGED_MS} - set(offsets_ms)
    if missing:
        raise ValueError(f"a calibration needs the offsets {sorted(missing)} ms too")
    if seen is None:
        seen = [contacts.times(clip.video, clip.fps) for clip in clips]
    pictures = [envelopes.picture(clip.video, clip.fps) for clip in clips]
    metrics = dict(METRICS)
    motions: list[Sequence[float] | None] = [None] * len(clips)
    if with_av_align is None:
        with_av_align = all(find_spec(name) for name in ("cv2", "librosa"))
    if with_av_align:
        metrics["av_align"] = AV_ALIGN
        motions = [av_align.peaks(av_align.flow(clip.video), clip.fps) for clip in clips]
    rows = list(zip(clips, seen, pictures, motions, strict=True))
    shown = bar(offsets_ms, desc="calibrate", shown=progress, leave=False)
    moved_clips = {
        ms: [evidence(clip, ms / 1000, times, curve, peaks) for clip, times, curve, peaks in rows]
        for ms in shown
    }
    right = moved_clips[0]
    rng = np.random.default_rng(seed)
    orders = [matching.derangement(len(clips), rng) for _ in range(_SHUFFLES)]
    shuffled = [
        replace(right[n], onsets=right[s].onsets, sound=right[s].sound, beats=right[s].beats)
        for order in orders
        for n, s in enumerate(order)
    ]
    silent = [replace(e, onsets=[], sound=np.zeros_like(e.sound), beats=[]) for e in right]
    drawn_RN = np.concatenate(
        [np.ones((1, len(clips))), matching.resampling(len(clips), resamples, seed)]
    )
    pairs_RN = np.concatenate([drawn_RN * drawn_RN[:, order] for order in orders], axis=1)
    result: dict[str, shapes.Response] = {}
    for name, one in metrics.items():
        values = {ms: one.prepare(part)(drawn_RN) for ms, part in moved_clips.items()}
        result[name] = {
            "label": one.label,
            "better": one.better,
            "curve": [_estimate(values[ms]) for ms in offsets_ms],
            "shuffled": _estimate(one.prepare(shuffled)(pairs_RN)),
            "silent": _estimate(one.prepare(silent)(drawn_RN)),
            **_verdict(one, values, one.prepare(shuffled)(pairs_RN)),
        }
    return {"clips": len(clips), "offsets_ms": list(offsets_ms), "metrics": result}


def _estimate(values_R: np.ndarray) -> list[float]:
    """[value, low, high]; the first row is the clips themselves, the others resamples of them."""
    return [float(values_R[0]), *matching.interval(values_R[1:])]


class _Verdict(TypedDict):
    fit: bool
    why: str
    resolution_ms: list[int | None]


def _verdict(of: Metric, values: dict[int, np.ndarray], chance_R: np.ndarray) -> _Verdict:
    """Whether the curve falls on both sides, why not, and how small an offset it notices."""
    sign = 1 if of.better == "high" else -1

    def worse(ms: int) -> bool:
        """Significantly, on the same resamples."""
        drop_R = sign * (values[0] - values[ms])
        return matching.interval(drop_R[1:])[0] > 0

    why = []
    best = max(values, key=lambda ms: (sign * values[ms][0], -abs(ms)))
    if abs(best) > PEAK_MS:
        why.append(f"best at {best:+d} ms")
    for side, name in ((-1, "early"), (1, "late")):
        if not worse(side * JUDGED_MS):
            why.append(f"no worse {JUDGED_MS} ms {name}")
    if not matching.interval((sign * (values[0] - chance_R))[1:])[0] > 0:
        why.append("no better than chance")
    resolution: list[int | None] = []
    for side in (-1, 1):
        noticed = None
        for ms in sorted((m for m in values if 0 < side * m <= JUDGED_MS), key=abs, reverse=True):
            if not worse(ms):
                break
            noticed = abs(ms)
        resolution.append(noticed)
    return {"fit": not why, "why": "; ".join(why), "resolution_ms": resolution}
