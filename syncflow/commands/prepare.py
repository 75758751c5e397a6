"""``syncflow prepare``: your own video files -> latents to train on."""

from __future__ import annotations

import argparse
import json
import re

from syncflow.commands import options
from syncflow.data import prepare_options
from syncflow.data.prepare_options import RANGES

SUMMARY = "cut video files into windows of one length, and encode them for training"
EXAMPLE = "syncflow prepare my_clips --out data/train --size 64"

_numbers = {name: options.number(within) for name, within in RANGES.items()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="SOURCE", help="a folder, a video file, or a csv, jsonl or parquet list")
    add("--out", required=True, metavar="DIR", help="output folder; rerun the command to resume")
    options.add_model(parser, "the model that will be trained on them: ")
    what = "side of a square, or HxW; several values make one folder each (default: the model's)"
    add("--size", nargs="+", type=_size, metavar="PX", help=what)
    add(
        "--seconds",
        type=options.positive,
        help="length of a window in seconds (default: the model's)",
    )
    add("--fps", type=options.positive, help="frames per second (default: the model's)")
    layouts = ("auto", "folder", "list", "vggsound", "greatest-hits")
    add("--layout", choices=layouts, default="auto", help="layout of SOURCE (default auto)")
    add(
        "--videos",
        metavar="DIR",
        help="folder with the files of a list (default: next to the list)",
    )
    add("--split", help="split to encode, e.g. train or test")
    what = "share of the videos held out as the test split, if the list has no splits"
    add("--test-share", type=_numbers["test_share"], metavar="SHARE", help=what)
    add("--caption", metavar="TEXT", help="caption for clips that have none")
    add(
        "--captioner",
        metavar="DIR",
        help="folder of a captioning model, for clips without a caption",
    )
    add("--recaption", action="store_true", help="let the captioning model describe every window")
    what = "placement of windows: random for training, fixed for evaluation (default random)"
    add("--windows", choices=("random", "fixed"), default="random", help=what)
    what = "maximum number of windows per segment (default: as many as fit)"
    add("--per-segment", type=_numbers["per_segment"], metavar="N", help=what)
    what = "long files are read in segments of this many seconds (default 20; Greatest Hits 10)"
    add("--segment", type=_numbers["segment_s"], metavar="SECONDS", help=what)
    what = "seed for random windows (default 0)"
    add("--seed", type=_numbers["seed"], default=0, help=what)
    what = "keep windows that are static, silent or without audio"
    add("--keep", nargs="+", choices=("static", "silent", "no-audio"), default=[], help=what)
    what = "windows that move less are static, in grey levels of 255 (default 8)"
    add("--min-motion", type=_numbers["min_motion"], default=8.0, metavar="LEVELS", help=what)
    what = "windows that are quieter are silent, in dB of full scale (default -50)"
    add("--min-db", type=_numbers["min_db"], default=-50.0, metavar="DB", help=what)
    what = "decoding processes; 0 decodes in this one (default: one per core)"
    add("--workers", type=options.number(prepare_options.WORKERS), help=what)
    what = "windows encoded per batch (default 16)"
    add("--batch", type=options.number(prepare_options.BATCH), default=16, metavar="N", help=what)
    options.add_share(parser, "encode")
    add("--device", help="cpu or cuda (default: a GPU if available)")
    add("--no-progress", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> None:
    from syncflow.data.prepare import Options
    from syncflow.training.distributed import groups
    from syncflow.training.prepare import cores, prepare

    own = groups.share()
    share = args.share or (own.index, own.count)
    workers, device = args.workers, args.device
    if args.share is None and own.count > 1:
        print(f"share {own.index + 1} of {own.count}", flush=True)
        device = groups.device(device, own.local)
        if workers is None and own.beside > 1:  # which decode on the same cores
            workers = max(1, cores() // own.beside)
    taken = Options(
        args.layout,
        args.videos,
        args.split,
        args.test_share,
        args.caption,
        args.recaption,
        args.windows,
        args.per_segment,
        args.segment,
        args.seed,
        tuple(name.replace("-", " ") for name in args.keep),
        args.min_motion,
        args.min_db,
    )
    found = prepare(
        args.source,
        args.out,
        model=args.model,
        sizes=args.size or (),
        seconds=args.seconds,
        fps=args.fps,
        options=taken,
        captioner=args.captioner,
        workers=workers,
        batch=args.batch,
        share=share,
        device=device,
        progress=not args.no_progress,
    )
    for out, manifest in found.items():
        if manifest is None:
            print(f"{out}: this part is done, other parts are not")
        else:
            print(json.dumps(json.loads((out / "report.json").read_text()), indent=2))
            print(out)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size like 256 or 144x256")
    height = int(match[1])
    return height, int(match[2] or height)
