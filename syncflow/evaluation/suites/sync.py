"""The report: captions, what a model makes of them, and the same table for what it compares with.

Rows: text to clip (``generated``), the real pictures set to sound (``video to audio``, in one pass
and in the paper's way), the best of several takes, the real clips after both VAEs (``real, after
the VAEs``: what a perfect sampler could reach), the real clips (what the detectors can see), and
generated and real clips with shuffled soundtracks (chance) or none (silent).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from syncflow.clip import Clip
from syncflow.data import media
from syncflow.data.export import loudness
from syncflow.detect import contacts, fidelity, matching, onsets, settings
from syncflow.evaluation.probes.probe import ProbeSettings
from syncflow.evaluation.report import page, shapes, tables
from syncflow.evaluation.suites import (
    accelerations,
    calibration,
    counterfactual,
    provenance,
    recordings,
    rows,
    systems,
)
from syncflow.evaluation.suites.sweep import sweep as try_settings
from syncflow.evaluation.suites.systems import Case, Model, Observation
from syncflow.sampling import OPTIONS

_OF_PICTURE = ("material", "colour", "kind", "count_picture", "no_contact")


@dataclass(frozen=True)
class Scope:
    """What a report covers beside text to clip and the real clips.

    ``video_to_audio``: real pictures set to sound; ``paper_way``: also with the video tower run at
    every step; ``reconstruct``: both VAEs and back; ``takes``: the best of so many, if more than 1;
    ``compare``: name -> another model (an ablation), text to clip and video to audio;
    ``calibrate``: real clips for the metrics' response curves, 0 = none; ``recordings``: a folder
    of films with written-down events; ``guidance``: strengths to try on validation captions;
    ``sizes``: pixels to try; ``training``: a file of validation losses to draw; ``real_media``:
    files or folders of which ten windows go through the VAEs; ``accelerations``: validation
    captions for a few faster settings; ``counterfactual``: pairs of scenes that differ in one
    thing; ``players``: captions whose clips are on the page, None = all.
    """

    video_to_audio: bool = True
    paper_way: bool = False
    reconstruct: bool = True
    takes: int = 1
    compare: dict[str, str] = field(default_factory=dict)
    calibrate: int = 0
    recordings: str | Path | None = None
    guidance: Sequence[float] = ()
    sizes: Sequence[int] = ()
    training: str | Path | None = None
    real_media: Sequence[str | Path] = ()
    accelerations: int = 0
    counterfactual: int = 0
    players: int | None = 12


#: Every setting that needs no download.
SUITE = Scope(
    paper_way=True, takes=4, calibrate=100, guidance=(1.0, 2.0, 4.0, 6.0), sizes=(128, 256, 512),
    accelerations=8, counterfactual=8, players=None,
)  # fmt: skip


def run(
    model: Model | str | Path | None = None,
    clips: int = 200,
    levels: Sequence[int] = (1,),
    split: str = "test",
    out: str | Path | None = None,
    seed: int = 0,
    batch: int = 16,
    *,
    scope: Scope = Scope(),
    options: Mapping[str, object] | None = None,
    sweep: bool = False,
    probe_settings: tuple[ProbeSettings, ProbeSettings] | None = None,
    command: str | None = None,
    progress: bool = True,
) -> shapes.Sync:
    """Measures a model and writes ``report.json``, ``report.md``, ``index.html`` and its ``clips``,
    ``clips.csv``, ``clips.png`` (a contact sheet) and ``offsets.png`` into the folder ``out``
    (default ``runs/eval``); returns the report.

    ``model``: a folder or hub id, a loaded model, or None for the one in the package. ``clips``
    captions of every level of ``split``. ``options``: of sampling, those of ``OPTIONS``; what is
    left out is the model's own. ``sweep`` also runs ``sweep.sweep`` on the validation split.
    ``probe_settings``: of the material and the colour probe, kept in the folder ``probes`` beside
    ``out``.
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    options = {key: value for key, value in (options or {}).items() if value is not None}
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise ValueError(f"a report accepts {', '.join(OPTIONS)}, got {', '.join(unknown)}")
    cases = systems.cases(split, clips, levels)
    # What would fail after an hour of sampling fails now.
    if scope.real_media:
        systems.media_files(scope.real_media, cases[0].scene.seconds)
    if scope.recordings:
        recordings.find(scope.recordings)
    curves = tables.losses(scope.training) if scope.training else {}
    out = media.make_folder(out if out is not None else "runs/eval", "report.json")
    loaded, named = provenance.load_model(model)
    others = {name: provenance.load_model(folder)[0] for name, folder in scope.compare.items()}
    judges = systems.load_probes(out.parent / "probes", levels, probe_settings)

    begun = time.perf_counter()
    sampling: systems.Making = {"seed": seed, "batch": batch, "progress": progress}
    made = {
        "generated": systems.generated(
            loaded, [case.prompt for case in cases], options=options, **sampling
        )
    }
    seconds_a_clip = (time.perf_counter() - begun) / len(cases)
    height, width = made["generated"][0].video.shape[2:]
    real = [systems.rendered(case, height, width) for case in cases]
    made |= _made(loaded, others, cases, real, scope, options, sampling)
    made["real"] = real
    cases, made, left_out = systems.finite(cases, made)
    real = made["real"]

    seen = {name: systems.observe(part, *judges) for name, part in made.items()}
    table: list[shapes.Row] = []
    for name, found in seen.items():
        table += rows.measured(name, cases, found, seed)
    for name in ("generated", "real"):
        table += rows.measured(f"{name}, shuffled", cases, seen[name], seed, shuffled=True)
    silent = [
        replace(
            o,
            onsets=[],
            correlation=0.0,
            loudness=-120.0,
            lufs=loudness.SILENCE,
            second=o.second and (o.second[0], []),
        )
        for o in seen["real"]
    ]
    about_sound = rows.measured("real, silent", cases, silent, seed)
    table += [{k: v for k, v in row.items() if k not in _OF_PICTURE} for row in about_sound]
    report: shapes.Sync = {
        "facts": {
            **named, "clips": f"{clips} per level of split {split}, levels {list(levels)}",
            "size": f"{height} x {width}", "sampling": options or "the model's own defaults",
            "seed": seed, "batch": batch, "seconds a clip": round(seconds_a_clip, 3),
            **({"left out": _told(left_out)} if left_out else {}),
            **provenance.circumstances(command),
        },
        "rows": table,
        "fidelity": _fidelity(loaded, made, scope.real_media),
        "detectors": {
            "contacts": contacts.score([c.video for c in real], [c.seen for c in cases]),
            "onsets": onsets.score([c.audio for c in real], [c.heard for c in cases]),
            **judges.facts,
        },
        "settings": asdict(settings.load()),
        "notes": _sizes(loaded, cases[0].prompt, scope.sizes),
        "training": curves,
        "offsets_ms": {
            name: page.offsets_ms([o.contacts for o in found], [o.onsets for o in found])
            for name, found in seen.items()
        },
        "calibration": {},
    }  # fmt: skip
    if scope.calibrate:
        chosen = [clip for clip, case in zip(real, cases, strict=True) if not case.outside]
        report["calibration"]["impacts"] = calibration.calibrate(
            chosen[: scope.calibrate], seed=seed, progress=progress
        )
    if scope.recordings:
        _recorded(report, loaded, scope, real[0], options, sampling)
    if scope.guidance:
        report["guidance"] = try_settings(
            loaded, clips=min(clips, 64), levels=levels, out=out / "guidance", seed=seed,
            batch=batch, grid={"guidance": scope.guidance}, probe_settings=probe_settings,
            cache=out.parent / "probes", progress=progress,
        )  # fmt: skip
    if scope.accelerations:
        report["accelerations"] = accelerations.run(
            loaded, accelerations.SMALL, scope.accelerations, out=out / "accelerations", seed=seed,
            batch=batch, levels=levels, probe_settings=probe_settings,
            probes=out.parent / "probes", progress=progress,
        )  # fmt: skip
    counterfactual.add(report, loaded, scope.counterfactual, split, out, seed, probe_settings)
    _write(out, report, cases, made, seen, scope.players)
    if sweep:
        report["sweep"] = try_settings(
            loaded, clips=min(clips, 64), levels=levels, out=out, seed=seed, batch=batch,
            probe_settings=probe_settings, progress=progress,
        )  # fmt: skip
    return report


