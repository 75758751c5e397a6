"""The report on accelerations as a page with players, the worst clips of every cell first."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from syncflow.evaluation.report import accelerations_tables as tables
from syncflow.evaluation.report import page, shapes, table


def section(out: Path, label: str, shown: Sequence[page.Shown], number: int) -> str:
    """The players of a cell, the worst clips first; their files are in the folder ``clips``."""
    cards = page.cards(out / "clips", shown, f"{number:02d}-")
    return f"<h2>{escape(label)}: worst clips first</h2>{cards}"


def write(out: Path, report: shapes.Accelerations, sections: Sequence[str]) -> Path:
    """Writes ``index.html``, the sections at its end."""
    missing = "".join(
        f"<li>{escape(item['cell'])}: {escape(item['why'])}</li>" for item in report["not_run"]
    )
    parts = [
        "<h1>Faster, and what it costs picture, sound and sync</h1>",
        f"<p>{escape(tables.conclusion(report))}</p>",
        page.facts(report),
        table.html(tables.lines(report)),
        "<details><summary>What the verdicts are made of</summary>"
        f"{table.html(tables.changes(report))}<p>{escape(tables.READING)}</p>{table.html(tables.rule(report))}</details>",
        f"<h2>Not run</h2><ul>{missing}</ul>" if missing else "",
        *sections,
    ]
    return page.document(out / "index.html", "syncflow: accelerations", parts, page.SCRIPT)
