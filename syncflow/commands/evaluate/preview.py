"""``syncflow evaluate preview``: fits what shows a clip while it is drawn, and measures it."""

from __future__ import annotations

import argparse

from syncflow.commands import options

SUMMARY = "fit the map that shows a clip while it is drawn, and measure it"
EXAMPLE = "syncflow evaluate preview --model runs/model --write"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add, count = parser.add_argument, options.count
    options.add_model(parser)
    what = "drawn clips per level that it is fitted to (default 64)"
    add("--fit-clips", type=count, default=64, metavar="N", help=what)
    what = "films or folders of films that it is fitted to as well"
    add("--videos", nargs="+", default=(), metavar="FILE", help=what)
    what = "captions per level that it is measured on (default 16)"
    add("--clips", type=count, default=16, metavar="N", help=what)
    what = "levels of impacts, e.g. 1,2 (default 1)"
    add("--levels", type=options.levels, default=[1], metavar="L,L", help=what)
    add("--every", type=count, default=5, metavar="N", help="steps between previews (default 5)")
    add("--out", metavar="DIR", help="folder for the report (default runs/eval)")
    add("--seed", type=options.seed, default=0, help="seed of the first clip (default 0)")
    add("--write", action="store_true", help="put the map into the model folder")


def run(args: argparse.Namespace) -> None:
    from syncflow.evaluation import previews

    out = args.out or "runs/eval"
    previews.run(
        args.model,
        args.fit_clips,
        args.clips,
        args.levels,
        out,
        args.seed,
        every=args.every,
        videos=args.videos,
        write=args.write,
    )
    print(f"{out}/preview.md")
