"""Writes a report's numbers into the README and the docs, between their HTML comments.

python tools/update_numbers.py runs/eval/test/report.json
python tools/update_numbers.py runs/eval/test/report.json --sweep runs/eval/val/sweep.json
python tools/update_numbers.py runs/eval/test/report.json --page card.md   # another page

A page may hold `<!-- numbers:begin -->` ... `<!-- numbers:end -->` and the same with `headline` and
`sweep`. What stands between is replaced; nothing is rounded up, what a report lacks is left out.
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
PAGES = (ROOT / "README.md", ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "training.md")

#: Key in a row -> heading and digits.
COLUMNS = {
    "whole": ("wholly right", 3),
    "f1_50": ("F1 at 50 ms", 3),
    "f1_100": ("F1 at 100 ms", 3),
    "median_ms": ("median ms", 1),
    "p90_ms": ("p90 ms", 1),
    "count_picture": ("count, picture", 2),
    "count_sound": ("count, sound", 2),
    "material": ("material", 2),
    "colour": ("colour", 2),
    "missed": ("contacts unheard a clip", 2),
    "invented": ("onsets unseen a clip", 2),
    "no_contact": ("no contact", 3),
    "lufs": ("LUFS", 1),
    "whole_second": ("wholly right, second detectors", 3),
    "f1_50_second": ("F1 at 50 ms, second detectors", 3),
}
_FACTS = ("date", "clips", "size", "model", "weights", "sampling", "seed", "seconds a clip",
          "machine", "command")  # fmt: skip
_LEGEND = (
    "Brackets are 95 % bootstrap intervals over clips. Wholly right: the share of clips in which "
    "contacts and onsets meet one to one within 50 ms, none left over, and count, material and "
    "colour are what the caption says. Second detectors: the low point of the largest moving "
    "thing, and librosa's onsets. F1: contacts found in the picture against "
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


def headline(report: dict[str, Any]) -> str:
    """The sentence of the README; empty where the report has no such rows."""
    rows = {row.get("system"): row for row in report.get("rows") or [] if _is_whole(row)}
    made, chance = rows.get("generated", {}), rows.get("generated, shuffled", {})
    if made.get("f1_50") is None or chance.get("f1_50") is None:
        return ""
    value, least = (cell(row["f1_50"], 3).markdown() for row in (made, chance))
    whole = ""
    if made.get("whole") is not None:
        whole = (
            f"the share of clips that are wholly right (every contact seen has its sound within 50 "
            f"ms, none is left over, and count, material and colour are what the prompt says) is "
            f"{cell(made['whole'], 3).markdown()}. "
        )
    return (
        f"{whole}F1 between visible contacts and audible onsets is {value} within 50 ms; shuffled "
        f"soundtracks, which is chance, reach {least.split(' ')[0]}."
    )


def _is_whole(row: dict[str, Any]) -> bool:
    return row.get("group", "all clips") == "all clips"


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
    end = f"<!-- {name}:end -->"
    pattern = rf"(<!-- {name}:begin -->)(\n?).*?{end}"
    return re.subn(pattern, lambda m: f"{m[1]}{m[2]}{text}{m[2]}{end}", page, flags=re.S)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, help="report.json of `syncflow evaluate sync`")
    parser.add_argument("--sweep", type=Path, help="sweep.json of the same with --sweep")
    parser.add_argument("--page", type=Path, nargs="+", default=PAGES, help="pages to fill")
    args = parser.parse_args(argv)
    try:
        report = json.loads(args.report.read_text())
        blocks = {"numbers": numbers(report)}
        optional = {"headline": headline(report)}
        if args.sweep or report.get("sweep"):
            found = json.loads(args.sweep.read_text()) if args.sweep else report["sweep"]
            blocks["sweep"] = sweep(found)
        filled = dict.fromkeys(blocks, 0)
        pages = {}
        for path in args.page:
            text = path.read_text()
            for name, block in (blocks | optional).items():
                text, times = fill(text, name, block) if block else (text, 0)
                filled[name] = filled.get(name, 0) + times
            pages[path] = text
        missing = [name for name in blocks if not filled[name]]
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
