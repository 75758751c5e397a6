"""Writes a report's numbers into the README and the docs, between their HTML comments.

python tools/update_numbers.py runs/eval/test/report.json
python tools/update_numbers.py runs/eval/test/report.json --sweep runs/eval/val/sweep.json
python tools/update_numbers.py runs/eval/test/report.json --page card.md   # another page

A page may hold `<!-- numbers:begin -->` ... `<!-- numbers:end -->` and the same with `sweep`. What
stands between is replaced; nothing is rounded up, and what a report lacks is left out.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from syncflow.evaluation.report.table import cell

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs" / "training.md")

#: Key in a row -> heading and digits.
COLUMNS = {
    "f1_50": ("F1 at 50 ms", 3),
    "f1_100": ("F1 at 100 ms", 3),
    "median_ms": ("median ms", 1),
    "p90_ms": ("p90 ms", 1),
    "count_picture": ("count, picture", 2),
    "count_sound": ("count, sound", 2),
    "material": ("material", 2),
    "colour": ("colour", 2),
}
_FACTS = ("date", "clips", "size", "model", "weights", "sampling", "seed", "seconds a clip",
          "machine", "command")  # fmt: skip
_LEGEND = (
    "Brackets are 95 % bootstrap intervals over clips. F1: contacts found in the picture against "
    "onsets found in the sound, one to one. Median and p90: distance from a contact to the nearest "
    "onset. Count, material, colour: the share of captions for which what they say is found. "
    "Shuffled: soundtracks of other clips, which is chance."
)


def table(rows: list[dict[str, Any]], label: str) -> str:
    """A Markdown table of the columns that any row has."""
    shown = [key for key in COLUMNS if any(row.get(key) is not None for row in rows)]
    lines = ["| " + " | ".join([label, "clips", *(COLUMNS[key][0] for key in shown)]) + " |"]
    lines.append("|---" * (len(shown) + 2) + "|")
    for row in rows:
        cells = [str(row.get("system", "-")), str(row.get("clips", "-"))]
        cells += [cell(row.get(key), COLUMNS[key][1]).markdown() for key in shown]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def facts(report: dict[str, Any]) -> str:
    """The circumstances of a measurement, one a line."""
    known = report.get("facts") or {}
    return "\n".join(f"- {name}: {known[name]}" for name in _FACTS if known.get(name) is not None)


def numbers(report: dict[str, Any]) -> str:
    """The block `numbers`: a table for all clips and one for every level."""
    rows = report.get("rows") or []
    groups = dict.fromkeys(row.get("group", "all clips") for row in rows)
    parts = []
    for group in groups:
        if group == "all clips" or str(group).startswith("level"):
            own = [row for row in rows if row.get("group", "all clips") == group]
            parts.append(f"**{str(group).capitalize()}**\n\n{table(own, 'system')}")
    if not parts:
        raise ValueError("the report has no rows for all clips or for a level")
    return "\n\n".join([*parts, _LEGEND, *fidelity(report), facts(report)]).strip()


def fidelity(report: dict[str, Any]) -> list[str]:
    """What both VAEs cost, on the world's clips and on other media, where it was measured."""
    rows = (report.get("fidelity") or {}).items()
    if not rows:
        return []
    lines = ["| through both VAEs | clips | PSNR dB | spectral distance dB |", "|---" * 4 + "|"]
    for name, row in rows:
        values = [cell(row.get(key), 1).markdown() for key in ("psnr", "spectral_db")]
        lines.append(f"| {name} | {row.get('clips', '-')} | {' | '.join(values)} |")
    return ["\n".join(lines)]


def sweep(report: dict[str, Any]) -> str:
    """The block `sweep`: every combination of settings, best first as in the report."""
    rows = report.get("rows") or []
    if not rows:
        raise ValueError("the sweep has no rows")
    best = ", ".join(f"{key} {value}" for key, value in (report.get("best") or {}).items())
    parts = [f"Best: {best}."] if best else []
    return "\n\n".join([*parts, table(rows, "settings"), facts(report)]).strip()


def fill(page: str, name: str, text: str) -> tuple[str, int]:
    """The page with ``text`` between the comments of block ``name``, and how often it has it."""
    pattern = rf"(<!-- {name}:begin -->\n).*?(\n?<!-- {name}:end -->)"
    return re.subn(pattern, lambda m: f"{m[1]}{text}\n<!-- {name}:end -->", page, flags=re.S)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, help="report.json of `syncflow evaluate sync`")
    parser.add_argument("--sweep", type=Path, help="sweep.json of the same with --sweep")
    parser.add_argument("--page", type=Path, nargs="+", default=PAGES, help="pages to fill")
    args = parser.parse_args(argv)
    try:
        report = json.loads(args.report.read_text())
        blocks = {"numbers": numbers(report)}
        if args.sweep or report.get("sweep"):
            found = json.loads(args.sweep.read_text()) if args.sweep else report["sweep"]
            blocks["sweep"] = sweep(found)
        filled = dict.fromkeys(blocks, 0)
        pages = {}
        for path in args.page:
            text = path.read_text()
            for name, block in blocks.items():
                text, times = fill(text, name, block)
                filled[name] += times
            pages[path] = text
        missing = [name for name, times in filled.items() if not times]
        if missing:
            raise ValueError(f"no page has the comments of: {', '.join(missing)}")
    except (OSError, ValueError) as error:
        print(f"update_numbers: {error}", file=sys.stderr)
        return 2
    for path, text in pages.items():
        if text != path.read_text():
            path.write_text(text)
            print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
