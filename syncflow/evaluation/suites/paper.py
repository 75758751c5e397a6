"""The paper's Tables 1-4 and figures 5 and 6 for any model folder and data set (sections 4, 5).

What needs weights that are not given is one line, ``not run: needs <file>``, and the rest runs.
Clips are generated, measured and forgotten batch by batch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from syncflow.data import lock
from syncflow.evaluation.metrics.metric import Metric, Pair
from syncflow.evaluation.probes.probe import ProbeSettings
from syncflow.evaluation.report import paper_page, shapes
from syncflow.evaluation.suites import datasets, paper_shares, paper_systems
from syncflow.evaluation.suites.paper_systems import (
    Factory,
    Networks,
    System,
    factories,
    world_factories,
)
from syncflow.evaluation.suites.systems import Model, is_finite
from syncflow.progress import bar

#: The paper's zero-shot resolutions (Table 1), and the guidance weights that figure 5 is drawn at
#: here (the paper's own cannot be read off its image).
SIZES = (128, 256, 512)
GUIDANCES = (1.0, 2.0, 4.0, 6.0, 8.0)


def measure(
    make: paper_systems.Make,
    items: Sequence[datasets.Item],
    size: tuple[int, int],
    metrics: Sequence[Factory],
    networks: Networks,
    *,
    seed: int = 0,
    batch: int = 8,
    label: str = "",
    progress: bool = True,
) -> tuple[dict[str, shapes.PaperMetric], dict[str, str], dict[str, str]]:
    """All metrics of one system on ``items``: name -> value, better, clips and facts; name -> why
    it was not run; and key of an item -> why no metric sees it (a damaged film, a sound that is not
    finite). A metric that refuses the clips is left out; a system that cannot make them raises."""
    running: dict[str, Metric] = {}
    missing: dict[str, str] = {}
    for name, needs, build in metrics:
        absent = [what for key, what in needs.items() if getattr(networks, key) is None]
        if absent:
            missing[name] = f"not run: needs {' and '.join(absent)}"
            continue
        try:
            running[name] = build()
        except datasets.USER_ERRORS as error:
            missing[name] = f"not run: {datasets.reason(error)}"
    left_out: dict[str, str] = {}
    for first in bar(range(0, len(items), batch), desc=label, shown=progress, leave=False):
        there = datasets.readable(items[first : first + batch], size, left_out)
        if not there:
            continue
        part, real = [item for item, _ in there], [clip for _, clip in there]
        made = make(part, real, seed + first)
        if len(made) != len(part):
            raise ValueError(f"asked for {len(part)} clips, the system made {len(made)}")
        pairs = []
        for item, ours, theirs in zip(part, made, real, strict=True):
            if is_finite(ours):
                pairs.append(Pair(ours, theirs, item.prompt))
            else:  # the same clips for every metric
                left_out[item.key] = "the system's sound has values that are not finite"
        if not pairs:
            continue
        for name in list(running):
            try:
                running[name].update(pairs)
            except datasets.USER_ERRORS as error:
                missing[name] = f"not run: {datasets.reason(error)}"
                del running[name]
    if len(left_out) == len(items):
        key, reason = next(iter(left_out.items()))
        raise ValueError(f"none of {len(items)} clips can be measured; {key}: {reason}")
    found: dict[str, shapes.PaperMetric] = {}
    for name, metric in running.items():
        try:
            for result in metric.results():
                found[result.name] = {
                    "value": result.value,
                    "better": result.better,
                    "clips": result.clips,
                    "facts": result.facts,
                }
        except datasets.USER_ERRORS as error:
            missing[name] = f"not run: {datasets.reason(error)}"
    return found, missing, left_out


def averaged(parts: Sequence[dict[str, shapes.PaperMetric]]) -> dict[str, shapes.PaperMetric]:
    """The mean over checkpoints of every value and bound; metrics that all of them have."""
    names = [name for name in parts[0] if all(name in part for part in parts)]
    return {
        name: parts[0][name]
        | {
            "value": [
                sum(v) / len(parts) for v in zip(*(p[name]["value"] for p in parts), strict=True)
            ]
        }
        for name in names
    }


def loss_curves(runs: Mapping[str, str | Path]) -> dict[str, dict[str, list[list[float]]]]:
    """Validation losses of training runs (figure 6): run -> loss -> [[step, value, low, high], ...]
    with 95 % intervals over clips, from the ``metrics.jsonl`` that training writes."""
    curves = {}
    for name, folder in runs.items():
        file = Path(folder) / "metrics.jsonl"
        if not file.is_file():
            raise FileNotFoundError(f"there is no training log at '{file}'")
        losses: dict[str, list[list[float]]] = {}
        for line in file.read_text().splitlines():
            entry = json.loads(line)
            for key, value in entry.items():
                if key.startswith("val_audio") and not key.endswith("_se"):
                    margin = 1.96 * entry.get(f"{key}_se", 0.0)
                    point = [entry["step"], value, value - margin, value + margin]
                    losses.setdefault(key, []).append(point)
        curves[name] = losses
    return curves


def settings_of(
    model: Model, sizes: Sequence[int], guidances: Sequence[float], wanted: Sequence[str]
) -> list[System]:
    """A model's own rows: tables 1 to 3 and figure 5."""
    text, v2a = paper_systems.text_to_clip, paper_systems.video_to_audio
    rows = [
        System("real clips", ("1", "2"), (paper_systems.real_clips,)),
        System("text to audio and video", ("1", "2"), (text(model),)),
    ]
    rows += [
        System(f"at {size}x{size}", ("1", "2"), (text(model, height=size, width=size),))
        for size in sizes
    ]
    ways: tuple[Literal["paper", "one-pass"], ...] = ("paper", "one-pass")
    rows += [System(f"video to audio, {way}", ("3",), (v2a(model, way),)) for way in ways]
    for weight in guidances:
        guided = text(model, guidance=weight, audio_guidance=weight)
        rows.append(System(f"guidance {weight:g}", ("5",), (guided,), weight))
    asked = [replace(row, tables=tuple(t for t in row.tables if t in wanted)) for row in rows]
    return [row for row in asked if row.tables]


