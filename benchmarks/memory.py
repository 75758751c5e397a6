"""Memory and work of a training config per GPU, counted without a GPU.

    python benchmarks/memory.py configs/stage2.json --gpus 32
    python benchmarks/memory.py configs/stage2.json --gpus 32 --json memory.json

The config's batch is shared by the GPUs. Memory is what tensors take (benchmarks/counting.py), GiB:
weights, gradients, optimizer and activations, without the CUDA context (0.5), the allocator's
fragmentation and the workspaces of libraries.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import footprint
import vae_footprint

from syncflow.training import runner

#: Tasks that can be counted.
COUNTED = ("flow", "audio_vae", "video_vae")


def report(config: Any, gpus: int) -> dict[str, Any]:
    """Everything that ``--json`` writes, of a flow config or, less what generates, a VAE's."""
    if config.task != "flow":
        return vae_footprint.report(config, gpus)
    batch, left = divmod(config.loop.batch_size, gpus)
    if left or not batch:
        raise ValueError(
            f"loop.batch_size {config.loop.batch_size} cannot be shared by {gpus} GPUs evenly"
        )
    found = footprint.training(footprint.with_batch(config, batch), gpus)
    short, guided = footprint.generation(config, 2.0)
    long, _ = footprint.generation(config, 10.0)
    sizes = {
        "train": found.train,
        "validate": found.validate,
        "generate_2s": short,
        "generate_10s": long,
        "checkpoint": found.checkpoint,
    }
    block = config.loop.deepspeed
    return {
        "gpus": gpus,
        "batch_per_gpu": batch,
        "draws": config.draws,
        "recompute": config.loop.recompute,
        "zero": block["zero_optimization"]["stage"] if block else 0,
        "peak_gib": {name: footprint.gib(size) for name, size in sizes.items()},
        "parts_gib": {name: footprint.gib(size) for name, size in found.parts.items()},
        "step": {
            "flops": found.step.flops,
            "launches": found.step.launches,
            "bytes": found.step.bytes,
            "dispatcher_calls": found.step.calls,
            "bytes_outside_products": found.step.bytes_outside_products,
            "copies": found.transfers,
            "waits": found.waits,
        },
        "guided_step": {
            "launches": guided.launches,
            "dispatcher_calls": guided.calls,
            "flops": guided.flops,
            "bytes_outside_products": guided.bytes_outside_products,
            "bytes_attention": guided.bytes_attention,
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path, help="of a stage or a VAE, as configs/stage2.json")
    parser.add_argument("--gpus", type=int, default=32, help="that share its batch (default 32)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    options = parser.parse_args()
    try:
        if options.gpus < 1:
            raise ValueError(f"--gpus must be at least 1, got {options.gpus}")
        config = runner.read(options.config)
        if config.task not in COUNTED:
            raise ValueError(
                f"{options.config} is a {config.task!r} task; counted are {', '.join(COUNTED)}"
            )
        found = report(config, options.gpus)
    except (ValueError, FileNotFoundError) as error:
        print(f"memory: error: {error}", file=sys.stderr)
        return 2
    zero = f"ZeRO {found['zero']}" if found.get("zero") else "no ZeRO"
    print(
        f"{options.config}: {options.gpus} GPUs, {found['batch_per_gpu']} clips a GPU, {zero}, "
        f"recompute {config.loop.recompute}"
    )
    for title in ("peak_gib", "parts_gib"):
        print(f"  {title}: " + "  ".join(f"{k} {v:.2f}" for k, v in found[title].items()))
    step, guided = found["step"], found.get("guided_step")
    print(
        f"  a training pass: {step['flops'] / 1e12:.2f} TFLOP, {step['launches']} launches, "
        f"{step['bytes'] / 1e9:.0f} GB"
    )
    if guided:
        print(
            f"  a guided step of 2 s: {guided['flops'] / 1e12:.2f} TFLOP, {guided['launches']} "
            f"launches, {guided['dispatcher_calls']} dispatcher calls, "
            f"{guided['bytes_outside_products'] / 1e9:.1f} GB outside products"
        )
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
