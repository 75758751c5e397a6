"""``syncflow evaluate sync``: sound against picture, in milliseconds."""

from __future__ import annotations

import argparse

from syncflow import arguments

SUMMARY = "measure when the sound happens against when the picture says so"
EXAMPLE = "syncflow evaluate sync --clips 200 --split test --out report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", help="a model folder or hub id (default: the model in the package)")
    count = arguments.count
    add("--clips", type=count, default=200, metavar="N", help="captions per level (default 200)")
    add("--levels", type=arguments.levels, default=[1], metavar="L,L", help="levels (default 1)")
    add("--split", choices=("val", "test"), default="test")
    add("--out", metavar="DIR", help="folder for the report")
    add("--seed", type=arguments.seed, default=0)
    add("--batch", type=count, default=8, metavar="N", help="clips made at once (default 8)")
    add("--real-media", nargs="+", metavar="FILE", help="ordinary clips through the VAEs as well")
    add("--sweep", action="store_true", help="also sweep guidance, steps and schedule (use val)")
    arguments.add_sampling(parser)


def run(args: argparse.Namespace) -> None:
    from syncflow.evaluation import report

    report.run(
        model=args.model,
        clips=args.clips,
        levels=args.levels,
        split=args.split,
        out=args.out,
        seed=args.seed,
        batch=args.batch,
        sweep=args.sweep,
        real_media=args.real_media,
        **{name: getattr(args, name) for name in report.OPTIONS},
    )
