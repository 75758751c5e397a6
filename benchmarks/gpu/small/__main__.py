"""The command line: see ``benchmarks.gpu.small``."""

from __future__ import annotations

import os
import time

BEGAN = time.monotonic()
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before numpy: every core has a process of its own
os.environ.setdefault("SYNCFLOW_OPS", "reference")  # a kernel that fails must not end the run

import argparse  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import torch  # noqa: E402

from benchmarks.gpu.small import folder  # noqa: E402
from benchmarks.gpu.small.compiling import Ahead, compile_only  # noqa: E402
from benchmarks.gpu.small.plan import FULL, TINY  # noqa: E402
from benchmarks.gpu.small.run import Run, Settings  # noqa: E402
from benchmarks.gpu.small.world import World  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """0 done, 2 what was given cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.small")
    parser.add_argument("--minutes", type=float, help="how long, from now to the last weights")
    parser.add_argument("--out", type=Path, help="folder of the weights that are written")
    parser.add_argument("--init", type=Path, help="written weights or a model folder to go on from")
    parser.add_argument("--tiny", action="store_true", help="a small model, to rehearse on a CPU")
    parser.add_argument("--workers", type=int, help="rendering processes; default: all cores but 1")
    parser.add_argument("--device", help="default: a GPU where there is one")
    parser.add_argument("--seed", type=int, default=0, help="another one for other clips")
    parser.add_argument("--eager", action="store_true", help="no CUDA graphs")
    parser.add_argument(
        "--compile",
        choices=("auto", "on", "off"),
        default="auto",
        help="torch.compile of the video tower's blocks; auto: on a GPU",
    )
    parser.add_argument("--compile-only", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--join", type=Path, metavar="FOLDER", help="make a model of these weights")
    parser.add_argument("--model", type=Path, help="the model folder that --join makes")
    args = parser.parse_args(argv)
    try:
        if args.join is not None:
            if args.model is None:
                raise ValueError("--join needs --model, the folder to make")
            print(folder.join(args.join, args.model))
            return 0
        if args.compile_only:
            compile_only(_device(args), args.tiny, args.init)
            return 0
        return _train(args)
    except (ValueError, OSError) as error:
        print(f"small: {error}", file=sys.stderr)
        return 2


def _train(args: argparse.Namespace) -> int:
    if args.minutes is None or args.out is None:
        raise ValueError("--minutes and --out are needed (or --join and --model)")
    if not args.minutes > 0:
        raise ValueError(f"--minutes must be positive, got {args.minutes:g}")
    if not 0 <= args.seed < 4:
        raise ValueError(f"--seed must be 0 to 3 (a million clips each), got {args.seed}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers = args.workers or max(1, (1 if args.tiny else cores or 1) - 1)
    plan = TINY if args.tiny else FULL
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # The workers fork before CUDA and its threads are there.
    world, ahead = World(plan, workers, args.seed).start(), None
    try:
        device = _device(args)
        if args.compile == "on" or (args.compile == "auto" and device.type == "cuda"):
            model = ["--tiny"] * args.tiny + (["--init", str(args.init)] if args.init else [])
            ahead = Ahead(["--device", str(device), *model])
        settings = Settings(
            args.minutes,
            args.out,
            BEGAN,
            device,
            args.tiny,
            args.init,
            not args.eager,
            ahead,
            args.seed,
        )
        Run(settings, plan, world).go()
    finally:
        world.stop()
        if ahead is not None:
            ahead.stop()
    return 0


def _device(args: argparse.Namespace) -> torch.device:
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("high")
    return torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))


if __name__ == "__main__":
    sys.exit(main())
