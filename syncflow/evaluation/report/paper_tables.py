"""The paper's tables as a page: their columns, its published numbers, and ours beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from syncflow.evaluation.report import shapes, table
from syncflow.evaluation.report.table import Cell, cell

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
LOSSES = "Figure 6: validation loss"
EXPLAINED = (
    "Brackets: 95 % intervals over clips; over several checkpoints, the means of their values and "
    "bounds. A Fréchet distance grows as clips get fewer, so compare only rows with the same "
    "number of clips. Lines marked `paper` are from its text, on VGGSound."
)
#: Shown below every table where there is something to show.
MORE = (
    "AV-Align",
    "AV-Align, shuffled",
    "DeSync",
    "F1 at 50 ms",
    "F1 at 100 ms",
    "median ms",
    "FD (material probe)",
    "KL (material probe)",
    "FD (colour probe)",
)
_ARROW = {"lower": "↓", "higher": "↑"}


def grid(
    rows: Sequence[shapes.PaperRow], columns: Sequence[str], published: str = ""
) -> list[list[str | Cell]]:
    """Heading and lines of all columns of a table of the paper's (``published``), else of those
    that any row has; empty where there is nothing to show."""
    paper = PUBLISHED.get(published, [])
    better = {n: v["better"] for row in rows for n, v in row.get("metrics", {}).items()}
    shown = [name for name in columns if published or name in better]
    if not shown:
        return []
    heads = [f"{name} {_ARROW[better[name]]}" if name in better else name for name in shown]
    lines: list[list[str | Cell]] = [["system", "clips", *heads]]
    lines += [[name, "", *(cell(values.get(c)) for c in shown)] for name, values in paper]
    for row in rows:
        found = row.get("metrics", {})
        values = [cell(found[name]["value"] if name in found else None) for name in shown]
        lines.append([row["system"], str(row.get("clips", "-")), *values])
    return lines


def losses(series: dict[str, dict[str, list[list[float]]]]) -> list[list[str | Cell]]:
    """Heading and lines of validation losses: one column a run and loss, one line a step."""
    columns = {
        f"{run}, {name}": {step: values for step, *values in points}
        for run, losses in series.items()
        for name, points in losses.items()
    }
    steps = sorted({step for points in columns.values() for step in points})
    lines: list[list[str | Cell]] = [["step", *columns]]
    lines += [[f"{step:g}", *(cell(c.get(step)) for c in columns.values())] for step in steps]
    return lines


def page(report: shapes.Paper) -> str:
    """``report.md``."""
    facts = "\n".join(f"- {key}: {value}" for key, value in report["facts"].items())
    parts = [f"# The paper's tables\n\n{facts}\n"]
    for key, (title, columns) in TABLES.items():
        rows = [row for row in report["rows"] if key in row["tables"]]
        if not rows:
            continue
        parts.append(f"## {title}\n")
        grids = (grid(rows, columns, key), grid(rows, MORE))
        parts += [table.markdown(lines) for lines in grids if lines]
    if report.get("curves"):
        parts.append(f"## {LOSSES}\n\n" + table.markdown(losses(report["curves"])))
    missing = [f"- {line}\n" for line in not_run(report)]
    if missing:
        parts.append("## Not run\n\n" + "".join(missing))
    made: dict[str, Mapping[str, object]] = {}
    for row in report["rows"]:
        for name, value in row.get("metrics", {}).items():
            made.setdefault(name, value["facts"])
    lines = [
        f"- **{name}**: " + "; ".join(f"{key} {value}" for key, value in facts.items())
        for name, facts in made.items()
    ]
    parts.append("\n".join(["## How the numbers were made\n", *lines, "", EXPLAINED, ""]))
    return "\n".join(parts)


def not_run(report: shapes.Paper) -> list[str]:
    """What was left out, and why, each once."""
    missing = {
        f"{name}: {reason}"
        for row in report["rows"]
        for name, reason in [
            *row.get("metrics_not_run", {}).items(),
            *([(row["system"], row["not_run"])] if "not_run" in row else []),
            *((f"left out of all metrics, {k}", why) for k, why in row.get("left_out", {}).items()),
        ]
    }
    return sorted(missing)
