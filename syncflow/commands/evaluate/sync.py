"""``syncflow evaluate sync``: sound against picture, in milliseconds."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from syncflow.commands import options
from syncflow.commands.evaluate import scope
from syncflow.sampling import OPTIONS

if TYPE_CHECKING:
    from syncflow.evaluation.suites.sync import Scope


SUMMARY = "measure whether the sound happens when the picture says so"
EXAMPLE = "syncflow evaluate sync --clips 200 --split test --out report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_scope(parser, clips=200)
    count = options.count
    what = "also measure how the metrics answer to shifted sound, on N rendered clips"
    parser.add_argument("--calibrate", type=count, default=0, metavar="N", help=what)
    what = "also sweep guidance, steps and schedule on validation clips"
    parser.add_argument("--sweep", action="store_true", help=what)


def add_scope(parser: argparse.ArgumentParser, clips: int) -> None:
    """What the suite and this command have in common."""
    add = parser.add_argument
    options.add_model(parser)
    count = options.count
    scope.add_captions(parser, clips)
    scope.add_split(parser)
    add("--out", metavar="DIR", help="folder for the report (default runs/eval)")
    add("--seed", type=options.seed, default=0, help="seed of the first clip (default 0)")
    add("--batch", type=count, default=8, metavar="N", help="clips generated per batch (default 8)")
    what = (
        "videos or folders of videos: ten windows of each are passed through both VAEs and their "
        "PSNR and spectral distance reported; they are not scored for sync"
    )
    add("--real-media", nargs="+", default=(), metavar="FILE", help=what)
    what = (
        "videos with NAME_times.txt next to them (the Greatest Hits layout): sync of the "
        "recordings and of audio generated for them, and how the metrics answer to shifted sound"
    )
    add("--recordings", metavar="DIR", help=what)
    what = "captions whose clips are shown on the page (default: 12 for sync, all for the suite)"
    add("--players", type=count, metavar="N", help=what)
    options.add_sampling(parser)


def run(args: argparse.Namespace) -> None:
    from syncflow.evaluation.suites import sync

    scope = replace(sync.Scope(), calibrate=args.calibrate)
    measure(args, scope, sweep=args.sweep)


def measure(args: argparse.Namespace, scope: Scope, sweep: bool = False) -> None:
    """Runs the report and says where it is."""
    from syncflow.evaluation.suites import sync

    scope = replace(scope, recordings=args.recordings, real_media=args.real_media)
    if args.players is not None:
        scope = replace(scope, players=args.players)
    out = args.out or "runs/eval"
    sync.run(
        model=args.model,
        clips=args.clips,
        levels=args.levels,
        split=args.split,
        out=out,
        seed=args.seed,
        batch=args.batch,
        scope=scope,
        options={name: getattr(args, name) for name in OPTIONS},
        sweep=sweep,
    )
    print(f"{out}/index.html")
