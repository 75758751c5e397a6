"""``syncflow evaluate contacts``: things touch when they are asked to."""

from __future__ import annotations

import argparse

from syncflow.commands import options
from syncflow.commands.evaluate import scope

SUMMARY = "ask for the times of contacts, and measure whether they are seen and heard then"
EXAMPLE = "syncflow evaluate contacts --model runs/told --clips 200 --out runs/eval/contacts"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add, count = parser.add_argument, options.count
    options.add_model(parser)
    add("--clips", type=count, default=200, metavar="N", help="number of scenes (default 200)")
    scope.add_run(parser, batch=16)


def run(args: argparse.Namespace) -> None:
    from syncflow.evaluation.times import asked

    out = args.out or "runs/eval"
    asked.run(args.model, args.clips, args.split, out, args.seed, args.batch)
    print(f"{out}/contacts.md")
