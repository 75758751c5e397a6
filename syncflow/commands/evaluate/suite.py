"""``syncflow evaluate suite``: every setting that needs no download, as one report."""

from __future__ import annotations

import argparse
from dataclasses import replace

from syncflow.commands import options
from syncflow.commands.evaluate import sync

SUMMARY = "run a whole suite and write a page with players, tables and curves"
EXAMPLE = "syncflow evaluate suite --suite impacts --clips 100 --out report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--suite", choices=("impacts",), default="impacts", help="suite to run (default impacts)")
    sync.add_scope(parser, clips=100)
    count = options.count
    add(
        "--takes",
        type=count,
        default=4,
        metavar="N",
        help="soundtracks per picture in the row that keeps the best (default 4)",
    )
    what = "rendered clips with shifted sound, to see how the metrics answer (default 100)"
    add("--calibrate", type=count, default=100, metavar="N", help=what)
    what = "another model to compare with, e.g. an ablation; can be repeated"
    add("--compare", action="append", default=[], metavar="NAME=MODEL", help=what)
    add("--training", metavar="FILE", help="JSON file with validation losses to plot")


def run(args: argparse.Namespace) -> None:
    from syncflow.evaluation.suites.sync import SUITE

    others = {}
    for text in args.compare:
        name, found, folder = text.partition("=")
        if not (name and found and folder) or name in others:
            raise ValueError(f"--compare takes NAME=MODEL with each name once, got {text!r}")
        others[name] = folder
    scope = replace(
        SUITE,
        takes=args.takes,
        calibrate=args.calibrate,
        compare=others,
        training=args.training,
    )
    sync.measure(args, scope)
