"""``syncflow info``: what is installed and what this machine can run."""

from __future__ import annotations

import argparse
import json

SUMMARY = "show what is installed and what this machine can run"
EXAMPLE = "syncflow info --json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--attention",
        action="store_true",
        help="also list the attention backends that are found (takes seconds)",
    )


def run(args: argparse.Namespace) -> None:
    from syncflow import info

    facts = info.collect(attention=args.attention)
    print(json.dumps(facts, indent=2) if args.json else info.table(facts))
