"""``syncflow prepare``: your own video files -> latents to train on."""

from __future__ import annotations

import argparse
import json
import re

from syncflow.commands import options

SUMMARY = "turn video files into latents to train on: windows, filters, captions, shards"
EXAMPLE = "syncflow prepare my_clips --out data/train --size 64"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="SOURCE", help="a folder, a video file, or a csv, jsonl or parquet list")
    add("--out", required=True, metavar="DIR", help="the folder to write; goes on where it was")
    add("--model", help="whose encoders: a model folder or hub id (default: the package's)")
    what = "height and width in one, or HxW; several make a folder each (default: the model's)"
    add("--size", nargs="+", type=_size, metavar="PX", help=what)
    add("--seconds", type=options.positive, help="length of a window (default: the model's)")
    add("--fps", type=options.positive, help="default: the model's")
    layouts = ("auto", "folder", "list", "vggsound", "greatest-hits")
    add("--layout", choices=layouts, default="auto", help="what SOURCE is (default auto)")
    add("--videos", metavar="DIR", help="where a list's files are (default: beside the list)")
    add("--split", help="which split of the list, e.g. train or test")
    what = "without splits in the list: this share of the videos is the test split"
    add("--test-share", type=options.real, metavar="SHARE", help=what)
    add("--caption", metavar="TEXT", help="for clips that have none")
    add("--captioner", metavar="DIR", help="a captioning model's folder, for clips without caption")
    add("--recaption", action="store_true", help="have the captioning model describe every window")
    what = "where windows lie: at random for training, fixed for evaluation (default random)"
    add("--windows", choices=("random", "fixed"), default="random", help=what)
    what = "at most so many windows of a segment (default: as many as fit)"
    add("--per-segment", type=options.count, metavar="N", help=what)
    what = "long files are read in segments of this length (default 20; Greatest Hits 10)"
    add("--segment", type=options.positive, metavar="SECONDS", help=what)
    add("--seed", type=options.seed, default=0, help="of the random windows (default 0)")
    what = "do not leave out what is static, silent or no-audio"
    add("--keep", nargs="+", choices=("static", "silent", "no-audio"), default=[], help=what)
    what = "static is what moves less, in grey levels of 255 (default 8)"
    add("--min-motion", type=options.real, default=8.0, metavar="LEVELS", help=what)
    what = "silent is what is quieter, in dB of full scale (default -50)"
    add("--min-db", type=float, default=-50.0, metavar="DB", help=what)
    what = "processes that decode; 0: none beside this one (default: one a core)"
    add("--workers", type=options.number(int, 0), help=what)
    add("--batch", type=options.count, default=16, metavar="N", help="windows encoded at once")
    add("--share", type=_share, default=(0, 1), metavar="I/N", help="make the I-th of N parts")
    add("--device", help="cpu or cuda (default: a GPU where there is one)")
    add("--no-progress", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> None:
    from syncflow.data.prepare import Options
    from syncflow.training.prepare import prepare

    taken = Options(
        args.layout, args.videos, args.split, args.test_share, args.caption, args.recaption,
        args.windows, args.per_segment, args.segment, args.seed,
        tuple(name.replace("-", " ") for name in args.keep), args.min_motion, args.min_db,
    )
    found = prepare(
        args.source, args.out, model=args.model, sizes=args.size or (), seconds=args.seconds,
        fps=args.fps, options=taken, captioner=args.captioner, workers=args.workers,
        batch=args.batch, share=args.share, device=args.device, progress=not args.no_progress,
    )
    for out, manifest in found.items():
        if manifest is None:
            print(f"{out}: this part is done, others are not")
        else:
            print(json.dumps(json.loads((out / "report.json").read_text()), indent=2))
            print(out)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size like 256 or 144x256")
    height = int(match[1])
    return height, int(match[2] or height)


def _share(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a share like 2/8")
    return int(match[1]) - 1, int(match[2])
