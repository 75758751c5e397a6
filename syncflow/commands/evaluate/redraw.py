"""``syncflow evaluate redraw``: the page of a finished report, drawn again."""

from __future__ import annotations

import argparse
from pathlib import Path

SUMMARY = "redraw the page of a finished report, with curves that were measured separately"
EXAMPLE = "syncflow evaluate redraw runs/eval --out page --calibration curves.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("report", metavar="REPORT", help="folder of a report")
    add("--out", required=True, metavar="DIR", help="output folder")
    what = "what `syncflow evaluate calibrate` wrote; can be repeated"
    add("--calibration", action="append", default=[], metavar="FILE", help=what)
    add("--sweep", metavar="FILE", help="a sweep over guidance (sweep.json)")
    add("--training", metavar="FILE", help="JSON file with validation losses")


def run(args: argparse.Namespace) -> None:
    from syncflow.evaluation.report import redraw

    more = redraw.curves(
        [Path(file) for file in args.calibration],
        Path(args.sweep) if args.sweep else None,
        Path(args.training) if args.training else None,
    )
    print(redraw.redraw(Path(args.report), Path(args.out), more))
