"""What train_table.py's rows should measure on an H100, written before one is there.

    python -m benchmarks.gpu.train_predict      writes benchmarks/gpu/train_predicted.json

Memory is counted (benchmarks/footprint.py). A step's seconds are the larger of the device's work,
products at 581 and attention at 400 TFLOP/s and all other bytes at 3.0 TB/s, and the host's, 8
microseconds for every call of the dispatcher.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import footprint  # noqa: E402
from benchmarks.gpu.train_table import PREDICTED, ROOT, ROWS, Row, write  # noqa: E402
from syncflow.training import runner  # noqa: E402

PRODUCTS, ATTENTION, COPY, CALL = 581e12, 400e12, 3.0e12, 8e-6
# Bytes a trained parameter under ZeRO: gradient cast, norm, AdamW, average, weights cast back.
UPDATE = 6 + 4 + 28 + 12 + 6


def predict(row: Row) -> dict[str, Any]:
    """Of one row of XL/2 on one H100."""
    config = runner.read(ROOT / f"configs/stage{row.stage}.json")
    block = None
    if row.engine != "plain":
        zero = {**config.loop.deepspeed["zero_optimization"], "stage": int(row.engine[-1])}
        block = {**config.loop.deepspeed, "zero_optimization": zero}
    config = footprint.with_batch(config, row.batch, draws=row.draws)
    loop = config.loop.model_copy(update={"recompute": row.recompute, "deepspeed": block})
    found = footprint.training(config.model_copy(update={"loop": loop}), 1, validates=False)
    step = found.step
    bytes_moved = step.bytes_outside_products
    if block:
        bytes_moved += UPDATE * found.parts["gradients"] / 2
    device = (step.flops - step.attention_flops) / PRODUCTS + step.attention_flops / ATTENTION
    device += bytes_moved / COPY
    host = CALL * step.calls
    seconds = max(device, host)
    return {
        "seconds": round(seconds, 4),
        "seconds_device": round(device, 4),
        "seconds_host": round(host, 4),
        "samples_per_second": round(row.batch / seconds, 2),
        "peak_gib": footprint.gib(found.train),
        "parts_gib": {name: footprint.gib(size) for name, size in found.parts.items()},
        "tflop": round(step.flops / 1e12, 2),
        "launches": step.launches,
        "calls": step.calls,
        "waits": found.reads,
        "copies": found.transfers,
    }


def main() -> None:
    rows = {}
    for name, row in ROWS.items():
        rows[name] = predict(row)
        print(name, rows[name], flush=True)
    about = "counted without a GPU: benchmarks/gpu/train_predict.py; memory GiB, one H100"
    write(PREDICTED, {"about": about, "rows": rows})


if __name__ == "__main__":
    main()
