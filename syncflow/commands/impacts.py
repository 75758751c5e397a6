"""``syncflow data impacts``: clips of the synthetic world."""

from __future__ import annotations

import argparse

from syncflow.commands import options

SUMMARY = "render clips of the synthetic world, with captions and exact contact times"
EXAMPLE = "syncflow data impacts --out data/train --clips 1000 --seed 0 --level 1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--out", required=True, metavar="DIR", help="the folder to write")
    add("--clips", type=options.count, required=True, metavar="N", help="how many")
    add("--seed", type=options.seed, default=0, help="same seed, same clips (default 0)")
    add("--level", type=int, choices=(1, 2, 3, 4), default=1, help="1: one bouncing object")
    add("--split", choices=("train", "val", "test"), default="train")
    add("--size", type=options.count, metavar="PX", help="height and width in one (default 64)")
    add("--height", type=options.count, metavar="PX")
    add("--width", type=options.count, metavar="PX")
    add("--fps", type=options.positive, default=16.0, help="default 16")
    add("--seconds", type=options.positive, default=2.0, help="default 2")
    add("--sample-rate", type=options.count, default=48000, metavar="HZ", help="default 48000")
    add("--workers", type=options.count, help="processes (default: one per core)")
    add("--container", choices=("mp4", "shards"), default="mp4")
    add("--no-progress", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> None:
    from syncflow.data import impacts_dataset

    impacts_dataset.write_dataset(
        args.out,
        args.clips,
        args.seed,
        args.level,
        split=args.split,
        height=args.height or args.size or 64,
        width=args.width or args.size or 64,
        fps=args.fps,
        seconds=args.seconds,
        sample_rate=args.sample_rate,
        workers=args.workers,
        container=args.container,
        progress=not args.no_progress,
    )
    print(args.out)
