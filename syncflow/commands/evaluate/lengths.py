"""``syncflow evaluate lengths``: which sync metric is fit for clips of which length."""

from __future__ import annotations

import argparse

from syncflow.commands import options

SUMMARY = "measure which sync metric is fit for clips of which length (no model is needed)"
EXAMPLE = "syncflow evaluate lengths --seconds 2,3,5,8 --out runs/eval/lengths"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add, count = parser.add_argument, options.count
    add(
        "--clips",
        type=count,
        default=32,
        metavar="N",
        help="clips per level and length (default 32)",
    )
    what = "lengths in seconds (default 2,3,5,8)"
    add("--seconds", type=options.times, default=[2.0, 3.0, 5.0, 8.0], metavar="S,S", help=what)
    what = "levels of impacts, e.g. 1,2 (default 1)"
    add("--levels", type=options.levels, default=[1], metavar="L,L", help=what)
    add("--size", type=count, default=64, metavar="PX", help="pixels (default 64)")
    what = "the network of DeSync, a TorchScript file; without it DeSync is not run"
    add("--synchformer", metavar="FILE", help=what)
    what = "run it: TorchScript files are programs that may do what you may"
    add("--allow-torchscript", action="store_true", help=what)
    add("--out", metavar="DIR", help="folder for the report (default runs/eval)")
    add("--seed", type=options.seed, default=0, help="seed of the moves (default 0)")


def run(args: argparse.Namespace) -> None:
    from syncflow.evaluation import lengths

    out = args.out or "runs/eval"
    lengths.run(
        args.clips,
        args.seconds,
        args.levels,
        out,
        args.seed,
        size=args.size,
        synchformer=args.synchformer,
        allow_torchscript=args.allow_torchscript,
    )
    print(f"{out}/lengths.md")
