"""Do things touch, and sound, when a user says so?

A model with event tokens is told the times at which things touch in rendered scenes, beside the
scenes' captions. Contacts are found in the pictures and onsets in the sounds of what it makes, and
both are held against the times that were asked for. The same captions and seeds without times are
chance: what a model meets that was not told. Real clips are the ceiling of the detectors, and real
clips after the VAEs that of any model with these VAEs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

from syncflow.clip import Clip
from syncflow.config.model import ModelConfig
from syncflow.data import media
from syncflow.detect import contacts, matching, onsets
from syncflow.evaluation.report import table, tables
from syncflow.evaluation.report.shapes import Report, Row
from syncflow.evaluation.suites import provenance, systems
from syncflow.evaluation.suites.rows import every_event_matched
from syncflow.evaluation.suites.systems import Case, Model

COLUMNS = {
    "f1_50": "F1 of the times asked for and the events found, 50 ms",
    "f1_100": "the same, 100 ms",
    "median_ms": "median distance from a time asked for to the nearest event, ms",
    "met": "share of clips in which all times are met within 50 ms and nothing else is found",
}


class _Tellable(Model, Protocol):
    """A model that says what it takes."""

    @property
    def config(self) -> ModelConfig: ...


class _Report(Report):
    rows: list[Row]


def run(
    model: Model | str | Path | None = None,
    clips: int = 200,
    split: str = "test",
    out: str | Path | None = None,
    seed: int = 0,
    batch: int = 16,
    *,
    options: Mapping[str, object] | None = None,
    command: str | None = None,
    progress: bool = True,
) -> _Report:
    """Asks for the times of ``clips`` scenes of level 1, where all contacts are seen and heard;
    writes ``contacts.json`` and ``.md`` into ``out`` (default ``runs/eval``), returns the former.

    Raises:
        ValueError: a model that takes no times; fewer than 2 clips.
    """
    cases = systems.cases(split, clips, [1])
    loaded, named = provenance.load_model(model)
    if not cast(_Tellable, loaded).config.ddit.event_bins:
        raise ValueError(
            f"{named['model']} takes no times of contacts (event_bins is 0): evaluate a model that "
            "was trained to be told when things touch"
        )
    out = media.make_folder(out if out is not None else "runs/eval", "contacts.json")
    prompts = [case.prompt for case in cases]
    asked = [case.seen for case in cases]
    told, untold = (
        systems.generated(
            loaded,
            prompts,
            seed=seed,
            batch=batch,
            options=options or {},
            times=times,
            label=label,
            progress=progress,
        )
        for label, times in (("told the times", asked), ("not told", None))
    )
    height, width = told[0].video.shape[2:]
    real = [systems.rendered(case, height, width) for case in cases]
    made = {
        "told the times": told,
        "not told (chance)": untold,
        "real": real,
        "real, after the VAEs": systems.reconstructed(loaded, real, progress=progress),
    }
    report: _Report = {
        "facts": {
            **named,
            "clips": f"{clips} scenes of split {split}, level 1",
            "seed": seed,
            "sampling": options or "the model's own defaults",
            **provenance.circumstances(command),
        },
        "rows": [row for name, part in made.items() for row in _rows(name, cases, part, seed)],
    }
    tables.write_json(out / "contacts.json", report)
    tables.write_text(out / "contacts.md", _page(report))
    return report


def _rows(name: str, cases: Sequence[Case], clips: Sequence[Clip], seed: int) -> list[Row]:
    """A row for the picture and one for the sound, every number [value, low, high]."""
    seen = [contacts.times(clip.video, clip.fps) for clip in clips]
    heard = [onsets.times(clip.audio, clip.sample_rate) for clip in clips]
    rows = []
    for events, asked, found in (
        ("contacts seen", [case.seen for case in cases], seen),
        ("onsets heard", [case.heard for case in cases], heard),
    ):
        rates = matching.measure(asked, found, seed=seed)
        met = [every_event_matched(a, b) for a, b in zip(asked, found, strict=True)]
        row: Row = {"clips": name, "events": events}
        row |= {key: rates[key] for key in ("f1_50", "f1_100", "median_ms")}
        row["met"] = matching.average(met, seed=seed)
        rows.append(row)
    return rows


def _page(report: _Report) -> str:
    lines: list[list[str | table.Cell]] = [["clips", "events", *COLUMNS]]
    lines += [
        [row["clips"], row["events"], *(table.cell(row[key]) for key in COLUMNS)]
        for row in report["rows"]
    ]
    facts = "\n".join(f"- {key}: {value}" for key, value in report["facts"].items())
    legend = "\n".join(f"- {key}: {text}" for key, text in COLUMNS.items())
    return f"# Contacts when they are asked for\n\n{facts}\n\n{table.markdown(lines)}\n{legend}\n"
