"""``syncflow evaluate accelerations``: which faster settings keep picture, sound and sync."""

from __future__ import annotations

import argparse

from syncflow.commands import options

SUMMARY = "judge faster settings (steps, cache, dtype ...) by picture, sound and sync"
EXAMPLE = "syncflow evaluate accelerations --grid steps=10,20 cache=off,both --out runs/eval/fast"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add, count = parser.add_argument, options.count
    add("--model", help="a model folder or hub id (default: the model in the package)")
    what = (
        "axes whose combinations are tried: options of generate, dtype=fp32,bf16,int8 (or "
        "int8:video, int8:audio), compile=off,on, guidance-interval=0.1-0.6; can be repeated "
        "(default: a few of each)"
    )
    add("--grid", type=_axis, nargs="+", action="append", metavar="NAME=V,V", help=what)
    add("--clips", type=count, default=48, metavar="N", help="captions per level (default 48)")
    add("--seeds", type=count, default=2, metavar="N", help="clips of a caption (default 2)")
    what = "levels of impacts, e.g. 1,2 (default 1)"
    add("--levels", type=options.levels, default=[1], metavar="L,L", help=what)
    add("--split", choices=("val", "test"), default="val", help="split of impacts (default val)")
    what = "folder for the report (default runs/eval/accelerations)"
    add("--out", metavar="DIR", help=what)
    add("--seed", type=options.seed, default=0, help="seed of the first clip (default 0)")
    add("--batch", type=count, default=16, metavar="N", help="clips per batch (default 16)")
    what = "clips of every cell on the page, the worst first (default 3)"
    add("--players", type=count, default=3, metavar="N", help=what)
    what = "put the recommended setting into the config of the model folder"
    add("--write", action="store_true", help=what)


def run(args: argparse.Namespace) -> None:
    grids = [_grid(axes) for axes in args.grid or []]
    from syncflow.evaluation.report import accelerations_tables
    from syncflow.evaluation.suites import accelerations

    out = args.out or "runs/eval/accelerations"
    report = accelerations.run(
        args.model,
        grids or accelerations.GRIDS,
        args.clips,
        args.seeds,
        args.split,
        out,
        args.seed,
        args.batch,
        levels=args.levels,
        write=args.write,
        players=args.players,
    )
    print(accelerations_tables.conclusion(report))
    print(f"{out}/index.html")


def _axis(text: str) -> tuple[str, list[str]]:
    name, equals, values = text.partition("=")
    found = values.split(",")
    if not (name and equals and all(found)):
        raise argparse.ArgumentTypeError(f"{text!r} is no axis such as steps=4,8")
    return name, found


def _grid(axes: list[tuple[str, list[str]]]) -> dict[str, list[str]]:
    names = [name for name, _ in axes]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"a grid names {twice[0]} twice; give one list, or another --grid")
    return dict(axes)
