"""``syncflow train``: the tasks of a config file, in one process."""

from __future__ import annotations

import argparse
from pathlib import Path

SUMMARY = "train as a config describes, or resume training"
EXAMPLE = "syncflow train --config configs/impacts/stage1.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--config", required=True, metavar="FILE", help="JSON config, e.g. configs/tiny/recipe.json"
    )
    add("--device", help="cpu or cuda (default: a GPU if available)")
    add("--no-progress", action="store_true", help="no progress bars")


def run(args: argparse.Namespace) -> int:
    if not Path(args.config).is_file():
        raise FileNotFoundError(f"there is no config file '{args.config}'")
    from syncflow import train

    options = ["--config", args.config]
    options += ["--device", args.device] if args.device else []
    options += ["--no-progress"] if args.no_progress else []
    return train.main(options)
