"""Clips that go on and parts drawn anew: does the rest hold, and is the new as good as the old?

Extended clips are measured whole, window by window, each like a clip of its own, and at their
seams: the jump of the sound's level beside the jumps at every other border of 20 ms without an
onset, the jump of the object's centre, and the colour that a probe names before and after. Real
clips of the same length, cut where the seam would be, say what all of that is worth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict, cast

import numpy as np
import torch

from syncflow.clip import Clip
from syncflow.data import media
from syncflow.detect import contacts, matching, onsets, tracking
from syncflow.evaluation.probes import looks
from syncflow.evaluation.probes.probe import Probe, ProbeSettings
from syncflow.evaluation.report import table, tables
from syncflow.evaluation.report.shapes import Row
from syncflow.evaluation.suites import provenance, systems
from syncflow.evaluation.suites.systems import Model
from syncflow.progress import bar

_BORDER_S, _NEAR_ONSET_S, _EVENT_S = 0.02, 0.04, 0.1
COLUMNS = {
    "f1_50": "F1 of contacts and onsets, 50 ms",
    "f1_100": "the same, 100 ms",
    "median_ms": "median distance of matched events, ms",
    "quiet seams": "share of seams whose jump of level is below the 95th percentile of others",
    "place_px": "jump of the object's centre over the seam, beyond its speed, px",
    "colour": "share in which the colour probe names the same before and after",
}


_Report = TypedDict(
    "_Report",
    {"facts": Mapping[str, object], "rows": list[Row], "unchanged outside the span": float},
)


def run(
    model: Model | str | Path | None = None,
    clips: int = 40,
    seconds: float = 6.0,
    split: str = "test",
    out: str | Path | None = None,
    seed: int = 0,
    *,
    options: Mapping[str, object] | None = None,
    probe_settings: tuple[ProbeSettings, ProbeSettings] | None = None,
    command: str | None = None,
    progress: bool = True,
) -> _Report:
    """Extends ``clips`` clips of level 1 to ``seconds`` and draws a second of their sound anew;
    writes ``continuation.json`` and ``.md`` into ``out`` (default ``runs/eval``), returns the
    former.

    Raises:
        ValueError: fewer than 2 clips, or a length that is not several of the model's own.
    """
    from syncflow import impacts
    from syncflow.impacts import world

    out = media.make_folder(out if out is not None else "runs/eval", "continuation.json")
    cases = systems.cases(split, clips, [1])
    loaded, named = provenance.load_model(model)
    colour = systems.load_probes(out.parent / "probes", (1,), probe_settings).colour
    asked = options or {}
    first = systems.generated(
        loaded,
        [case.prompt for case in cases],
        seed=seed,
        batch=8,
        options=asked,
        progress=progress,
    )
    window = first[0].seconds
    windows = round(seconds / window)
    if windows < 2 or abs(windows * window - seconds) > 1e-6:
        raise ValueError(f"seconds must be 2 or more times {window:g}, got {seconds}")
    longer, retaken = [], []
    span = (0.25 * window, 0.75 * window)
    for index in bar(range(len(cases)), desc="extend", shown=progress):
        prompt = cases[index].prompt
        given = {"seed": seed + index, "progress": False, **asked}
        more = {"extend": first[index], "seconds": seconds - window}
        longer.append(cast(Clip, loaded.generate(prompt, **more, **given)))
        again = {"retake": first[index], "span": span, "part": "audio"}
        retaken.append(cast(Clip, loaded.generate(prompt, **again, **given)))
    real = [
        systems.rendered(systems.case(impacts.sample_scene(n, 1, split, seconds)), 64, 64)
        for n in world.seeds_of(split)[:clips]
    ]
    rows = []
    for name, part in (("extended", longer), ("real, cut", real)):
        whole = name.removesuffix(", cut")
        rows.append({"clips": f"{whole}, whole, 0 to {seconds:g} s", **_sync(part, seed)})
        rows += _windows(name, part, window, windows, colour, seed)
    outside = [
        torch.equal(a.video, b.video) and not (a.audio != b.audio)[_outside(a, span)].any()
        for a, b in zip(first, retaken, strict=True)
    ]
    rows.append({"clips": "first clips, whole", **_sync(first, seed)})
    for name, part in (("first clips", first), ("sound drawn anew", retaken)):
        rows.append({"clips": f"{name}, inside the span", **_sync(part, seed, span)})
    report: _Report = {
        "facts": {
            **named,
            "clips": f"{clips} of split {split}, level 1, extended to {seconds:g} s",
            "span": list(span),
            "seed": seed,
            "sampling": asked or "the model's own defaults",
            **provenance.circumstances(command),
        },
        "unchanged outside the span": float(np.mean(outside)),
        "rows": rows,
    }
    tables.write_json(out / "continuation.json", report)
    tables.write_text(out / "continuation.md", _page(report))
    return report


def _windows(
    name: str, clips: Sequence[Clip], window: float, windows: int, colour: Probe, seed: int
) -> list[Row]:
    """A row for every window of the clips, the seam at its start among its columns."""
    rows = []
    before: list[str] = []
    for number in range(windows):
        part = [_cut(clip, number * window, window) for clip in clips]
        named = looks.predict(colour, [clip.video for clip in part])
        start, end = number * window, (number + 1) * window
        row = {"clips": f"{name}, {start:g} to {end:g} s", **_sync(part, seed)}
        if number:
            at = number * window
            row["quiet seams"] = matching.average([_quiet(clip, at) for clip in clips], seed=seed)
            jumps = [_jump(clip, at) for clip in clips]
            row["place_px"] = matching.average([j for j in jumps if j is not None], seed=seed)
            same = [float(a == b) for a, b in zip(before, named, strict=True)]
            row["colour"] = matching.average(same, seed=seed)
        before = before or named
        rows.append(row)
    return rows


def _sync(clips: Sequence[Clip], seed: int, span: tuple[float, float] | None = None) -> Row:
    def within(times: Sequence[float]) -> list[float]:
        return [t for t in times if span is None or span[0] <= t < span[1]]

    seen = [within(contacts.times(clip.video, clip.fps)) for clip in clips]
    heard = [within(onsets.times(clip.audio, clip.sample_rate)) for clip in clips]
    found = matching.measure(seen, heard, seed=seed)
    return {key: found[key] for key in ("f1_50", "f1_100", "median_ms")}


def _cut(clip: Clip, start: float, seconds: float) -> Clip:
    frame, sample = round(start * clip.fps), round(start * clip.sample_rate)
    video = clip.video[frame : frame + round(seconds * clip.fps)]
    audio = clip.audio[sample : sample + round(seconds * clip.sample_rate)]
    return Clip(video, audio, clip.fps, clip.sample_rate)


def _outside(clip: Clip, span: tuple[float, float]) -> torch.Tensor:
    inside = torch.zeros(len(clip.audio), dtype=torch.bool)
    inside[round(span[0] * clip.sample_rate) : round(span[1] * clip.sample_rate)] = True
    return ~inside


def _quiet(clip: Clip, at: float) -> float:
    """Whether the sound's level jumps less at a time than at 95 of 100 other borders, none of them
    near an onset; 1 = yes."""
    hop = round(_BORDER_S * clip.sample_rate)
    levels = clip.audio[: len(clip.audio) // hop * hop].unflatten(0, (-1, hop)).square().mean(1)
    jumps = (10 * torch.log10(levels + 1e-10)).diff().abs().numpy()
    times = np.arange(1, len(levels)) * _BORDER_S
    heard = np.asarray(onsets.times(clip.audio, clip.sample_rate))
    near = (
        np.abs(times[:, None] - heard[None]).min(1) < _NEAR_ONSET_S
        if len(heard)
        else np.zeros(len(times), bool)
    )
    seam = int(np.abs(times - at).argmin())
    seen = np.asarray(contacts.times(clip.video, clip.fps))
    if near[seam] and len(seen) and np.abs(seen - at).min() < _EVENT_S:
        return 1.0  # what is heard there is seen: an event, not a seam
    near[seam] = True
    return float(jumps[seam] <= np.quantile(jumps[~near], 0.95))


def _jump(clip: Clip, at: float) -> float | None:
    """How far the object's centre moves over a seam, beyond what it moves in the frames before and
    after, px; None where it is not seen. Each side is tracked by itself: their grounds may differ.
    """
    frame, side = round(at * clip.fps), round(clip.fps)
    places = []
    for part in (clip.video[frame - side : frame], clip.video[frame : frame + side]):
        found = tracking.tracks(part)
        if not found:
            return None
        track = max(found, key=lambda one: one.area)
        places.append(np.stack([track.x_F, track.y_F], 1))
    around = np.concatenate([places[0][-2:], places[1][:2]])
    steps = np.hypot(*np.diff(around, axis=0).T)
    if np.isnan(steps).any():
        return None
    return float(max(0.0, steps[1] - max(steps[0], steps[2])))


def _page(report: _Report) -> str:
    lines: list[list[str | table.Cell]] = [["clips", *COLUMNS]]
    lines += [
        [row["clips"], *(table.cell(row.get(key)) for key in COLUMNS)] for row in report["rows"]
    ]
    facts = "\n".join(f"- {key}: {value}" for key, value in report["facts"].items())
    legend = "\n".join(f"- {key}: {text}" for key, text in COLUMNS.items())
    share = report["unchanged outside the span"]
    return (
        f"# Clips that go on, and sounds drawn anew\n\n{facts}\n- unchanged outside the span: "
        f"{share:g} of the clips\n\n{table.markdown(lines)}\n{legend}\n"
    )