def run(
    model: Model | str | Path | None = None,
    data: str | Path = "impacts",
    out: str | Path = "runs/paper",
    *,
    clips: int = 200,
    split: str = "test",
    levels: Sequence[int] = (1,),
    wanted: Sequence[str] = ("1", "2", "3", "5"),
    sizes: Sequence[int] = SIZES,
    guidances: Sequence[float] = GUIDANCES,
    ablations: dict[str, str | Path] | None = None,
    cascades: dict[str, tuple[str, str]] | None = None,
    training: Mapping[str, str | Path] | None = None,
    networks: Networks | None = None,
    seed: int = 0,
    batch: int = 8,
    device: str = "cpu",
    allow_torchscript: bool = False,
    probe_settings: tuple[ProbeSettings, ProbeSettings] | None = None,
    command: str | None = None,
    share: tuple[int, int] = (0, 1),
    progress: bool = True,
) -> shapes.Paper | None:
    """Measures every setting and writes ``report.json`` and ``report.md`` into ``out``.

    Args:
        model: a folder or hub id, a loaded model, or None for the one in the package.
        data: "impacts", or a folder of clips with captions (``datasets.folder``).
        clips: captions (per level on impacts).
        wanted: tables "1" to "4" and "5" for figure 5.
        sizes, guidances: of the zero-shot resolutions and of figure 5.
        ablations: rows of table 4, name -> model folder, or folder of its checkpoints' folders.
        cascades: name -> (folder of pictures, folder of sounds or module:function).
        training: name -> training run, for figure 6.
        networks: where published weights are.
        allow_torchscript: run those of them that are programs.
        share: (i, n): make every n-th batch of the models' clips from the i-th on, so that n
            processes share the work; the one that ends last measures all of them.

    Returns:
        the report; None while another share's clips are missing.
    """
    import syncflow
    from syncflow.data import media
    from syncflow.evaluation.suites.provenance import circumstances, load_model

    out, networks = media.make_folder(out, "report.json"), networks or Networks()
    curves = loss_curves(training or {})
    rows = [
        System(name, ("1",), (paper_systems.cascade(v, paper_systems.find_sound(a)),))
        for name, (v, a) in (cascades or {}).items()
    ]
    on_impacts = str(data) == "impacts"
    loaded, named = load_model(model)
    spec = loaded.config.geometry.spec if hasattr(loaded, "config") else None
    size = (spec.height, spec.width) if spec else (64, 64)
    if on_impacts:
        items = datasets.impacts(split, clips, levels)
    else:
        geometry = (spec.seconds, spec.fps, spec.sample_rate) if spec else ()
        items = datasets.folder(data, clips, *geometry)
    metrics = factories(networks, device, allow_torchscript)
    if on_impacts:
        metrics += world_factories(out, levels, probe_settings)
    rows = settings_of(loaded, sizes, guidances, wanted) + rows
    for name, folder in (ablations or {}).items():
        makes = [
            paper_systems.text_to_clip(syncflow.load(path, device=device))
            for path in paper_systems.checkpoints(folder)
        ]
        rows.append(System(name, ("4",), tuple(makes)))
    facts = {
        **named,
        "data": f"{len(items)} clips of {data}" + (f", {split}" if on_impacts else ""),
        "seed": seed,
        **circumstances(command),
    }
    report: shapes.Paper = {"facts": facts, "rows": [], "curves": curves}
    if share[1] > 1:
        behind = paper_shares.sources(data, ablations or {}, cascades or {}, networks)
        behind |= {**named, "allow_torchscript": allow_torchscript, "probes": repr(probe_settings)}
        return _shared(report, rows, behind, items, size, metrics, networks, seed, batch, share,
                       out, progress)  # fmt: skip
    for row in rows:
        done = _row(row, items, size, metrics, networks, seed, batch, progress)
        report["rows"].append(done)
        paper_page.write(out, report)  # what is measured stays, whatever comes after
    return report


