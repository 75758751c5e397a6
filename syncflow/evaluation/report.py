"""The report: captions, what a model makes of them, and the same table for what it compares with.

Rows: text to clip (``generated``), the real pictures set to sound (``video to audio``), the real
clips after both VAEs (``real, after the VAEs``: what a perfect sampler could reach), the real clips
(what the detectors can see), and generated and real clips with shuffled soundtracks (chance).
"""

from __future__ import annotations

import datetime
import hashlib
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from syncflow.clip import Clip
from syncflow.data import media
from syncflow.evaluation import contacts, looks, materials, onsets, settings, sync, systems, tables
from syncflow.evaluation.probe import Probe, ProbeSettings
from syncflow.evaluation.systems import Case, Model, Observation

#: Rounds of shuffling that chance is averaged over.
SHUFFLES = 10
#: Sampling options that may be given.
OPTIONS = ("steps", "guidance", "audio_guidance", "schedule", "solver", "shift", "renewal")


def load_model(model: Model | str | Path | None) -> tuple[Model, dict[str, str]]:
    """A loaded model and what names it: its folder's name and a hash of its weights."""
    import syncflow

    loaded = syncflow.load(model) if model is None or isinstance(model, (str, Path)) else model
    folder = getattr(loaded, "folder", None)
    if folder is None:
        return loaded, {"model": getattr(loaded, "name", type(loaded).__name__)}
    weights = hashlib.sha256()
    for file in sorted(Path(folder).rglob("*.safetensors")):
        weights.update(file.read_bytes())
    name = "the model in the package" if model is None else Path(folder).name
    return loaded, {"model": name, "weights": weights.hexdigest()[:16]}


def circumstances(command: str | None) -> dict[str, str]:
    """Date, command and machine, for a report's head."""
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        processor = lines[0].split(":", 1)[1].strip() if lines else processor
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": command or shlex.join(words),
        "machine": f"{processor}, {torch.get_num_threads()} threads, {device}, "
        f"torch {torch.__version__}",
    }


def adherence(
    cases: Sequence[Case], seen: Sequence[Observation], seed: int = 0
) -> dict[str, list[float]]:
    """How often what a caption says is found: ``count_picture``, ``count_sound``, ``material``,
    ``colour``, each [value, low, high] over the captions that say it; left out where none does."""
    pairs = list(zip(cases, seen, strict=True))
    right = {
        "count_picture": [len(o.contacts) == c.count for c, o in pairs if c.count is not None],
        "count_sound": [len(o.onsets) == c.count for c, o in pairs if c.count is not None],
        "material": [o.material == c.material for c, o in pairs if c.material is not None],
        "colour": [o.colour == c.colour for c, o in pairs if c.colour is not None],
    }
    return {name: sync.accuracy(hits, seed=seed)["value"] for name, hits in right.items() if hits}


def rows(
    name: str, cases: Sequence[Case], seen: Sequence[Observation], seed: int, shuffled: bool = False
) -> list[dict[str, Any]]:
    """One row for all clips, and one per level and per kind of event where there are several.

    Shuffled rows are about sync alone, and shuffle within their group.
    """
    groups: dict[str, list[int]] = {"all clips": list(range(len(cases)))}
    for label, key in (("level", "level"), ("kind", "kind")):
        values = sorted({getattr(case, key) for case in cases})
        for value in values if len(values) > 1 else []:
            members = [i for i, case in enumerate(cases) if getattr(case, key) == value]
            groups[f"{label} {value}"] = members
    result = []
    for group, members in groups.items():
        if shuffled and len(members) < 2:
            continue
        table = sync.measure(
            [seen[i].contacts for i in members],
            [seen[i].onsets for i in members],
            shuffles=SHUFFLES if shuffled else 0,
            seed=seed,
        )
        row = {"system": name, "group": group, "clips": len(members), **table}
        if not shuffled:
            row |= adherence([cases[i] for i in members], [seen[i] for i in members], seed)
        result.append(row)
    return result


