"""``syncflow train``: the tasks of a config file, in one process."""

from __future__ import annotations

import argparse

from syncflow import train

SUMMARY = "train as a config describes, or resume training"
EXAMPLE = "syncflow train --config configs/impacts/stage1.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    train.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from syncflow.config import find_config

    if not find_config(args.config).is_file():
        raise FileNotFoundError(f"there is no config file '{args.config}'")
    return train.run(args)
