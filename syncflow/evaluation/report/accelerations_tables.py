"""The report on accelerations as tables: verdicts, figures, and the rule."""

from __future__ import annotations

from math import isfinite

from syncflow.evaluation.report import shapes, table
from syncflow.evaluation.report.table import Cell

#: Key of a row -> heading, digits. The verdicts stand before them; of the two times that is shown
#: which the cells are compared by.
COLUMNS = {
    "processor_seconds": ("processor s a clip", 3),
    "seconds": ("s a clip", 3),
    "faster": ("times faster", 2),
    "passes": ("passes of the video tower", 1),
    "f1_50": ("F1 at 50 ms", 3),
    "bias_ms": ("bias ms", 1),
    "whole": ("wholly right", 3),
    "spectral_db": ("spectral distance dB", 1),
    "loudness_lu": ("louder LU", 1),
    "psnr": ("PSNR dB", 1),
    "diversity_picture": ("diversity, picture", 2),
    "diversity_sound": ("diversity, sound", 2),
}
#: What the verdicts are made of.
CHANGES = {
    "picture_right_change": ("picture right", 3),
    "psnr_excess": ("PSNR beyond another seed's, dB", 1),
    "detail_db": ("detail, dB", 2),
    "material_change": ("material", 3),
    "spectral_excess": ("spectral distance beyond another seed's", 3),
    "f1_50_change": ("F1 at 50 ms", 3),
    "whole_change": ("wholly right", 3),
    "bias_ms_change": ("bias, ms", 1),
}
READING = (
    "All beside the full run, with the same captions and seeds; brackets are 95 % bootstrap "
    "intervals over captions. A criterion passes if its interval lies inside its range, fails if "
    "it lies outside, and is undecided in between; a modality passes if all of its criteria do. "
    "Passes: rows through the whole video tower a clip, every caption of a guided step one."
)


def lines(report: shapes.Accelerations) -> list[list[str | Cell]]:
    """Heading and lines of the main table."""
    names = list(dict.fromkeys(item["modality"] for item in report["rule"]))
    other = "processor_seconds" if report.get("clock") == "seconds" else "seconds"
    shown = {key: column for key, column in COLUMNS.items() if key != other}
    heads: list[str | Cell] = ["cell", *names, *(head for head, _ in shown.values())]
    return [
        heads,
        *(
            [
                row["cell"],
                *(row["verdicts"].get(name, "-") for name in names),
                *(table.cell(row.get(key), digits) for key, (_, digits) in shown.items()),
            ]
            for row in report["rows"]
        ),
    ]


def changes(report: shapes.Accelerations) -> list[list[str | Cell]]:
    """Heading and lines of what the verdicts are made of and the main table has not."""
    return [
        ["cell, change from the full run", *(head for head, _ in CHANGES.values())],
        *(
            [
                row["cell"],
                *(table.cell(row.get(key), digits) for key, (_, digits) in CHANGES.items()),
            ]
            for row in report["rows"][1:]
        ),
    ]


def rule(report: shapes.Accelerations) -> list[list[str | Cell]]:
    """Heading and lines of the rule."""
    out: list[list[str | Cell]] = [["criterion", "modality", "at least", "at most"]]
    for item in report["rule"]:
        ends = [
            f"{end:g}" if isinstance(end, (int, float)) and isfinite(end) else "-"
            for end in item["range"]
        ]
        out.append([item["what"], item["modality"], *ends])
    return out


def conclusion(report: shapes.Accelerations) -> str:
    """What is recommended, in a sentence."""
    keys = ("recommended", "recommended for the folder", "written")
    # What is missing is infinite in a report that was read again.
    found, held, written = (
        value if isinstance(value, str) else None for value in map(report.get, keys)
    )
    if found is None:
        return "No cell passes in all modalities and is faster than the full run."
    text = f"Recommended, the fastest that passes in all modalities: {found}."
    if held != found:
        text += f" The fastest that a model folder can hold: {held or 'none'}."
    if written:
        text += f" Written into the model's config: {written}."
    return text


def markdown(report: shapes.Accelerations) -> str:
    """The page without players."""
    facts = "\n".join(f"- {key}: {value}" for key, value in report["facts"].items())
    missing = "\n".join(f"- {item['cell']}: {item['why']}" for item in report["not_run"])
    parts = [
        f"# Accelerations\n\n{facts}\n\n{conclusion(report)}\n",
        table.markdown(lines(report)),
        table.markdown(changes(report)),
        READING + "\n",
        f"## The rule\n\n{table.markdown(rule(report))}",
        f"## Not run\n\n{missing}\n" if missing else "",
    ]
    return "\n".join(part for part in parts if part)
