"""``syncflow evaluate sweep``: which sampling settings are best."""

from __future__ import annotations

import argparse
import json

from syncflow.commands import options

SUMMARY = "compare sampling settings on validation captions"
EXAMPLE = "syncflow evaluate sweep --grid '{\"guidance\": [1, 2]}' --out runs/eval/val"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    options.add_model(parser)
    what = "JSON: option -> values; can be repeated (default: schedule, guidance, steps)"
    add("--grid", type=_grid, action="append", metavar="JSON", help=what)
    add(
        "--clips",
        type=options.count,
        default=64,
        metavar="N",
        help="number of captions (default 64)",
    )
    add(
        "--out",
        default="runs/eval/val",
        metavar="DIR",
        help="output folder (default runs/eval/val)",
    )


def run(args: argparse.Namespace) -> None:
    from syncflow.evaluation.suites import sweep

    sweep.sweep(args.model, clips=args.clips, grid=args.grid, out=args.out)
    print(f"{args.out}/sweep.md")


def _grid(text: str) -> dict[str, list[object]]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(v, list) for v in found.values()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a JSON object of lists")
    return found
