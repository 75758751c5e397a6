"""``syncflow info``: what is installed and what this machine can run, or how a file was made."""

from __future__ import annotations

import argparse
import json

SUMMARY = "show what is installed and what this machine can run, or how a file was made"
EXAMPLE = "syncflow info clip.mp4"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = "a film, sound or picture: what it holds, and the prompt, seed, model and options of it"
    parser.add_argument("file", nargs="?", metavar="FILE", help=what)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--attention",
        action="store_true",
        help="also list the attention backends that are found (takes seconds)",
    )


def run(args: argparse.Namespace) -> None:
    from syncflow import info

    if args.file is not None:
        facts = info.of_file(args.file)
        told = info.file_table(facts)
    else:
        facts = info.collect(attention=args.attention)
        told = info.table(facts)
    print(json.dumps(facts, indent=2) if args.json else told)
