"""Faster ways to run a model, judged by picture, sound and sync and not by frames alone.

Fewer steps, a cache, fewer bits, a compiler, guidance in a part of the flow time, another solver:
each cell of a grid makes the same captions with the same seeds as the full run, and is measured
against it by a rule stated beforehand (``verdicts``). The fastest cell that passes in all
modalities is recommended.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch

from syncflow import durable, plain_text
from syncflow.clip import Clip
from syncflow.config import ModelConfig
from syncflow.data import media
from syncflow.evaluation.probes.probe import ProbeSettings
from syncflow.evaluation.report import (
    accelerations_page,
    accelerations_tables,
    page,
    shapes,
    tables,
)
from syncflow.evaluation.suites import cells, provenance, systems, verdicts
from syncflow.evaluation.suites.cells import Cell, Grid
from syncflow.evaluation.suites.systems import Case, Model
from syncflow.evaluation.suites.verdicts import Run
from syncflow.json_types import JsonObject
from syncflow.model_io import model_folder
from syncflow.progress import bar

#: What is tried when no grid is given.
GRIDS: tuple[Grid, ...] = (
    {"steps": ("10", "20")},
    {"cache": ("video", "audio", "both")},
    {"guidance_interval": ("0.1-0.6",)},
    {"dtype": ("bf16", "int8")},
)
#: What a suite tries beside all else.
SMALL: tuple[Grid, ...] = ({"steps": ("20",)}, {"cache": ("both",), "cache_threshold": ("0.4",)})


def run(
    model: Model | str | Path | None = None,
    grids: Sequence[Grid] = GRIDS,
    clips: int = 48,
    seeds: int = 2,
    split: str = "val",
    out: str | Path | None = None,
    seed: int = 0,
    batch: int = 16,
    *,
    levels: Sequence[int] = (1,),
    write: bool = False,
    players: int = 3,
    probe_settings: tuple[ProbeSettings, ProbeSettings] | None = None,
    probes: str | Path | None = None,
    command: str | None = None,
    progress: bool = True,
) -> shapes.Accelerations:
    """Measures every cell of some grids on ``clips`` captions of every level, ``seeds`` clips of
    each, and writes ``accelerations.json`` and ``.md`` and ``index.html`` with players into ``out``
    (default ``runs/eval/accelerations``); returns the first. Files are written anew after every
    cell, so that what is interrupted leaves what it had.

    Args:
        model: a folder or hub id, a loaded model, or None for the one in the package.
        grids: of each, the product of its axes; axes and values as the command line has them.
        split: "val"; on "test" nothing may be chosen, and nothing is written.
        write: put the recommended setting into the config of the model's folder.
        players: clips of every cell on the page, the worst first.
        probes: folder of the probes, by default ``probes`` beside ``out``.

    Raises:
        ValueError: a grid, a number or a model that cannot be used.
    """
    if seeds < 2:
        raise ValueError(f"seeds must be at least 2 (one is the other's measure), got {seeds}")
    if write and split == "test":
        raise ValueError("a setting must not be chosen on test clips; write with --split val")
    if write and (model is None or not Path(str(model)).is_dir()):
        raise ValueError(f"write needs a model folder to write into, got {str(model)!r}")
    cases = systems.cases(split, clips, levels)
    loaded, named = provenance.load_model(model)
    config = getattr(loaded, "config", None)
    own = {} if config is None else config.sampling.model_dump()
    full, others = cells.cells(grids, own)
    _check(full, others, config)
    out = media.make_folder(out if out is not None else "runs/eval/accelerations", "index.html")
    cache = Path(probes or out.parent / "probes")
    used = systems.load_probes(cache, levels, probe_settings)
    making = {"seed": seed, "batch": batch, "seeds": seeds}
    # What is made at first use, tables and workspaces, is no cell's.
    warm = {**full.sampling, "steps": 1}
    prompts = [case.prompt for case in cases]
    systems.generated(loaded, prompts[:batch], seed=seed, batch=batch, options=warm, progress=False)

    # A processor's time does not depend on what else it does, and does not tell a GPU's.
    on_gpu = getattr(loaded, "device", torch.device("cpu")).type == "cuda"
    clock = "seconds" if on_gpu else "processor_seconds"
    reference, row = _run(loaded, full, cases, used, making)
    report: shapes.Accelerations = {
        "facts": {
            **named,
            "clips": f"{clips} captions per level of split {split}, levels "
            f"{list(levels)}, {seeds} seeds each",
            "full run": _said(full, own),
            "seed": seed,
            "batch": batch,
            **provenance.circumstances(command),
        },
        "rule": [
            {"modality": c.modality, "key": c.key, "what": c.what, "range": [c.low, c.high]}
            for c in verdicts.RULE
        ],
        "clock": clock,
        "rows": [row | verdicts.measured(reference, reference, seed) | {"verdicts": {}}],
        "not_run": [],
        "recommended": None,
        "written": None,
    }
    sections: list[str] = []
    for cell in bar(others, desc="cells", shown=progress):
        try:
            if cell.not_run:
                raise _NotRun(cell.not_run)
            made, row = _run(loaded, cell, cases, used, making)
        except _NotRun as reason:
            report["not_run"].append({"cell": cell.label, "why": str(reason)})
            continue
        row |= verdicts.measured(made, reference, seed)
        row["faster"] = report["rows"][0][clock] / row[clock]
        row["verdicts"], row["not passed"] = verdicts.verdicts(row), verdicts.reasons(row)
        row["folder"] = cells.is_as_loaded(loaded, cell)
        report["rows"].append(row)
        worst = _worst(cell.label, made, reference, players)
        sections.append(accelerations_page.section(out, cell.label, worst, len(sections) + 1))
        _choose(report)
        _write_files(out, report, sections)
    if write:
        report["written"] = _write_setting(Path(str(model)), report)
    _write_files(out, report, sections)
    return report


class _NotRun(Exception):
    """A cell that cannot run here, and why."""


def _check(full: Cell, others: Sequence[Cell], config: ModelConfig | None) -> None:
    """What the sampler would refuse is refused before anything is sampled."""
    if not others:
        raise ValueError("the grid has no cell beside the full run")
    if config is None:
        return
    from syncflow.generation.request import resolve

    for cell in (full, *others):
        try:
            resolve(config.sampling, ["a caption"], cell.sampling)  # type: ignore[arg-type]  # options by name
        except ValueError as error:
            raise ValueError(f"cell '{cell.label}': {error}") from None


def _run(
    model: Model,
    cell: Cell,
    cases: Sequence[Case],
    probes: systems.Judges,
    making: Mapping[str, int],
) -> tuple[Run, shapes.Row]:
    """The clips of a cell and what they cost."""
    if not (cells.is_as_loaded(model, cell) or hasattr(model, "ddit")):
        raise _NotRun("it changes towers, and this model has none of its own")
    prompts, count = [case.prompt for case in cases], len(cases)
    seed, batch, seeds = (making[key] for key in ("seed", "batch", "seeds"))
    chosen = cells.variant(model, cell)

    def generated(one: Model, first: int, captions: Sequence[str]) -> list[Clip]:
        return systems.generated(
            one, captions, seed=first, batch=batch, options=cell.sampling, progress=False
        )

    # A compiled step is not to be compiled anew for the count: some clips without it tell.
    counted, of = chosen, seeds * count
    if cell.compile:
        counted, of = cells.variant(model, replace(cell, compile=False)), min(batch, count)
        with cells.counted(counted) as passes:
            generated(counted, seed, prompts[:of])
        try:
            for size in {of, count % batch or of}:
                generated(chosen, seed, prompts[:size])
        except Exception as error:
            # The compiler fails in many ways, none of which is this package's or its user's.
            reason = str(error).strip().partition("\n")[0]
            raise _NotRun(f"{type(error).__name__}: {reason}") from error
    elif chosen is not model:
        generated(chosen, seed, prompts[:1])
    with nullcontext(passes) if cell.compile else cells.counted(chosen) as passes:
        begun, processor = time.perf_counter(), time.process_time()
        clips = [generated(chosen, seed + s * count, prompts) for s in range(seeds)]
        took, spent = time.perf_counter() - begun, time.process_time() - processor
    wrong = sum(not systems.is_finite(clip) for part in clips for clip in part)
    if wrong:
        raise _NotRun(f"{wrong} of {seeds * count} sounds are not finite")
    row = {
        "cell": cell.label,
        "options": cell.sampling,
        "dtype": cell.dtype,
        "part": cell.part,
        "compile": cell.compile,
        "seconds": took / (seeds * count),
        "processor_seconds": spent / (seeds * count),
        "passes": cells.whole_passes(counted, passes, of),
    }
    return Run(cases, clips, [systems.observe(part, *probes) for part in clips]), row


def _worst(label: str, made: Run, full: Run, players: int) -> list[page.Shown]:
    shown = []
    for s, n in verdicts.worst_first(made, full)[:players]:
        for name, run in (("full run", full), (label, made)):
            clip, o = run.clips[s][n], run.seen[s][n]
            shown.append(
                page.Shown(f"{name}, seed {s}", run.cases[n].prompt, clip, o.contacts, o.onsets)
            )
    return shown


def _said(full: Cell, own: Mapping[str, object]) -> str:
    """The settings of the full run, those of the model's own that it keeps among them."""
    settings = {**own, **full.sampling}
    words = [f"{name} {value}" for name, value in settings.items() if value is not None]
    return ", ".join([*words, *([full.dtype] if full.dtype else [])])


