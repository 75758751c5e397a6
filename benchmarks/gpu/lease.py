"""One part of `bash benchmarks/gpu_lease.sh`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch

from benchmarks.gpu import attention_table, block_table, correct, op_table, step_table
from benchmarks.gpu.ceilings import ceilings
from benchmarks.gpu.results import Clock, Results
from syncflow.ops import native

#: Seconds that each part may take.
SECONDS = {"correct": 150, "fast": 200, "train": 150, "small": 300, "compare": 240}


def fast(results: Results, device: torch.device, tiny: bool) -> None:
    """Whole steps and clips first; then what they are made of."""
    results.row("ceilings", lambda: ceilings(device, tiny))
    step_table.table(results, device, tiny)
    attention_table.attention(results, device, tiny)
    attention_table.products(results, device, tiny)
    op_table.table(results, device, tiny)
    block_table.table(results, device, tiny, compiled=False)
    results.row("tower step", lambda: block_table.tower_step(device, tiny, False))


def compare(results: Results, device: torch.device, tiny: bool) -> None:
    """torch.compile of the same; max-autotune, which cannot be interrupted, last."""
    op_table.compiled(results, device, tiny, autotune=False)
    block_table.table(results, device, tiny, compiled=True)
    results.row("compile tower step", lambda: block_table.tower_step(device, tiny, True), 40)
    op_table.compiled(results, device, tiny, autotune=True)


PARTS = {"correct": correct.check, "fast": fast, "compare": compare}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, for a rehearsal on a CPU")
    parser.add_argument("--seconds", type=float, help="after which no row is begun")
    parser.add_argument("--only", default="", help="rows whose name begins so")
    options = parser.parse_args()
    if not options.tiny:
        if not torch.cuda.is_available():
            parser.error("PyTorch sees no CUDA device; `gpu_lease.sh rehearse` runs on a CPU")
        if not native.LOADED:
            parser.error(f"the compiled operators are not loaded: {native.status()['reason']}")
        if not native.status()["cuda_archs"]:
            parser.error("the CUDA kernels were not built; syncflow/_C.json says why")
    device = torch.device("cpu" if options.tiny else "cuda")
    torch.manual_seed(0)
    clock = Clock(options.seconds or SECONDS[options.part])
    results = Results(options.out, options.part, clock, options.only)
    results.content["switched_off"] = os.environ.get("SYNCFLOW_OFF", "")
    PARTS[options.part](results, device, options.tiny)
    failed = [key for key, value in results.rows.items() if "error" in (value or {})]
    print(f"{options.part}: {len(results.rows)} rows in {results.path}, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