def run(
    model: Model | str | Path | None = None,
    clips: int = 200,
    levels: Sequence[int] = (1,),
    split: str = "test",
    out: str | Path | None = None,
    seed: int = 0,
    batch: int = 16,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    audio_guidance: float | None = None,
    schedule: str | None = None,
    solver: str | None = None,
    shift: float | None = None,
    renewal: float | None = None,
    video_to_audio: bool = True,
    reconstruct: bool = True,
    real_media: Sequence[str | Path] | None = None,
    sweep: bool = False,
    probe_settings: tuple[ProbeSettings, ProbeSettings] | None = None,
    command: str | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Measures a model and writes ``report.json``, ``report.md``, ``clips.csv``, ``clips.png`` (a
    contact sheet) and ``offsets.png`` into the folder ``out`` (default ``runs/eval``).

    ``model``: a folder or hub id, a loaded model, or None for the one in the package. ``clips``
    captions of every level of ``split``. Sampling options left at None are the model's own.
    ``video_to_audio`` and ``reconstruct`` may leave those rows out. ``real_media``: files or
    folders of which ten windows go through the VAEs as well. ``sweep`` also runs ``sweep.sweep`` on
    the validation split. ``probe_settings``: of the material and the colour probe, kept in the
    folder ``probes`` beside ``out``. Returns the report.
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    out = Path(out if out is not None else "runs/eval")
    captions = systems.cases(split, clips, levels)
    # What would fail after an hour of sampling fails now.
    if real_media:
        systems.media_files(real_media, captions[0].scene.seconds)
    loaded, named = load_model(model)
    out.mkdir(parents=True, exist_ok=True)
    media.check_folder(out / "report.json")
    values = (steps, guidance, audio_guidance, schedule, solver, shift, renewal)
    given = dict(zip(OPTIONS, values, strict=True))
    options = {key: value for key, value in given.items() if value is not None}
    heard, looked = load_probes(out, levels, probe_settings)

    prompts = [case.prompt for case in captions]
    begun = time.perf_counter()
    made = {"generated": systems.generated(
        loaded, prompts, seed=seed, batch=batch, options=options, progress=progress
    )}  # fmt: skip
    seconds_a_clip = (time.perf_counter() - begun) / len(prompts)
    height, width = made["generated"][0].video.shape[2:]
    real = [systems.rendered(case, height, width) for case in captions]
    if video_to_audio:
        made["video to audio"] = systems.generated(
            loaded, prompts, seed=seed, batch=batch, options=options,
            video=[clip.video for clip in real], label="video to audio", progress=progress,
        )  # fmt: skip
    if reconstruct:
        made["real, after the VAEs"] = systems.reconstructed(loaded, real, progress)
    made["real"] = real

    seen = {name: systems.observe(part, heard, looked) for name, part in made.items()}
    table: list[dict[str, Any]] = []
    for name, found in seen.items():
        table += rows(name, captions, found, seed)
    for name in ("generated", "real"):
        table += rows(f"{name}, shuffled", captions, seen[name], seed, shuffled=True)
    detectors = settings.load()
    report = {
        "facts": {
            **named, "clips": f"{clips} per level of split {split}, levels {list(levels)}",
            "size": f"{height} x {width}", "sampling": options or "the model's own defaults",
            "seed": seed, "batch": batch, "seconds a clip": round(seconds_a_clip, 3),
            **circumstances(command),
        },
        "rows": table,
        "fidelity": _fidelity(loaded, made, real_media),
        "detectors": {
            "contacts": contacts.score([c.video for c in real], [c.seen for c in captions]),
            "onsets": onsets.score([c.audio for c in real], [c.heard for c in captions]),
            "material probe": heard.facts, "colour probe": looked.facts,
        },
        "settings": asdict(detectors),
    }  # fmt: skip
    _write(out, report, captions, made, seen)
    if sweep:
        from syncflow.evaluation.sweep import sweep as try_settings

        report["sweep"] = try_settings(
            loaded, clips=min(clips, 64), levels=levels, out=out, seed=seed, batch=batch,
            probe_settings=probe_settings, progress=progress,
        )  # fmt: skip
    return report


def load_probes(
    out: Path, levels: Sequence[int], given: tuple[ProbeSettings, ProbeSettings] | None
) -> tuple[Probe, Probe]:
    """The material and the colour probe, kept beside ``out`` so that several reports share them."""
    cache = out.parent / "probes"
    first, second = given or (
        ProbeSettings(levels=tuple(levels)),
        ProbeSettings(levels=tuple(levels), clips=800, epochs=20, rate=5e-3),
    )
    return materials.load(cache, first), looks.load(cache, second)


def _fidelity(
    model: Model, made: dict[str, list[Clip]], real_media: Sequence[str | Path] | None
) -> dict[str, dict[str, float]]:
    pairs = {}
    if "real, after the VAEs" in made:
        pairs["impacts"] = list(zip(made["real"], made["real, after the VAEs"], strict=True))
    if real_media:
        originals = systems.windows(real_media, 10, made["real"][0])
        pairs["other media"] = [(clip, model.reconstruct(clip)) for clip in originals]
    result = {}
    for name, both in pairs.items():
        values = [systems.fidelity(a, b) for a, b in both]
        mean = {key: float(np.mean([v[key] for v in values])) for key in values[0]}
        result[name] = {"clips": len(both), **mean}
    return result


def _write(
    out: Path,
    report: dict[str, Any],
    captions: Sequence[Case],
    made: dict[str, list[Clip]],
    seen: dict[str, list[Observation]],
) -> None:
    from syncflow.evaluation.contact_sheet import contact_sheet

    tables.write_json(out / "report.json", report)
    tables.write_markdown(out / "report.md", report)
    records = [
        {
            "system": name, "seed": case.seed, "level": case.level, "kind": case.kind,
            "prompt": case.prompt, "count": case.count, "material": case.material,
            "colour": case.colour, "contacts": o.contacts, "onsets": o.onsets,
            "found_material": o.material, "found_colour": o.colour,
        }
        for name, found in seen.items()
        for case, o in zip(captions, found, strict=True)
    ]  # fmt: skip
    tables.write_csv(out / "clips.csv", records)
    shown = slice(0, min(12, len(captions)))
    contact_sheet(
        made["generated"][shown],
        [case.prompt for case in captions[shown]],
        out / "clips.png",
        marks=[(o.contacts, o.onsets) for o in seen["generated"][shown]],
    )
    offsets = {
        name: np.concatenate([sync.nearest(o.contacts, o.onsets) for o in found])
        for name, found in seen.items()
    }
    tables.histogram(out / "offsets.png", offsets)