def _choose(report: shapes.Accelerations) -> None:
    """The fastest cell that passes in all modalities, and the fastest that a folder can hold."""
    passed = [
        row
        for row in report["rows"][1:]
        if set(row["verdicts"].values()) == {"pass"} and row["faster"] > 1
    ]
    passed.sort(key=lambda row: -row["faster"])
    report["recommended"] = next((row["cell"] for row in passed), None)
    report["recommended for the folder"] = next(
        (row["cell"] for row in passed if row["folder"]), None
    )


def _write_setting(folder: Path, report: shapes.Accelerations) -> str | None:
    """Puts the sampling options of the recommended cell into a model folder's config."""
    label = report.get("recommended for the folder")
    if label is None:
        return None
    row = next(row for row in report["rows"] if row["cell"] == label)
    path = folder / model_folder.CONFIG
    data = cast(JsonObject, plain_text.read_json(path))
    data["sampling"] = {**data.get("sampling", {}), **row["options"]}
    ModelConfig.parse(data, str(path))
    durable.write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    return str(label)


def _write_files(out: Path, report: shapes.Accelerations, sections: Sequence[str]) -> None:
    tables.write_json(out / "accelerations.json", report)
    tables.write_text(out / "accelerations.md", accelerations_tables.markdown(report))
    accelerations_page.write(out, report, sections)
