"""A whole clip on the CPU, in several ways, turn about in one process.

python -m benchmarks.whole_clip --out benchmarks/results/whole-clip-impacts-64.json

Ways: the fused operators, their plain twins ("eager"), the fused operators under torch.compile
(``load(compile=True)``), and eight takes of the sound for one picture. A clip is everything from
the sentence to the samples; the first compiled clip is timed by itself, and how many clips later it
has paid for that follows from the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

import syncflow
from syncflow import ops
from syncflow.evaluation.suites import provenance

PROMPT, SEED, TAKES = "a small blue glass ball falls and bounces four times on tiles", 3, 8


def seconds_of(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measured(rounds: int) -> tuple[dict[str, list[float]], float]:
    """Seconds of every way and round, and those of the first compiled clip."""
    plain, compiled = syncflow.load(), syncflow.load(compile=True)

    def clip(model: syncflow.Model, **options: int) -> Callable[[], object]:
        return lambda: model.generate(PROMPT, seed=SEED, progress=False, **options)

    def eager() -> None:
        with ops.reference_ops():
            clip(plain)()

    first = seconds_of(clip(compiled))
    ways = {
        "fused": clip(plain),
        "eager": eager,
        "compiled": clip(compiled),
        f"{TAKES} takes": clip(plain, audio_takes=TAKES),
    }
    for call in ways.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, call in ways.items():
            seconds[name].append(seconds_of(call))
    return seconds, first


def main() -> None:
    """Prints and writes what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    # The first compiled clip is to be compiled, whatever an earlier run left.
    cache = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache.name
    torch.set_num_threads(args.threads)
    _, named = provenance.load_model(None)
    command = f"python -m benchmarks.whole_clip {shlex.join(sys.argv[1:])}"
    facts = {**named, **provenance.circumstances(command), "prompt": PROMPT, "seed": SEED}
    seconds, first = measured(args.rounds)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    saved = medians["fused"] - medians["compiled"]
    report = {
        "facts": facts,
        "seconds": seconds,
        "median_seconds": medians,
        "of_fused": {name: value / medians["fused"] for name, value in medians.items()},
        "first_compiled_clip_s": first,
        "clips_until_compiling_pays": first / saved if saved > 0 else None,
    }
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({k: v for k, v in report.items() if k != "seconds"}, indent=1))


if __name__ == "__main__":
    main()
