"""Speed of training and of generation, and what it would be on many GPUs.

    python benchmarks/throughput.py                      training and generation on this machine
    python benchmarks/throughput.py --mode train --config configs/stage2.json
    python benchmarks/throughput.py --mode train --compare
    python benchmarks/throughput.py --mode train --simulate results.json
    python benchmarks/throughput.py --mode generate

Training runs the real task, engine and loss of a stage's config on made-up latents of the right
shapes: no data are needed. On a CPU the model of configs/tiny is measured, since XL/2 does not fit.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import simulate

ROOT = Path(__file__).resolve().parents[1]
PAPER = 4.76  # samples/s a GPU: 150k steps of 512 samples in 140 h on 32 H100 (section 4)
FLOOR = 16 / 0.193  # the same stage's compute floor on an H100 at 800 TFLOP/s, adaptor over T*S


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--mode", choices=("train", "generate"), help="default: both, one after the other")
    add("--config", help="a flow config; default: configs/stage2.json on a GPU, else configs/tiny")
    add("--batch", type=int, help="samples a pass on this device (default: the paper's 16, or 4)")
    add("--steps", type=int, default=10)
    add("--draws", type=int, help="audio draws a video pass (default: the config's)")
    add("--accumulate", type=int, help="passes an update (default: the config's)")
    add("--recompute", choices=("none", "blocks", "selective"))
    add("--peak-tflops", type=float, help="of the device, for MFU where its name says nothing")
    add("--compare", action="store_true", help="a table of recompute, accumulation and draws")
    add("--model", help="for generate: a model folder (default: the shipped model)")
    add("--out", help="write the result as JSON there")
    what = "no run: 1 to 4,096 GPUs from a result of --out, or from the flags below"
    add("--simulate", nargs="?", const="", metavar="FILE", help=what)
    add("--seconds", nargs=3, type=float, metavar=("FORWARD", "BACKWARD", "OPTIMIZER"))
    add("--parameters", nargs=2, type=float, metavar=("ALL", "TRAINED"))
    add("--activation-gib", type=float, help="a sample's activations")
    add("--inside", type=float, default=450, help="GB/s each way between the GPUs of a node")
    add("--between", type=float, default=50, help="GB/s each way a GPU between nodes")
    add("--per-node", type=int, default=8)
    args = parser.parse_args()
    try:
        if args.simulate is not None:
            return _simulate(args)
        if args.mode == "generate":
            return _generate(args)
        if args.compare:
            return _compare(args)
        status = _train(args)
        return status if args.mode == "train" else status or _generate(args)
    except (ValueError, FileNotFoundError) as error:
        print(f"throughput: error: {error}", file=sys.stderr)
        return 2


def _simulate(args: argparse.Namespace) -> int:
    if args.simulate:
        result = json.loads(Path(args.simulate).read_text())
        measured = simulate.Measured(**result["measured"])
    elif args.seconds and args.parameters and args.activation_gib is not None:
        forward, backward, optimizer = args.seconds
        total, trained = (int(count) for count in args.parameters)
        measured = simulate.Measured(
            forward,
            backward,
            optimizer,
            args.batch or 16,
            total,
            trained,
            args.activation_gib * simulate.GIB,
            accumulate=args.accumulate or 1,
        )
    else:
        raise ValueError(
            "--simulate needs one GPU's numbers: a file that --out wrote, or --seconds, "
            "--parameters and --activation-gib (and --batch)"
        )
    network = simulate.Network(
        inside=args.inside * 1e9, between=args.between * 1e9, per_node=args.per_node
    )
    print(f"from {measured}\nand {network}\n")
    print(simulate.table(measured, network))
    return 0


def _measure(args: argparse.Namespace, changes: dict[str, Any]) -> dict[str, Any]:
    """One variant: seconds of each phase, memory, and what the model needs."""
    import random_latents
    import torch

    from syncflow.training import logging, runner
    from syncflow.training.distributed.groups import Group

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = device.type == "cuda"
    path = Path(args.config or ROOT / f"configs/{'stage2' if on_gpu else 'tiny/stage2'}.json")
    config = runner.read(path)
    batch = changes.get("batch") or args.batch or (16 if on_gpu else 4)
    loop = config.loop.model_copy(
        update={
            "batch_size": batch,
            "deepspeed": None,
            "prefetch": 0,
            "accumulate": changes.get("accumulate") or args.accumulate or config.loop.accumulate,
            "recompute": changes.get("recompute") or args.recompute or config.loop.recompute,
        }
    )
    draws = changes.get("draws") or args.draws or config.draws
    with tempfile.TemporaryDirectory() as folder:
        latents = random_latents.write(Path(folder), config, 2 * batch)
        config = config.model_copy(
            update={
                "data": str(latents),
                "validation": str(latents),
                "init": None,
                "init_video": None,
                "draws": draws,
                "loop": loop,
            }
        )
        from syncflow.training.distributed.replicas import Replicas
        from syncflow.training.recompute import recompute
        from syncflow.training.tasks.flow import FlowTraining

        group = Group(device=device)
        task = FlowTraining(config, group=group)
        recompute(task.module, loop.recompute)
        engine = Replicas(task, loop, group)
        return _run(args, task, engine, config, group.watch, logging)


def _run(
    args: argparse.Namespace, task: Any, engine: Any, config: Any, watch: Any, logging: Any
) -> dict[str, Any]:
    import torch

    from syncflow.training.distributed.stopwatch import PHASES
    from syncflow.training.tasks.randomness import SampleGenerators

    loop, device = config.loop, engine.group.device
    phases: list[dict[str, float]] = []
    kept = 0
    for step in range(args.steps + 2):
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        watch.begin(timed=True)
        wall, cpu = time.perf_counter(), time.process_time()
        for part in range(loop.accumulate):
            index = step * loop.accumulate + part
            with watch.phase("data"):
                batch = task.batch(index)
            source = SampleGenerators(0, task.places(index))
            with watch.phase("forward"):
                if step == 0 and part == 0:
                    with _Kept(device) as counted:
                        loss, _ = engine.loss(batch, source)
                    kept = counted.size
                else:
                    loss, _ = engine.loss(batch, source)
            with watch.phase("backward"):
                engine.backward(loss)
        with watch.phase("optimizer"):
            engine.step(loop.lr, step, loss)
        taken = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        if step >= 2:
            phases.append({**watch.seconds, **taken})
    middle = {k: sorted(p[k] for p in phases)[len(phases) // 2] for k in phases[0]}
    samples = loop.batch_size * loop.accumulate
    peak = logging.peak_flops(device, args.peak_tflops)
    speed, flops = samples / middle["wall"], task.flops(0)
    parameters = list(task.module.parameters())
    return {
        "config": {
            "train": config.train,
            "batch": loop.batch_size,
            "accumulate": loop.accumulate,
            "draws": config.draws,
            "recompute": loop.recompute,
            "precision": engine.config.precision,
            "width": config.model.video.hidden_size,
            "depth": config.model.video.depth,
        },
        "device": str(device) if device.type == "cpu" else torch.cuda.get_device_name(device),
        "machine": f"{platform.machine()}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads",
        "samples_per_second": speed,
        "cpu_seconds_per_sample": middle["cpu"] / samples,
        "tflop_per_sample": flops / 1e12,
        "tflops": speed * flops / 1e12,
        "mfu": speed * flops / peak if peak else None,
        "memory_gib": logging.memory_gib(device),
        "split": {phase: middle[phase] for phase in PHASES},
        "measured": {
            "forward": middle["forward"] / loop.accumulate,
            "backward": middle["backward"] / loop.accumulate,
            "optimizer": middle["optimizer"],
            "data": middle["data"] / loop.accumulate,
            "batch": loop.batch_size,
            "accumulate": loop.accumulate,
            "parameters": sum(p.numel() for p in parameters),
            "trained": sum(p.numel() for p in parameters if p.requires_grad),
            "activation_bytes": kept / loop.batch_size,
        },
    }


class _Kept:
    """Bytes that are there after a forward pass and were not before: what backward needs."""

    def __init__(self, device: Any) -> None:
        self.device, self.size = device, 0

    def __enter__(self) -> _Kept:
        import torch

        if self.device.type == "cuda":
            self.before = torch.cuda.memory_allocated(self.device)
        else:
            self.profile = torch.profiler.profile(profile_memory=True)
            self.profile.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        import torch

        if self.device.type == "cuda":
            self.size = torch.cuda.memory_allocated(self.device) - self.before
        else:
            self.profile.__exit__(*error)
            events = self.profile.key_averages()
            self.size = sum(event.self_cpu_memory_usage for event in events)


def _train(args: argparse.Namespace) -> int:
    result = _measure(args, {})
    for key, value in result.items():
        if not isinstance(value, dict):
            print(f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}")
    print("split, s: " + "  ".join(f"{k} {v:.3f}" for k, v in result["split"].items()))
    speed, config = result["samples_per_second"], result["config"]
    if config["width"] == 1152 and "H100" in result["device"] and config["train"] == "audio":
        print(f"the paper: {PAPER} samples/s a GPU; here {speed / PAPER:.1f} times that")
        print(f"the floor: {FLOOR:.1f} samples/s; here {speed / FLOOR:.2f} of that")
    else:
        print(f"XL/2 on an H100 against the paper's {PAPER} samples/s a GPU and the floor's")
        print(f"{FLOOR:.1f}: not run (this is {result['device']}, width {config['width']})")
    _write(args, result)
    return 0


def _compare(args: argparse.Namespace) -> int:
    variants: list[dict[str, Any]] = [
        {"recompute": "none", "draws": 1},
        {"recompute": "blocks", "draws": 1},
        {"recompute": "selective", "draws": 1},
        {"draws": 2, "recompute": "none"},
        {"draws": 4, "recompute": "none"},
    ]
    batch = args.batch or 4
    variants.append({"draws": 1, "recompute": "none", "batch": batch // 2, "accumulate": 2})
    print(
        "| recompute | batch x accumulate | draws | activations, MiB | CPU s / clip "
        "| CPU s / audio draw |\n|---|---|---|---|---|---|"
    )
    results = []
    for changes in variants:
        result = _measure(args, {"batch": batch, "accumulate": 1, **changes})
        config, measured = result["config"], result["measured"]
        kept = measured["activation_bytes"] * measured["batch"] / 2**20
        cost = result["cpu_seconds_per_sample"]
        print(
            f"| {config['recompute']} | {config['batch']} x {config['accumulate']} "
            f"| {config['draws']} | {kept:.1f} | {cost:.3f} | {cost / config['draws']:.3f} |",
            flush=True,
        )
        results.append(result)
    _write(args, {"variants": results})
    return 0


def _generate(args: argparse.Namespace) -> int:
    import torch

    import syncflow

    model = syncflow.load(args.model) if args.model else syncflow.load()
    seconds = []
    for seed in range(args.steps):
        begun = time.perf_counter()
        clip = model.generate("a metal ball bounces", seed=seed, progress=False)
        seconds.append(time.perf_counter() - begun)
    middle = sorted(seconds)[len(seconds) // 2]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    result = {"seconds_per_clip": middle, "clip_seconds": clip.seconds, "device": device}
    print("generate: " + "  ".join(f"{key} {value}" for key, value in result.items()))
    _write(args, result, "generate")
    return 0


def _write(args: argparse.Namespace, result: dict[str, Any], part: str = "") -> None:
    """To --out; where both modes are measured, generation's figures stand beside training's."""
    if not args.out:
        return
    path = Path(args.out)
    if part and not args.mode and path.exists():
        result = {**json.loads(path.read_text()), part: result}
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
