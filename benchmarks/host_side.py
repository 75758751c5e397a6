"""Phases of training steps whose clips, draws and couplings are made in the step, and ahead of it.

    python benchmarks/host_side.py --clips 512 --draws 4

Trains configs/tiny/stage2.json on made-up latents with optimal transport, first with
``prefetch`` 0 and then with 2, and prints the median seconds of each phase of a step, the first
step left out. "data" is what the step waits for; "coupling" is what the assignments took, wherever
that was: with ``prefetch`` it goes on beside the step and is not a part of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import random_latents  # noqa: E402
from syncflow.training import runner  # noqa: E402

CONFIG = ROOT / "configs" / "tiny" / "stage2.json"
PHASES = ("data", "coupling", "forward", "backward", "optimizer")


def phases(folder: Path, clips: int, draws: int, steps: int, prefetch: int) -> dict[str, float]:
    """Median seconds of each phase; ``folder`` has the latents."""
    values = json.loads(CONFIG.read_text())
    out = folder / f"prefetch_{prefetch}"
    values |= {
        "out": str(out), "data": str(folder / "latents"), "validation": str(folder / "latents"),
        "init": None, "draws": draws, "coupling": "ot",
    }  # fmt: skip
    values["loop"] |= {
        "steps": steps + 1, "batch_size": clips, "prefetch": prefetch, "log_every": 1,
        "validate_every": 0, "checkpoint_every": 0,
    }  # fmt: skip
    path = folder / "config.json"
    path.write_text(json.dumps(values))
    runner.run(path, progress=False)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()][1:]
    return {name: statistics.median(row[f"time/{name}"] for row in rows) for name in PHASES}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=512, help="of a batch (default 512)")
    parser.add_argument("--draws", type=int, default=4, help="audio noises a clip (default 4)")
    parser.add_argument("--steps", type=int, default=5, help="that are timed (default 5)")
    options = parser.parse_args()
    if min(options.clips, options.draws, options.steps) < 1:
        print("host_side: error: --clips, --draws and --steps must be at least 1", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        random_latents.write(folder / "latents", runner.read(CONFIG), options.clips)
        print(f"{options.clips} clips x {options.draws} draws, seconds of a step's phases")
        for prefetch in (0, 2):
            found = phases(folder, options.clips, options.draws, options.steps, prefetch)
            told = "  ".join(f"{name} {seconds:.4f}" for name, seconds in found.items())
            print(f"  prefetch {prefetch}: {told}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
