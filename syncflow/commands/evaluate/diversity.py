"""``syncflow evaluate diversity``: how much the clips of one caption differ."""

from __future__ import annotations

import argparse

from syncflow.commands import options
from syncflow.commands.evaluate import scope

SUMMARY = "compare how much the clips of one caption differ with how much real ones do"
EXAMPLE = "syncflow evaluate diversity --clips 48 --draws 4 --out runs/eval/diversity"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add, count = parser.add_argument, options.count
    options.add_model(parser)
    add("--clips", type=count, default=48, metavar="N", help="number of captions (default 48)")
    add("--draws", type=count, default=4, metavar="N", help="clips of each caption (default 4)")
    scope.add_run(parser, batch=16)


def run(args: argparse.Namespace) -> None:
    from syncflow.evaluation.suites import diversity

    out = args.out or "runs/eval"
    diversity.run(args.model, args.clips, args.draws, args.split, out, args.seed, args.batch)
    print(f"{out}/diversity.md")