def _made(
    model: Model,
    others: dict[str, Model],
    cases: Sequence[Case],
    real: Sequence[Clip],
    scope: Scope,
    options: Mapping[str, object],
    sampling: systems.Making,
) -> dict[str, list[Clip]]:
    """The clips of every system beside text to clip."""
    prompts, pictures = [case.prompt for case in cases], [clip.video for clip in real]
    # Sounds of a picture that stays are not candidates.
    options = {k: v for k, v in options.items() if k != "candidates"}
    made = {}
    if scope.takes > 1:
        name = f"generated, best of {scope.takes} takes"
        made[name] = systems.generated(
            model, prompts, options={**options, "audio_takes": scope.takes}, label=name, **sampling
        )
    ways: dict[str, dict[str, str]] = {"video to audio": {}} if scope.video_to_audio else {}
    if scope.paper_way:
        ways["video to audio, the paper's way"] = {"v2a": "paper"}
    for name, way in ways.items():
        # The clock of the paper's way is one: steps of the sound alone have no place in it.
        given = {k: v for k, v in options.items() if not (way and k == "audio_steps")}
        made[name] = systems.generated(
            model, prompts, options={**given, **way}, video=pictures, label=name, **sampling
        )
    for name, other in others.items():
        for label, picture in (("generated", None), ("video to audio", pictures)):
            made[f"{label}, {name}"] = systems.generated(
                other, prompts, options={}, video=picture, label=name, **sampling
            )
    if scope.reconstruct:
        made["real, after the VAEs"] = systems.reconstructed(model, real, sampling["progress"])
    return made


