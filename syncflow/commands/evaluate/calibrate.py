"""``syncflow evaluate calibrate``: how the metrics answer to a sound that is moved."""

from __future__ import annotations

import argparse
from pathlib import Path

from syncflow.commands import options
from syncflow.commands.evaluate import scope

SUMMARY = "measure how the metrics answer to sound that is shifted in time (no model is needed)"
EXAMPLE = "syncflow evaluate calibrate --levels 1 --out curves.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    scope.add_captions(parser, 100, "clips per level")
    add("--size", type=options.count, default=64, metavar="PX", help="pixels (default 64)")
    add("--out", metavar="FILE", help="output JSON file")


def run(args: argparse.Namespace) -> None:
    from syncflow.evaluation.report import tables
    from syncflow.evaluation.suites import calibration, systems

    cases = [c for c in systems.cases("test", args.clips, args.levels) if not c.outside]
    clips = [systems.rendered(case, args.size, args.size) for case in cases]
    found = calibration.calibrate(clips)
    name = f"impacts, test split, levels {', '.join(map(str, args.levels))}"
    print(tables.calibration(name, found))
    if args.out:
        tables.write_json(Path(args.out), {"what": name, "size": args.size, **found})
