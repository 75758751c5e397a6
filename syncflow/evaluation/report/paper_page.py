"""The paper's tables and figures as a web page: ``index.html``, which opens with no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from syncflow.evaluation.report import figures, page, paper_tables, shapes, table, tables


def write(folder: Path, report: shapes.Paper) -> None:
    """``report.json``, ``report.md`` and ``index.html``."""
    _html(folder, report)
    tables.write_json(folder / "report.json", report)
    tables.write_text(folder / "report.md", paper_tables.page(report))


def _html(folder: Path, report: shapes.Paper) -> Path:
    """Tables 1 to 4, figure 5 drawn over its guidance weights and figure 6 over steps."""
    parts = ["<h1>The paper's tables and figures</h1>", page.facts(report)]
    for key, (title, columns) in paper_tables.TABLES.items():
        rows = [row for row in report["rows"] if key in row["tables"]]
        if not rows:
            continue
        grids = (paper_tables.grid(rows, columns, key), paper_tables.grid(rows, paper_tables.MORE))
        drawn = _guidance(rows) if key == "5" else ""
        parts += [f"<h2>{escape(title)}</h2>", drawn, *(table.html(lines) for lines in grids)]
    if report.get("curves"):
        parts += [f"<h2>{paper_tables.LOSSES}</h2>", _losses(report["curves"])]
    missing = "".join(f"<li>{escape(line)}</li>" for line in paper_tables.not_run(report))
    parts += [f"<h2>Not run</h2><ul>{missing}</ul>" if missing else ""]
    parts += [f"<p>{escape(paper_tables.EXPLAINED)}</p>"]
    return page.document(folder / "index.html", "syncflow: the paper's tables", parts)


def _guidance(rows: Sequence[shapes.PaperRow]) -> str:
    """One chart a metric, over the weights of the rows that were run."""
    run = sorted((row for row in rows if "metrics" in row), key=lambda row: row["at"] or 0.0)
    names = dict.fromkeys(name for row in run for name in row["metrics"])
    drawings = []
    for name in names:
        points: list[tuple[float, float, float, float]] = []
        for row in run:
            if name in row["metrics"]:
                value, low, high = row["metrics"][name]["value"]
                points.append((row["at"] or 0.0, value, low, high))
        drawings.append(figures.chart([figures.Series("", points)], "guidance", name))
    return f'<div class="charts">{"".join(drawings)}</div>' if run else ""


def _losses(curves: dict[str, dict[str, list[list[float]]]]) -> str:
    """One chart a loss, one line a run."""
    names = dict.fromkeys(name for losses in curves.values() for name in losses)
    drawings = []
    for name in names:
        series = [
            figures.Series(run, [(x, y, low, high) for x, y, low, high in losses[name]])
            for run, losses in curves.items()
            if name in losses
        ]
        drawings.append(figures.chart(series, "step", name))
    return f'<div class="charts">{"".join(drawings)}</div>'
