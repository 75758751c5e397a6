"""A report's page drawn again from its folder, with curves that were measured apart."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from syncflow.clip import Clip
from syncflow.evaluation.report import page, shapes, tables


def redraw(folder: Path, out: Path, more: shapes.More | None = None) -> Path:
    """The page of a report that is there, its players as they are, with ``more`` parts of a report
    ("calibration", "guidance", "training") beside its own; returns the new page's path.

    Raises:
        FileNotFoundError: ``folder`` holds no report.
    """
    found = _numbers(json.loads((folder / "report.json").read_text()))
    report = cast(shapes.Sync, {**cast(shapes.Sync, found), **(more or {})})
    with (folder / "clips.csv").open(newline="") as file:
        lines = [
            {key: tables.csv_text(value) for key, value in line.items()}
            for line in csv.DictReader(file)
        ]
    by_system: dict[str, list[dict[str, str]]] = {}
    for line in lines:
        by_system.setdefault(line["system"], []).append(line)
    first = next(iter(by_system))
    many = len(list((folder / "clips").glob(f"*-{page.file_name(0, first)[4:]}.mp4")))
    shown = []
    for number in range(1, many + 1):
        for system, members in by_system.items():
            line = members[page.place(number - 1, many, len(members))]
            path = folder / "clips" / f"{page.file_name(number, system)}.mp4"
            seen, heard = ([float(t) for t in line[key].split()] for key in ("contacts", "onsets"))
            shown.append(page.Shown(system, line["prompt"], Clip.load(path), seen, heard, path))
    return page.write(out, report, shown)


def _numbers(data: object) -> object:
    """What JSON has as null, for lack of infinity, is infinite again."""
    if isinstance(data, dict):
        return {key: _numbers(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_numbers(value) for value in data]
    return float("inf") if data is None else data


def curves(
    calibrations: Sequence[Path] = (), sweep: Path | None = None, training: Path | None = None
) -> shapes.More:
    """Parts of a report that were measured apart: response curves, a sweep over guidance and
    validation losses, from their JSON files."""
    more: shapes.More = {}
    for file in calibrations:
        found = cast(shapes.Calibration, _numbers(json.loads(file.read_text())))
        more.setdefault("calibration", {})[found["what"]] = found
    if sweep is not None:
        more["guidance"] = _along_guidance(
            cast(shapes.Sweep, _numbers(json.loads(sweep.read_text())))
        )
    if training is not None:
        more["training"] = tables.losses(training)
    return more


def _along_guidance(sweep: shapes.Sweep) -> shapes.Guidance:
    """The rows that differ from the best in guidance alone."""
    fixed = {key: value for key, value in sweep["best"].items() if key != "guidance"}
    rows = [
        row
        for row in sweep["rows"]
        if {key: value for key, value in row["options"].items() if key != "guidance"} == fixed
    ]
    return {"rows": rows}