def _shared(
    report: shapes.Paper,
    rows: Sequence[System],
    behind: Mapping[str, object],
    items: Sequence[datasets.Item],
    size: tuple[int, int],
    metrics: Sequence[Factory],
    networks: Networks,
    seed: int,
    batch: int,
    share: tuple[int, int],
    out: Path,
    progress: bool,
) -> shapes.Paper | None:
    """The report of clips that several processes have made; None while some are missing."""
    settings = {
        **behind, "metrics": [name for name, *_ in metrics], "size": size,
        "rows": [[row.name, row.tables, row.at, len(row.makes)] for row in rows],
        "clips": [item.key for item in items], "prompts": [item.prompt for item in items],
    }  # fmt: skip
    shares = paper_shares.Shares(out, settings, items, size, seed, batch, report["curves"])
    if shares.finished:
        before: shapes.Paper = json.loads((out / "report.json").read_text())
        return before
    made = [row for row in rows if row.makes != (paper_systems.real_clips,)]
    shares.make(made, share, progress)
    if not shares.complete(made):
        return None
    with lock.held(out / ".measuring", wait=True):
        if not shares.complete(made):  # another process was here before
            return None
        for row in rows:
            row = shares.stored(row) if row in made else row
            done = _row(row, items, size, metrics, networks, seed, batch, progress)
            report["rows"].append(done)
            paper_page.write(out, report)
        shares.finish()
    return report


def _row(
    system: System,
    items: Sequence[datasets.Item],
    size: tuple[int, int],
    metrics: Sequence[Factory],
    networks: Networks,
    seed: int,
    batch: int,
    progress: bool,
) -> shapes.PaperRow:
    begun = time.perf_counter()
    parts: list[dict[str, shapes.PaperMetric]] = []
    missing: dict[str, str] = {}
    left_out: dict[str, str] = {}
    row: shapes.PaperRow = {"system": system.name, "tables": list(system.tables), "at": system.at}
    try:
        for make in system.makes:
            found, absent, left = measure(
                make,
                items,
                size,
                metrics,
                networks,
                seed=seed,
                batch=batch,
                label=system.name,
                progress=progress,
            )
            parts.append(found)
            missing |= absent
            left_out |= left
    except datasets.USER_ERRORS as error:
        return row | {"not_run": f"not run: {datasets.reason(error)}"}
    seconds = (time.perf_counter() - begun) / len(items) / len(system.makes)
    return row | {
        "clips": len(items) - len(left_out),
        "left_out": left_out,
        "checkpoints": len(parts),
        "metrics": averaged(parts),
        "metrics_not_run": missing,
        "seconds a clip": round(seconds, 3),
    }
