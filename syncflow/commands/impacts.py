"""``syncflow data impacts``: clips of the synthetic world."""

from __future__ import annotations

import argparse

from syncflow.commands import options

SUMMARY = "render clips of the synthetic world, with captions and exact contact times"
EXAMPLE = "syncflow data impacts --out data/train --clips 1000 --seed 0 --level 1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--out", required=True, metavar="DIR", help="output folder; rerun the command to resume")
    add("--clips", type=options.count, required=True, metavar="N", help="number of clips")
    add(
        "--seed",
        type=options.seed,
        default=0,
        help="the same seed gives the same clips (default 0)",
    )
    what = "1: a bouncing ball (default); 2: more shapes and materials, struck too; 3: rolling, "
    what += "splashing, pairs; 4: moving cameras, and sounds from outside the picture"
    add("--level", type=int, choices=(1, 2, 3, 4), default=1, help=what)
    add("--split", choices=("train", "val", "test"), default="train", help="default train")
    add("--size", type=options.count, metavar="PX", help="height and width in pixels (default 64)")
    add("--height", type=options.count, metavar="PX", help="in place of --size")
    add("--width", type=options.count, metavar="PX", help="in place of --size")
    add("--fps", type=options.positive, help="frames per second (default 16)")
    add("--seconds", type=options.positive, help="length of a clip in seconds (default 2)")
    add(
        "--sample-rate", type=options.count, metavar="HZ", help="audio sample rate (default 48 kHz)"
    )
    add("--workers", type=options.count, help="processes (default: one per core)")
    add(
        "--container",
        choices=("mp4", "shards"),
        default="mp4",
        help="shards are what training reads",
    )
    add("--no-progress", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> None:
    from syncflow.data import impacts_dataset

    rates = {name: getattr(args, name) for name in ("fps", "seconds", "sample_rate")}
    impacts_dataset.write_dataset(
        args.out,
        args.clips,
        args.seed,
        args.level,
        split=args.split,
        height=args.height or args.size or 64,
        width=args.width or args.size or 64,
        workers=args.workers,
        container=args.container,
        progress=not args.no_progress,
        **{name: value for name, value in rates.items() if value is not None},
    )
    print(args.out)
