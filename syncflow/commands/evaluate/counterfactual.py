"""``syncflow evaluate counterfactual``: one thing changes; does the right thing follow?"""

from __future__ import annotations

import argparse

from syncflow.commands import options
from syncflow.commands.evaluate import scope
from syncflow.sampling import OPTIONS

SUMMARY = "change one thing (material, colour, count) and see what follows and what stays"
EXAMPLE = "syncflow evaluate counterfactual --clips 60 --out runs/eval/counterfactual"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add, count = parser.add_argument, options.count
    options.add_model(parser)
    add(
        "--clips",
        type=count,
        default=60,
        metavar="N",
        help="pairs per change (default 60)",
    )
    scope.add_run(parser, batch=8)
    options.add_sampling(parser)


def run(args: argparse.Namespace) -> None:
    from syncflow.evaluation.suites import counterfactual

    asked = {name: getattr(args, name) for name in OPTIONS}
    out = args.out or "runs/eval"
    counterfactual.run(
        args.model,
        args.clips,
        args.split,
        out,
        args.seed,
        args.batch,
        options={name: value for name, value in asked.items() if value is not None},
    )
    print(f"{out}/counterfactual.md")
