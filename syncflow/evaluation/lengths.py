"""Which sync metric is fit for clips of which length?

Rendered clips of several lengths, their sound moved by known times. ``calibration`` says of each
metric whether it falls on both sides of the truth. Here each metric is also asked for the time by
which a clip's sound was moved: the lag at which the metric is best. The share of clips whose lag is
within 20, 40 and 80 ms of the truth is what the metric can say of one clip.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from syncflow.clip import Clip
from syncflow.data import media
from syncflow.detect import contacts, envelopes, matching
from syncflow.evaluation.metrics import av_align, desync
from syncflow.evaluation.metrics.metric import Pair
from syncflow.evaluation.report import table, tables
from syncflow.evaluation.report.shapes import Row
from syncflow.evaluation.suites import calibration, provenance, systems
from syncflow.evaluation.suites.calibration import Evidence
from syncflow.generation.choice import ranking
from syncflow.progress import bar

SECONDS = (2.0, 3.0, 5.0, 8.0)
#: The sound of a clip is moved by a time up to this, s, and lags are tried up to the second.
_MOST, _TRIED, _STEP = 0.3, 0.5, 0.01
WITHIN_MS = (20, 40, 80)
OFFSETS_MS = (-400, -200, -100, -50, 0, 50, 100, 200, 400)

#: The value of a metric for a clip whose sound is taken to be a lag (s) late.
Score = Callable[[Evidence, float], float]


def _f1(tolerance: float) -> Score:
    def score(seen: Evidence, lag: float) -> float:
        heard = [t - lag for t in seen.onsets]
        pairs = matching.match(seen.contacts, heard, tolerance)
        return 2 * len(pairs) / max(1, len(seen.contacts) + len(heard))

    return score


def _agreement(seen: Evidence, lag: float) -> float:
    return ranking.agreement(seen.contacts, [t - lag for t in seen.onsets])


def _median(seen: Evidence, lag: float) -> float:
    far = np.abs(matching.nearest(seen.contacts, [t - lag for t in seen.onsets]))
    return -float(np.median(far)) if len(far) else 0.0


def _correlation(seen: Evidence, lag: float) -> float:
    by = round(lag * envelopes.RATE)
    picture, sound = seen.picture, seen.sound
    count = min(len(picture), len(sound))
    a, b = picture[max(0, -by) : count - max(0, by)], sound[max(0, by) : count - max(0, -by)]
    return envelopes.correlation(a, b)


def _av_align(seen: Evidence, lag: float) -> float:
    return av_align.overlap([t - lag for t in seen.beats], seen.motions, seen.fps)


#: By the names of ``calibration.METRICS``.
SCORES: dict[str, Score] = {
    "f1_50": _f1(0.05),
    "f1_100": _f1(0.1),
    "agreement": _agreement,
    "median_ms": _median,
    "correlation": _correlation,
    "av_align": _av_align,
}


def run(
    clips: int = 32,
    seconds: Sequence[float] = SECONDS,
    levels: Sequence[int] = (1,),
    out: str | Path | None = None,
    seed: int = 0,
    *,
    size: int = 64,
    with_av_align: bool | None = None,
    synchformer: str | Path | None = None,
    allow_torchscript: bool = False,
    command: str | None = None,
    progress: bool = True,
) -> Row:
    """Measures every metric on ``clips`` rendered clips of every level and length; writes
    ``lengths.json`` and ``.md`` into ``out`` (default ``runs/eval``), returns the former.

    Args:
        synchformer: the network of DeSync, a TorchScript file; without it DeSync is not run.
        with_av_align: None = where librosa and OpenCV are installed.

    Raises:
        ValueError: fewer than 2 clips, no length or level, or a length at which a moved sound
            leaves no clip.
    """
    from syncflow import impacts

    if clips < 2:
        raise ValueError(f"clips must be at least 2, got {clips}")
    for name, given in (("seconds", seconds), ("levels", levels)):
        if not given:
            raise ValueError(f"{name} must have at least one value, got {given!r}")
    short = [length for length in seconds if not length >= 1]
    if short:
        raise ValueError(f"a clip must last at least 1 s, got {short[0]:g}")
    if with_av_align is None:
        with_av_align = all(find_spec(name) for name in ("cv2", "librosa"))
    out = media.make_folder(out if out is not None else "runs/eval", "lengths.json")
    lengths: list[Row] = []
    for length in seconds:
        scenes = [
            impacts.sample_scene(number, level, "test", length)
            for level in levels
            for number in impacts.SEEDS["test"][:clips]
        ]
        cases = [case for case in map(systems.case, scenes) if not case.outside]
        made = [systems.rendered(case, size, size) for case in cases]
        rows = calibration.calibrate(
            made,
            offsets_ms=OFFSETS_MS,
            resamples=300,
            seed=seed,
            with_av_align=with_av_align,
            progress=progress,
        )["metrics"]
        shares = _shares(made, list(rows), seed, with_av_align, progress)
        lengths.append(
            {
                "seconds": length,
                "clips": len(made),
                "contacts": float(np.mean([len(case.seen) for case in cases])),
                "metrics": {
                    name: {key: row[key] for key in ("label", "fit", "why", "resolution_ms")}
                    | {"in sync": row["curve"][OFFSETS_MS.index(0)], "chance": row["shuffled"]}
                    | shares[name]
                    for name, row in rows.items()
                },
                "DeSync": desync_of(made, length, synchformer, allow_torchscript),
            }
        )
        report: Row = {
            "facts": {
                "clips": f"{clips} rendered per level of {list(levels)}, split test, {size} px",
                "seed": seed,
                **provenance.circumstances(command),
            },
            "within_ms": list(WITHIN_MS),
            "lengths": lengths,
        }
        tables.write_json(out / "lengths.json", report)
        tables.write_text(out / "lengths.md", page(report))
    return report


def _shares(
    clips: Sequence[Clip], names: Sequence[str], seed: int, with_av_align: bool, progress: bool
) -> dict[str, Row]:
    """How near each metric comes to the time by which a clip's sound was moved."""
    rng = np.random.default_rng(seed)
    lags = np.round(np.arange(-_TRIED, _TRIED + _STEP / 2, _STEP), 3)
    errors: dict[str, list[float]] = {name: [] for name in names}
    for clip in bar(clips, desc="lags", shown=progress, leave=False):
        true = float(rng.uniform(-_MOST, _MOST))
        seen = calibration.evidence(
            clip,
            true,
            contacts.times(clip.video, clip.fps),
            envelopes.picture(clip.video, clip.fps),
            av_align.peaks(av_align.flow(clip.video), clip.fps) if with_av_align else None,
        )
        for name in names:
            values = np.array([SCORES[name](seen, lag) for lag in lags])
            # Of several that are as good, the one in the middle.
            best = lags[np.flatnonzero(values >= values.max() - 1e-9)]
            errors[name].append(abs(float(np.median(best)) - true) * 1000)
    return {
        name: {
            f"within {ms} ms": matching.average([float(e <= ms) for e in found], seed=seed)
            for ms in WITHIN_MS
        }
        for name, found in errors.items()
    }


