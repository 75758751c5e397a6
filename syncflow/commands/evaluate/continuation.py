"""``syncflow evaluate continuation``: clips that go on, and sounds drawn anew."""

from __future__ import annotations

import argparse

from syncflow.commands import options

SUMMARY = "extend clips and retake sounds, and measure the seams and what is new"
EXAMPLE = "syncflow evaluate continuation --clips 40 --out runs/eval/continuation"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add, count = parser.add_argument, options.count
    add("--model", help="a model folder or hub id (default: the model in the package)")
    add("--clips", type=count, default=40, metavar="N", help="number of clips (default 40)")
    what = "length to extend them to (default 6)"
    add("--seconds", type=float, default=6.0, metavar="S", help=what)
    add("--split", choices=("val", "test"), default="test", help="split of impacts (default test)")
    add("--out", metavar="DIR", help="folder for the report (default runs/eval)")
    add("--seed", type=options.seed, default=0, help="seed of the first clip (default 0)")


def run(args: argparse.Namespace) -> None:
    from syncflow.evaluation.suites import continuation

    out = args.out or "runs/eval"
    continuation.run(args.model, args.clips, args.seconds, args.split, out, args.seed)
    print(f"{out}/continuation.md")
