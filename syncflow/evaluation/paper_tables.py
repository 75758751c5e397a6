"""The paper's tables as a page: their columns, its published numbers, and ours beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: Columns of each table; what the paper's tables hold besides (section 4) is an image and not read.
TABLES: dict[str, tuple[str, tuple[str, ...]]] = {
    "1": (
        "Table 1: text to audio and video",
        ("FAD", "KL", "CLAP", "IB (Gen-A&Gen-V)", "IB (Gen-A&GT-V)", "IB (Gen-A&GT-T)"),
    ),
    "2": ("Table 2: video generation", ("FVD", "IB (Gen-V&GT-T)")),
    "3": ("Table 3: zero-shot video to audio", ("FAD", "KL", "IB (Gen-A&Gen-V)")),
    "4": ("Table 4: ablations", ("FAD", "KL", "CLAP", "IB (Gen-A&Gen-V)")),
    "5": (
        "Figure 5: guidance",
        ("FAD", "KL", "CLAP", "IB (Gen-A&Gen-V)", "IB (Gen-A&GT-T)", "IB (Gen-V&GT-T)"),
    ),
}
#: What the paper's text states; its tables are images, so nothing else can be read.
PUBLISHED: dict[str, list[tuple[str, dict[str, float]]]] = {
    "1": [
        ("paper: SyncFlow-VGG", {"KL": 2.53, "IB (Gen-A&Gen-V)": 0.182}),
        ("paper: OpenSora + FoleyGen, the best cascade", {"FAD": 3.69}),
    ],
    "3": [("paper: SyncFlow, zero-shot", {"IB (Gen-A&Gen-V)": 0.210})],
}
#: Shown below every table where there is something to show.
MORE = (
    "AV-Align", "AV-Align, shuffled", "DeSync", "F1 at 50 ms", "F1 at 100 ms", "median ms",
    "FD (material probe)", "KL (material probe)", "FD (colour probe)",
)  # fmt: skip
_ARROW = {"lower": "↓", "higher": "↑"}


def cell(value: Sequence[float] | float | None) -> str:
    """``value [low, high]`` in three decimals, or what is left to see of small and great ones."""
    if value is None:
        return "-"
    numbers = [value] if isinstance(value, (int, float)) else list(value)
    texts = [
        "-" if v is None or not math.isfinite(v) else _digits(v) for v in numbers
    ]
    if len(texts) == 1 or texts[1] == texts[2] == texts[0]:
        return texts[0]
    return f"{texts[0]} [{texts[1]}, {texts[2]}]"


def _digits(value: float) -> str:
    if value and abs(value) < 0.1:
        return f"{value:.2g}"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"


def table(rows: Sequence[dict[str, Any]], columns: Sequence[str], published: str = "") -> str:
    """Markdown of all columns of a table of the paper's (``published``), else of those that any row
    has."""
    paper = PUBLISHED.get(published, [])
    better = {n: v["better"] for row in rows for n, v in row.get("metrics", {}).items()}
    shown = [name for name in columns if published or name in better]
    if not shown:
        return ""
    heads = [f"{name} {_ARROW[better[name]]}" if name in better else name for name in shown]
    lines = ["| " + " | ".join(["system", "clips", *heads]) + " |", "|" + "---|" * (len(shown) + 2)]
    for name, values in paper:
        lines.append("| " + " | ".join([name, "", *(cell(values.get(c)) for c in shown)]) + " |")
    for row in rows:
        if "not_run" in row:
            lines.append(f"| {row['system']} | - |" + " - |" * len(shown))
            continue
        cells = [cell(row["metrics"].get(name, {}).get("value")) for name in shown]
        lines.append("| " + " | ".join([row["system"], str(row["clips"]), *cells]) + " |")
    return "\n".join(lines) + "\n"


def curves(series: dict[str, dict[str, list[list[float]]]]) -> str:
    """Markdown of validation losses: one column a run and loss, one line a step."""
    columns = {
        f"{run}, {name}": dict(map(tuple, points))
        for run, losses in series.items()
        for name, points in losses.items()
    }
    steps = sorted({step for points in columns.values() for step in points})
    lines = ["| step | " + " | ".join(columns) + " |", "|" + "---|" * (len(columns) + 1)]
    for step in steps:
        cells = (f"{points[step]:.4f}" if step in points else "-" for points in columns.values())
        lines.append(f"| {step:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def page(report: dict[str, Any]) -> str:
    """``report.md``."""
    facts = "\n".join(f"- {key}: {value}" for key, value in report["facts"].items())
    parts = [f"# The paper's tables\n\n{facts}\n"]
    for key, (title, columns) in TABLES.items():
        rows = [row for row in report["rows"] if key in row["tables"]]
        if not rows:
            continue
        parts.append(f"## {title}\n")
        parts += [part for part in (table(rows, columns, key), table(rows, MORE)) if part]
    if report.get("curves"):
        parts.append("## Figure 6: validation loss\n\n" + curves(report["curves"]))
    missing = {
        f"- {name}: {reason}"
        for row in report["rows"]
        for name, reason in [
            *row.get("metrics_not_run", {}).items(),
            *([(row["system"], row["not_run"])] if "not_run" in row else []),
        ]
    }
    if missing:
        parts.append("## Not run\n\n" + "\n".join(sorted(missing)) + "\n")
    made = {}
    for row in report["rows"]:
        for name, value in row.get("metrics", {}).items():
            made.setdefault(name, value["facts"])
    lines = [
        f"- **{name}**: " + "; ".join(f"{key} {value}" for key, value in facts.items())
        for name, facts in made.items()
    ]
    explained = (
        "Brackets: 95 % intervals over clips; over several checkpoints, the means of their values "
        "and bounds. A Fréchet distance grows as clips get fewer, so compare only rows with the "
        "same number of clips. Lines marked `paper` are from its text, on VGGSound."
    )
    parts.append("\n".join(["## How the numbers were made\n", *lines, "", explained, ""]))
    return "\n".join(parts)


def write(folder: Path, report: dict[str, Any]) -> None:
    """``report.json`` and ``report.md``."""
    from syncflow.evaluation import tables

    tables.write_json(folder / "report.json", report)
    (folder / "report.md").write_text(page(report))