def desync_of(
    clips: Sequence[Clip], length: float, weights: str | Path | None, allowed: bool = False
) -> str | list[float]:
    """DeSync of clips in sync, or why there is none."""
    if length < desync.SECONDS:
        return f"not defined: its network reads {desync.SECONDS:g} s at once"
    if weights is None:
        return "not run: needs its network (--synchformer)"
    metric = desync.DeSync(weights, allow_torchscript=allowed)
    metric.update([Pair(clip, None, "") for clip in clips])
    return metric.results()[0].value


def page(report: Row) -> str:
    """The report as Markdown."""
    shares = [f"within {ms} ms" for ms in report["within_ms"]]
    head = ["metric", "s", "in sync", "other soundtracks", *shares, "notices early, late from ms"]
    lines: list[list[str | table.Cell]] = [[*head, "verdict"]]
    names = list(report["lengths"][0]["metrics"])
    for name in names:
        for part in report["lengths"]:
            row = part["metrics"][name]
            lines.append(
                [
                    row["label"],
                    f"{part['seconds']:g}",
                    table.cell(row["in sync"]),
                    table.cell(row["chance"]),
                    *(table.cell(row[share]) for share in shares),
                    ", ".join("-" if ms is None else str(ms) for ms in row["resolution_ms"]),
                    "fit" if row["fit"] else f"unfit: {row['why']}",
                ]
            )
    for part in report["lengths"]:
        told = part["DeSync"]
        value = told if isinstance(told, str) else table.cell(told)
        lines.append(["DeSync", f"{part['seconds']:g}", value, *[""] * (len(lines[0]) - 3)])
    facts = "\n".join(f"- {key}: {value}" for key, value in report["facts"].items())
    counts = ", ".join(
        f"{part['seconds']:g} s: {part['clips']} clips of {part['contacts']:.1f} contacts"
        for part in report["lengths"]
    )
    return (
        f"# Sync metrics by the length of clips\n\n{facts}\n- {counts}\n\n{table.markdown(lines)}"
    )
