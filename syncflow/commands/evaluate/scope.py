"""On which clips of impacts a measurement is made: the options that its commands share."""

from __future__ import annotations

import argparse

from syncflow.commands import options


def add_captions(
    parser: argparse.ArgumentParser, clips: int, what: str = "captions per level"
) -> None:
    """``--clips`` and ``--levels``; ``clips`` is the default, ``what`` is counted."""
    add = parser.add_argument
    text = f"{what} (default {clips})"
    add("--clips", type=options.count, default=clips, metavar="N", help=text)
    text = "levels of impacts, the synthetic world, from 1 to 4, e.g. 1,2 (default 1)"
    add("--levels", type=options.levels, default=[1], metavar="L,L", help=text)


def add_split(parser: argparse.ArgumentParser) -> None:
    """``--split``: of which clips a model learned nothing."""
    what = "split of impacts (default test)"
    parser.add_argument("--split", choices=("val", "test"), default="test", help=what)


def add_run(parser: argparse.ArgumentParser, batch: int | None = None) -> None:
    """``--split``, ``--out`` and ``--seed`` of a report on generated clips; with ``batch``, its
    default, ``--batch`` too."""
    add = parser.add_argument
    add_split(parser)
    add("--out", metavar="DIR", help="folder for the report (default runs/eval)")
    add("--seed", type=options.seed, default=0, help="seed of the first clip (default 0)")
    if batch is not None:
        text = f"clips generated per batch (default {batch})"
        add("--batch", type=options.count, default=batch, metavar="N", help=text)
