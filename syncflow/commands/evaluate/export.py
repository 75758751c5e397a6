"""``syncflow evaluate export``: clips in the folders that other people's benchmarks read."""

from __future__ import annotations

import argparse

from syncflow.commands import options
from syncflow.sampling import OPTIONS

SUMMARY = "make clips in the folder layout of JavisBench or T2AV-Compass, for their scores"
EXAMPLE = "syncflow evaluate export --layout javisbench --prompts JavisBench-mini.csv --out samples"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add, count = parser.add_argument, options.count
    options.add_model(parser)
    what = "whose folders: sample_0000.mp4 and .wav by row, or sample_0001.mp4 by index"
    add("--layout", required=True, choices=("javisbench", "t2av-compass"), help=what)
    what = "the benchmark's list of prompts: a CSV with a column text, or prompts.json "
    what += "(default: captions of impacts, with a list and real clips)"
    add("--prompts", metavar="FILE", help=what)
    what = "only the first N prompts (default: all of FILE, or 100 captions per level)"
    add("--clips", type=count, metavar="N", help=what)
    what = "levels of impacts, e.g. 1,2 (default 1)"
    add("--levels", type=options.levels, default=[1], metavar="L,L", help=what)
    what = "length of the clips (default: the model's)"
    add("--seconds", type=options.seconds, metavar="S", help=what)
    what = "output folder (default runs/share)"
    add("--out", default="runs/share", metavar="DIR", help=what)
    add("--seed", type=options.seed, default=0, help="seed of the first clip (default 0)")
    add("--batch", type=count, default=8, metavar="N", help="clips generated per batch (default 8)")
    options.add_sampling(parser)


def run(args: argparse.Namespace) -> None:
    from syncflow.evaluation import sharing

    asked = {name: getattr(args, name) for name in (*OPTIONS, "seconds")}
    made, there = sharing.run(
        args.layout,
        args.model,
        args.prompts,
        args.out,
        args.clips,
        args.levels,
        args.seed,
        args.batch,
        options={name: value for name, value in asked.items() if value is not None},
    )
    print(f"{args.out}: {made} clips made, {there} were there")
