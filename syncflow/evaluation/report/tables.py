"""Reports on paper: JSON, Markdown, CSV and a histogram of offsets."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from syncflow import durable
from syncflow.evaluation.report import figures, shapes, table
from syncflow.evaluation.report.table import Cell, cell

#: name in the JSON -> heading, factor, digits.
COLUMNS = {
    "f1_50": ("F1 at 50 ms", 1, 3),
    "f1_100": ("F1 at 100 ms", 1, 3),
    "precision_50": ("precision 50", 1, 3),
    "recall_50": ("recall 50", 1, 3),
    "precision_100": ("precision 100", 1, 3),
    "recall_100": ("recall 100", 1, 3),
    "median_ms": ("median ms", 1, 1),
    "p90_ms": ("p90 ms", 1, 1),
    "bias_ms": ("bias ms", 1, 1),
    "count_picture": ("count, picture", 1, 3),
    "count_sound": ("count, sound", 1, 3),
    "material": ("material", 1, 3),
    "colour": ("colour", 1, 3),
    "kind": ("kind", 1, 3),
    "correlation": ("correlation", 1, 3),
    "loudness": ("loudness dB", 1, 1),
    "whole": ("wholly right", 1, 3),
    "all_matched": ("every event matched", 1, 3),
    "missed": ("contacts unheard a clip", 1, 2),
    "invented": ("onsets unseen a clip", 1, 2),
    "no_contact": ("no contact", 1, 3),
    "lufs": ("loudness LUFS", 1, 1),
    "f1_50_second": ("F1 at 50 ms, second detectors", 1, 3),
    "whole_second": ("wholly right, second detectors", 1, 3),
}
MAIN = ("f1_50", "f1_100", "median_ms", "p90_ms", "bias_ms", "correlation", "count_picture",
        "count_sound", "material", "colour", "kind")  # fmt: skip
BY_CLIP = ("whole", "all_matched", "missed", "invented", "no_contact", "lufs", "whole_second",
           "f1_50_second")  # fmt: skip
_RATES = ("precision_50", "recall_50", "precision_100", "recall_100", "loudness")
READING = (
    "Contacts are found in the picture and onsets in the sound, by detectors that see pixels "
    "and samples only. Precision: share of onsets with a contact; recall: share of contacts "
    "with an onset; one-to-one. Median and p90: distance from every contact to the nearest "
    "onset. Bias: onset minus contact. Correlation: of how much motion turns or ends in the "
    "picture with how much begins in the sound. Count: exactly as many as the caption says, over "
    "the captions that say it. Shuffled: the same clips with each other's soundtracks, averaged "
    "over several shuffles: chance. Silent: no sound at all. Clips in which something sounds that "
    "is not in the picture are left out of every group but their own: no onset of theirs can be "
    "judged. "
    "Wholly right: something touches, contacts and onsets meet one to one within 50 ms with none "
    "left over, and count, material and colour are what the caption names, and what happens where "
    "captions are of several kinds (bounce, strike, roll, splash, pair). Second detectors: the "
    "low point of the largest thing that moves, and librosa's onsets. "
    "Brackets: 95 % bootstrap intervals over clips."
)


def finite(value: object) -> object:
    """The same data with nan and infinity as null, which JSON lacks."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, data: Mapping[str, object]) -> None:
    write_text(path, json.dumps(finite(data), indent=1, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Under a temporary name first: a kill leaves the report of before, never half of one."""
    with durable.replacing(path) as temporary:
        temporary.write_text(text)


def lines(
    rows: Sequence[shapes.Row], columns: Sequence[str], label: str = "system"
) -> list[list[str | Cell]]:
    """Heading and lines of a table; columns that no row has are left out."""
    shown = [name for name in columns if any(name in row for row in rows)]
    out: list[list[str | Cell]] = [[label, "clips", *(COLUMNS[name][0] for name in shown)]]
    for row in rows:
        cells = [cell(row.get(name), COLUMNS[name][2]) for name in shown]
        out.append([row["system"], str(row["clips"]), *cells])
    return out


def markdown(rows: Sequence[shapes.Row], columns: Sequence[str], label: str = "system") -> str:
    """A table with ``value [low, high]`` in every cell."""
    return table.markdown(lines(rows, columns, label))


def fidelity(found: dict[str, dict[str, float]]) -> list[list[str | Cell]]:
    """Heading and lines of what both VAEs cost."""
    heads = ["through both VAEs", "clips", "PSNR dB", "spectral distance dB"]
    out: list[list[str | Cell]] = [[*heads]]
    for name, row in found.items():
        out.append([name, str(row["clips"]), cell(row["psnr"], 2), cell(row["spectral_db"], 2)])
    return out


def write_markdown(path: Path, report: shapes.Sync) -> None:
    """The report as a page: what was run, the table of every group, what the words mean."""
    facts = "\n".join(f"- {key}: {value}" for key, value in report["facts"].items())
    parts = [f"# Sync and prompt adherence\n\n{facts}\n"]
    for group in dict.fromkeys(row["group"] for row in report["rows"]):
        rows = [row for row in report["rows"] if row["group"] == group]
        shown = "\n".join(markdown(rows, columns) for columns in (BY_CLIP, MAIN, _RATES))
        parts.append(f"## {group}\n\n{shown}")
    if report.get("fidelity"):
        parts.append("## VAE fidelity\n\n" + table.markdown(fidelity(report["fidelity"])))
    if report.get("recordings"):
        parts.append(
            "## Recordings with written-down events\n\n" + markdown(report["recordings"], MAIN)
        )
    for name, found in report.get("calibration", {}).items():
        parts.append(calibration(name, found))
    if report.get("notes"):
        notes = "\n".join(f"- {name}: {text}" for name, text in report["notes"].items())
        parts.append(f"## What was not run, and why\n\n{notes}\n")
    detectors = json.dumps(finite(report["detectors"]), ensure_ascii=False)
    parts.append(
        f"## How to read this\n\n{READING}\n\n"
        f"The detectors against the renderer's own times on the real clips: `{detectors}`\n"
    )
    write_text(path, "\n".join(parts))


def calibration(name: str, found: shapes.Calibration) -> str:
    """The response curves as a table, a column per offset that is a multiple of 100 ms."""
    shown = [i for i, ms in enumerate(found["offsets_ms"]) if ms % 100 == 0]
    offsets = [f"{found['offsets_ms'][i]:+d}" for i in shown]
    rows: list[list[str | Cell]] = [
        [
            "metric",
            *offsets,
            "other soundtracks",
            "silence",
            "notices early, late from ms",
            "verdict",
        ]
    ]
    for metric in found["metrics"].values():
        digits = 3 if metric["better"] == "high" else 0
        cells: list[str | Cell] = [f"{metric['curve'][i][0]:.{digits}f}" for i in shown]
        cells += [cell(metric[key], digits) for key in ("shuffled", "silent")]
        cells.append(", ".join(str(v) if v else "-" for v in metric["resolution_ms"]))
        cells.append("fit" if metric["fit"] else f"unfit: {metric['why']}")
        rows.append([metric["label"], *cells])
    return (
        f"## How good the metrics are: {name}\n\n"
        f"The sound of {found['clips']} real clips moved by so many ms (positive: late).\n\n"
        + table.markdown(rows)
    )


#: What spreadsheets take for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@")


def csv_cell(text: str) -> str:
    """Text that no spreadsheet runs: an apostrophe goes before what would be a formula, and before
    what would be one without its apostrophe."""
    return f"'{text}" if _runs(text.lstrip("'")) else text


def csv_text(cell: str) -> str:
    """What ``csv_cell`` was given."""
    return cell[1:] if cell.startswith("'") and _runs(cell.lstrip("'")) else cell


def _runs(text: str) -> bool:
    return text.lstrip().startswith(_FORMULA)


def write_csv(path: Path, records: Sequence[shapes.Row]) -> None:
    """One line per clip and system; times in seconds, separated by blanks. Cells of text are
    ``csv_cell``s."""

    def cell(value: object) -> object:
        if isinstance(value, list):
            return " ".join(f"{t:.4f}" for t in value)
        return csv_cell(value) if isinstance(value, str) else value

    with durable.replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        for record in records:
            writer.writerow({key: cell(value) for key, value in record.items()})


def losses(file: str | Path) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Validation losses by run: name -> loss -> (step, value)."""
    data = json.loads(Path(file).read_text())
    curves: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for run_name, losses in data["runs"].items():
        lines: dict[str, list[tuple[float, float]]] = {}
        for entry in losses["validation"]:
            for name in ("video", "audio_same", "audio_clean", "audio_other"):
                if f"val_{name}" in entry:
                    point = (entry["step"], entry[f"val_{name}"])
                    lines.setdefault(name.replace("_", " "), []).append(point)
        if any(len(points) > 1 for points in lines.values()):
            curves[run_name] = lines
    return curves


def histogram(
    path: Path, offsets: dict[str, np.ndarray], limit_ms: float = 250, bin_ms: float = 10
) -> None:
    """PNG of signed offsets (s) of several systems, one band each; beyond the limit they are piled
    up in the last bins."""
    from PIL import Image, ImageDraw, ImageFont

    bins = len(figures.binned([], limit_ms, bin_ms)[0])
    bar, band, margin = 12, 90, 24
    width, height = bins * bar + 2 * margin, len(offsets) * (band + 30) + 40
    image = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=13)
    for index, (name, values) in enumerate(offsets.items()):
        bottom = (index + 1) * (band + 30)
        values = values[np.isfinite(values)] * 1000
        counts, _ = figures.binned(values, limit_ms, bin_ms)
        draw.text((margin, bottom - band - 24), f"{name} ({len(values)} contacts)", "black", font)
        for i, count in enumerate(counts):
            left = margin + i * bar
            tall = round(band * count / max(1, counts.max()))
            draw.rectangle((left, bottom - tall, left + bar - 2, bottom), fill=(31, 90, 220))
        draw.line((margin, bottom, width - margin, bottom), "black")
        draw.line((width // 2, bottom - band, width // 2, bottom), (214, 39, 40))
    for share in (0, 0.25, 0.5, 0.75, 1):
        label = f"{(2 * share - 1) * limit_ms:+.0f} ms"
        x = margin + share * bins * bar
        draw.text((x, height - 30), label, "black", font, anchor="ma" if 0 < share < 1 else
                  ("la" if share == 0 else "ra"))  # fmt: skip
    with durable.replacing(path) as temporary:
        image.save(temporary)