def _recorded(
    report: shapes.Sync,
    model: Model,
    scope: Scope,
    like: Clip,
    options: Mapping[str, object],
    sampling: systems.Making,
) -> None:
    """Adds what recordings with written-down events say: of the metrics, and of the model."""
    assert scope.recordings is not None
    found = recordings.windows(scope.recordings, max(2, scope.calibrate or 100), like)
    clips, times = [w.clip for w in found], [w.times for w in found]
    report["calibration"]["recordings"] = calibration.calibrate(
        clips, times, seed=sampling["seed"], progress=sampling["progress"]
    )
    made = {"recorded": clips, "video to audio": systems.generated(
        model, [""] * len(clips), options=options, video=[c.video for c in clips],
        label="recordings", **sampling,
    )}  # fmt: skip
    report["recordings"] = []
    for name, part in made.items():
        heard = [onsets.times(clip.audio, clip.sample_rate) for clip in part]
        for shuffles in (0, rows.SHUFFLES):
            label = f"{name}, shuffled" if shuffles else name
            row = matching.measure(times, heard, shuffles=shuffles, seed=sampling["seed"])
            report["recordings"].append({"system": label, "clips": len(clips), **row})
        for key in ("kind", "material"):
            for value in sorted({getattr(w, key) for w in found}):
                members = [i for i, w in enumerate(found) if getattr(w, key) == value]
                row = matching.measure([times[i] for i in members], [heard[i] for i in members])
                label = f"{name}, {key} {value}"
                report["recordings"].append({"system": label, "clips": len(members), **row})


def _told(left_out: dict[str, str]) -> str:
    """Clips that no row has, counted and by name."""
    named = "; ".join(f"{name} ({why})" for name, why in left_out.items())
    return f"{len(left_out)} clips, of every system: {named}"


def _sizes(model: Model, prompt: str, sizes: Sequence[int]) -> dict[str, str]:
    """Whether other sizes run, and what the model says where they do not."""
    notes = {}
    for size in sizes:
        try:
            made = model.generate([prompt], height=size, width=size, steps=1, progress=False)
            notes[f"{size} x {size}"] = f"runs ({tuple(made[0].video.shape)}), was not trained"
        except ValueError as error:
            notes[f"{size} x {size}"] = f"refused: {error}"
    return notes


def _fidelity(
    model: Model, made: dict[str, list[Clip]], real_media: Sequence[str | Path]
) -> dict[str, dict[str, float]]:
    pairs = {}
    if "real, after the VAEs" in made:
        pairs["impacts"] = list(zip(made["real"], made["real, after the VAEs"], strict=True))
    if real_media:
        originals = systems.windows(real_media, 10, made["real"][0])
        pairs["other media"] = [(clip, model.reconstruct(clip)) for clip in originals]
    result = {}
    for name, both in pairs.items():
        values = [fidelity.measure(a, b) for a, b in both]
        mean = {key: float(np.mean([v[key] for v in values])) for key in ("psnr", "spectral_db")}
        result[name] = {"clips": len(both), **mean}
    return result


def _write(
    out: Path,
    report: shapes.Sync,
    cases: Sequence[Case],
    made: dict[str, list[Clip]],
    seen: dict[str, list[Observation]],
    players: int | None,
) -> None:
    from syncflow.evaluation.report.contact_sheet import contact_sheet

    tables.write_json(out / "report.json", report)
    tables.write_markdown(out / "report.md", report)
    tables.write_csv(out / "clips.csv", rows.records(cases, seen))
    shown = slice(0, min(12, len(cases)))
    contact_sheet(
        made["generated"][shown],
        [case.prompt for case in cases[shown]],
        out / "clips.png",
        marks=[(o.contacts, o.onsets) for o in seen["generated"][shown]],
    )
    tables.histogram(
        out / "offsets.png", {k: np.array(v) / 1000 for k, v in report["offsets_ms"].items()}
    )
    many = len(cases) if players is None else min(players, len(cases))
    chosen = [page.place(i, many, len(cases)) for i in range(many)]
    page.write(
        out,
        report,
        [
            page.Shown(name, cases[i].prompt, made[name][i], found[i].contacts, found[i].onsets)
            for i in chosen
            for name, found in seen.items()
        ],
    )
