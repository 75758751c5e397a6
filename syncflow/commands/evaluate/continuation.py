"""``syncflow evaluate continuation``: clips that go on, and sounds drawn anew."""

from __future__ import annotations

import argparse

from syncflow.commands import options
from syncflow.commands.evaluate import scope

SUMMARY = "extend clips and retake sounds, and measure where old and new meet"
EXAMPLE = "syncflow evaluate continuation --clips 40 --out runs/eval/continuation"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add, count = parser.add_argument, options.count
    options.add_model(parser)
    add("--clips", type=count, default=40, metavar="N", help="number of clips (default 40)")
    what = "length to extend them to (default 6)"
    add("--seconds", type=float, default=6.0, metavar="S", help=what)
    scope.add_run(parser)


def run(args: argparse.Namespace) -> None:
    from syncflow.evaluation.times import continuation

    out = args.out or "runs/eval"
    continuation.run(args.model, args.clips, args.seconds, args.split, out, args.seed)
    print(f"{out}/continuation.md")
