"""``syncflow evaluate fit``: the settings of the detectors of contacts and onsets."""

from __future__ import annotations

import argparse
from pathlib import Path

from syncflow.commands import options
from syncflow.commands.evaluate import scope

SUMMARY = "fit the detectors of contacts and onsets on validation clips, or check them"
EXAMPLE = "syncflow evaluate fit --check --levels 1,2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    scope.add_captions(parser, 120, "clips per level")
    add("--trials", type=options.count, default=40, metavar="N", help="search trials (default 40)")
    what = "output JSON file (default: the package's own settings)"
    add("--out", metavar="FILE", help=what)
    add(
        "--check",
        action="store_true",
        help="do not fit; compare the settings in use with the truth",
    )


def run(args: argparse.Namespace) -> None:
    from syncflow.detect.settings import PATH
    from syncflow.evaluation.suites import fit

    if args.check:
        for kind, rows in fit.check(args.clips, args.levels).items():
            for name, row in rows.items():
                values = "  ".join(f"{key} {value:.3g}" for key, value in row.items())
                print(f"{kind:8} {name:9} {values}")
        return
    detectors = fit.fit("val", args.clips, args.levels, args.trials)
    detectors.save(Path(args.out) if args.out else PATH)
    for name, value in detectors.fitted.items():
        print(f"{name}: {value}")
