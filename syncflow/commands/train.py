"""``syncflow train``: the tasks of a config file, in one process."""

from __future__ import annotations

import argparse
from pathlib import Path

from syncflow import train

SUMMARY = "train, or go on training, as a config says"
EXAMPLE = "syncflow train --config configs/impacts/stage1.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    train.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if not Path(args.config).is_file():
        raise FileNotFoundError(f"no such config file: '{args.config}'")
    return train.run(args)
