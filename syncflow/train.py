"""The script that trains: ``syncflow train --config FILE``, or under a launcher
``deepspeed --num_gpus 8 syncflow/train.py --config FILE``, ``torchrun ...``, ``srun python ...``.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

_EXIT_USER_ERROR, _EXIT_INTERRUPTED = 2, 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this script and of ``syncflow train``."""
    add = parser.add_argument
    add("--config", required=True, metavar="FILE", help="JSON config, e.g. configs/stage2.json")
    add("--device", help="cpu or cuda (default: a GPU if available)")
    add("--no-progress", action="store_true", help="no progress bars")
    what = "minutes without a message after which a process counts as dead (default 10)"
    add("--timeout-minutes", type=_minutes, default=10.0, metavar="N", help=what)
    # Launchers add it; the environment says the same.
    add("--local_rank", "--local-rank", type=int, default=None, help=argparse.SUPPRESS)


class _Parser(argparse.ArgumentParser):
    """argparse's errors in the form of all others: one line."""

    def error(self, message: str) -> NoReturn:
        raise argparse.ArgumentError(None, message)


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of minutes above 0, not {text!r}")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """``run`` with the options of a command line."""
    parser = _Parser(prog="syncflow train", description=__doc__)
    add_arguments(parser)
    try:
        return run(parser.parse_args(arguments))
    except argparse.ArgumentError as error:
        return _fail(f"{error} (see syncflow train --help)", _EXIT_USER_ERROR)


def run(options: argparse.Namespace) -> int:
    """Runs the task (or recipe of tasks) of a config file.

    Returns:
        0 when it is done or SIGTERM stopped it (what it had done is saved), 2 after a mistake that
        one line on stderr names, 130 after Ctrl-C (saved too).
    """
    if options.local_rank is not None:
        os.environ.setdefault("LOCAL_RANK", str(options.local_rank))

    try:
        return _run(options)
    except KeyboardInterrupt:  # while PyTorch was being imported, too
        from syncflow import terminal

        terminal.answer_interrupt()
        return _fail("interrupted", _EXIT_INTERRUPTED)


def _run(options: argparse.Namespace) -> int:
    from syncflow import faults
    from syncflow.training import loop, runner
    from syncflow.training.distributed import groups

    try:
        group = groups.join(options.device, options.timeout_minutes)
        runner.run(Path(options.config), progress=not options.no_progress, group=group)
        groups.leave()
    except (ValueError, OSError, ModuleNotFoundError, loop.Diverged) as error:
        return _fail(" ".join(str(error).split()), _EXIT_USER_ERROR)
    except (RuntimeError, MemoryError) as error:
        if not faults.out_of_memory(error):
            raise
        return _fail(
            "out of memory: lower loop.batch_size and raise loop.accumulate, set loop.recompute, "
            "or a higher zero_optimization.stage",
            _EXIT_USER_ERROR,
        )
    return 0


def _fail(message: str, code: int) -> int:
    print(f"syncflow: error: {message}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    # As a script this file lies inside the package: let it be found when that is not installed.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    raise SystemExit(main())
