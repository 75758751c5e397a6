"""One row of train_table.py: imports everything, waits for a line on stdin, measures, writes.

The task, the engine and the loss are the repository's own, on made-up latents of the right shapes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.train_table import ROOT, ROWS, Row, write
from benchmarks.random_latents import geometry, made_on
from benchmarks.random_latents import write as write_latents
from syncflow.clip import ClipSpec
from syncflow.ops import native
from syncflow.training import batches, logging, runner
from syncflow.training.distributed import deepspeed_setup
from syncflow.training.distributed import engine as engines
from syncflow.training.distributed.groups import Group
from syncflow.training.recompute import recompute
from syncflow.training.tasks.flops import training_flops
from syncflow.training.tasks.flow import FlowTraining
from syncflow.training.tasks.randomness import SampleGenerators

WARM, TIMED = 3, 4  # steps before the measured ones, and after them with their phases timed
GIB = 2**30


class OneOfMany(Group):
    """This process as one of many that gather their batches; what the others send is made up, once
    for every shape."""

    def gather(self, value: torch.Tensor) -> torch.Tensor:
        """Every process's value [many * n, ...]; the others' are made up, once."""
        many = _MANY[0]
        if many == 1:
            return value
        key = (tuple(value.shape), value.dtype)
        if key not in _OTHERS:
            noise = torch.randn((many - 1) * len(value), *value.shape[1:], dtype=value.dtype)
            _OTHERS[key] = value.mean() + value.std() * noise
        _GATHERED.add(many * len(value))
        return torch.cat([value, _OTHERS[key]])

    def rows(self, total: int) -> slice:
        """This process's share of a batch of all."""
        return slice(0, total // _MANY[0]) if total in _GATHERED else super().rows(total)


# The group is frozen, and there is one a process.
_MANY, _GATHERED, _OTHERS = [1], set(), {}


class Measurement:
    """A row's task and engine, and its steps.

    Args:
        row: what to measure.
        device: where.
        folder: of the made-up latents.
        tiny: configs/tiny in place of XL/2.
    """

    def __init__(self, row: Row, device: torch.device, folder: Path, tiny: bool) -> None:
        self.row, self.device, self.tiny = row, device, tiny
        self.steps, self.warm = (3, 1) if tiny else (row.steps, min(WARM, row.steps))
        batch = min(row.batch, 4) if tiny else row.batch
        name = f"{'tiny/' if tiny else ''}stage{row.stage}.json"
        config = runner.read(ROOT / "configs" / name)
        block = None
        if row.engine != "plain":
            paper = runner.read(ROOT / "configs" / f"stage{row.stage}.json")
            block = {k: v for k, v in paper.loop.deepspeed.items()}
            zero = {**block["zero_optimization"], "stage": int(row.engine[-1])}
            if tiny:  # the same parameters are persistent as at XL/2
                zero["stage3_param_persistence_threshold"] = 4096
            block["zero_optimization"] = zero
            if zero["stage"] == 1:  # fp32 gradients are another optimizer of DeepSpeed's there
                block.pop("data_types", None)
        settings = {
            "batch_size": batch,
            "accumulate": 1,
            "prefetch": 4,
            "recompute": row.recompute,
            "precision": "bf16",
            "randomness": "sample",
            "deepspeed": block,
        }
        latents = write_latents(folder, config, 2 * batch)
        self.config = config.model_copy(
            update={
                "data": str(latents),
                "validation": str(latents),
                "init": None,
                "init_video": None,
                "draws": row.draws,
                "coupling": row.coupling,
                "samples": None,
                "loop": config.loop.model_copy(update=settings),
            }
        )
        length = config.model.video.model_max_length
        self.flops = training_flops(
            config.model, ClipSpec(**geometry(config)), length, config.train, row.draws
        )
        self.losses: list[torch.Tensor] = []
        self.norms: list[float | None] = []
        self.coupling_seconds: list[float] = []
        self.notes: dict[str, Any] = {}

    def build(self) -> None:
        """Weights are made on the device: two billion random numbers take a CPU half a minute."""
        begun = time.perf_counter()
        _MANY[0] = self.row.gpus
        group = OneOfMany(device=self.device)
        torch.manual_seed(0)
        with made_on(self.device):
            self.task = FlowTraining(self.config, group=group)
        self._wake()
        recompute(self.task.module, self.config.loop.recompute)
        parameters = list(self.task.module.parameters())
        self.notes["parameters"] = sum(p.numel() for p in parameters)
        self.notes["trained"] = sum(p.numel() for p in parameters if p.requires_grad)
        del parameters
        self._synchronise()
        self.notes["seconds_weights"] = time.perf_counter() - begun
        self.engine = engines.build(self.task, self.config.loop, group)
        self._synchronise()
        self.notes["seconds_engine"] = time.perf_counter() - begun - self.notes["seconds_weights"]
        self.notes["memory_at_rest_gib"] = self._allocated() / GIB
        self.notes["memory_building_gib"] = logging.memory_gib(self.device)

    def _wake(self) -> None:
        """Layers that start at zero silence what is before them: gradients and losses of a step
        would say nothing."""
        with torch.no_grad():
            for parameter in self.task.module.parameters():
                if parameter.ndim >= 2 and not parameter.any():
                    parameter.normal_(std=0.02)

    def run(self, until: float) -> dict[str, Any]:
        """All steps, or those that begin before ``until``, but at least one measured."""
        loop_config, watch = self.config.loop, self.engine.group.watch
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        seconds: list[float] = []
        phases: list[dict[str, float]] = []
        with batches.Batches(self.task, loop_config.prefetch, self._source) as made:
            self.batches = made
            for step in range(self.warm + self.steps + TIMED):
                measured = self.warm <= step < self.warm + self.steps
                late = time.monotonic() - until
                if (measured and seconds and late > 0) or (phases and late > 6):
                    continue  # the losses stay those of steps one after another
                watch.begin(step >= self.warm + self.steps)
                self._synchronise()
                begun = time.perf_counter()
                self._step(watch, keep=step == min(1, self.warm - 1))
                self._synchronise()
                if measured:
                    seconds.append(time.perf_counter() - begun)
                elif watch.timed:
                    phases.append(dict(watch.seconds))
                watch.end()
        return self._result(seconds, phases)

    def _source(self, index: int) -> SampleGenerators:
        return SampleGenerators(0, self.task.places(index))

    def _step(self, watch: Any, keep: bool = False) -> None:
        """What the loop does in a step."""
        index = len(self.losses)
        with watch.phase("data"):
            batch = self.batches.take(index)
            self.batches.prepare(index + 1)
        if self.row.coupling != "none":
            self.coupling_seconds.append(batch["draws"].seconds)
        before = self._allocated() if keep else 0
        with watch.phase("forward"):
            loss, _ = self.engine.loss(batch, self._source(index))
        if keep:
            self._synchronise()
            self.notes["activations_gib"] = (self._allocated() - before) / GIB
        with watch.phase("backward"):
            self.engine.backward(loss)
        self.engine.synchronise()
        with watch.phase("optimizer"):
            norm = self.engine.step(self.config.loop.lr, index, loss.detach())
        self.losses.append(loss.detach())
        self.norms.append(norm)

    def _result(self, seconds: list[float], phases: list[dict[str, float]]) -> dict[str, Any]:
        row, loop_config, device = self.row, self.config.loop, self.device
        ordered = sorted(seconds)
        middle = statistics.median(seconds)
        speed, peak = loop_config.batch_size / middle, logging.peak_flops(device, None)
        on_gpu = device.type == "cuda"
        split = {k: statistics.median(p[k] for p in phases) for k in phases[0]}
        return {
            "batch": loop_config.batch_size,
            "draws": row.draws,
            "engine": row.engine,
            "stage": row.stage,
            "recompute": row.recompute,
            "coupling": row.coupling,
            "gpus_of_coupling": row.gpus,
            "width": self.config.model.video.hidden_size,
            "depth": self.config.model.video.depth,
            "precision": loop_config.precision,
            "optimizer": loop_config.optimizer,
            "ema": loop_config.ema,
            "samples_per_second": speed,
            "step_seconds": {
                "median": middle,
                "p20": ordered[len(ordered) // 5],
                "p80": ordered[-1 - len(ordered) // 5],
                "all": seconds,
            },
            "split_seconds": split,
            "tflop_per_sample": self.flops / 1e12,
            "tflops": speed * self.flops / 1e12,
            "mfu": speed * self.flops / peak if peak else None,
            "memory_gib": {
                "peak": logging.memory_gib(device),
                "reserved": torch.cuda.max_memory_reserved(device) / GIB if on_gpu else None,
                "total": torch.cuda.mem_get_info(device)[1] / GIB if on_gpu else None,
            },
            "losses": [float(loss) for loss in self.losses],
            "gradient_norms": self.norms,
            "coupling_seconds": self.coupling_seconds,
            **self.notes,
        }

    def profile(self) -> dict[str, Any]:
        """One step by PyTorch's profiler: what the device was busy with, longest first."""
        from torch.profiler import ProfilerActivity, profile

        on_gpu = self.device.type == "cuda"
        kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
        self.batches = batches.Batches(self.task, 0, self._source)
        watch = self.engine.group.watch
        watch.begin(False)
        self._synchronise()
        with profile(activities=kinds) as found:
            begun = time.perf_counter()
            self._step(watch)
            self._synchronise()
            wall = time.perf_counter() - begun
        key = "self_device_time_total" if on_gpu else "self_cpu_time_total"
        if on_gpu:
            events = [e for e in found.key_averages() if str(e.device_type).endswith("CUDA")]
        else:
            events = list(found.key_averages())
        events.sort(key=lambda event: -getattr(event, key))
        return {
            "wall_seconds": wall,
            "busy_seconds": sum(getattr(event, key) for event in events) / 1e6,
            "launches": sum(event.count for event in events),
            "longest": [
                {"name": e.key[:120], "ms": getattr(e, key) / 1e3, "calls": e.count}
                for e in events[:40]
            ],
        }

    def _allocated(self) -> int:
        on_gpu = self.device.type == "cuda"
        return torch.cuda.memory_allocated(self.device) if on_gpu else 0

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("row", choices=list(ROWS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--budget", type=float, default=18, help="seconds of measured steps")
    options = parser.parse_args()
    row, path = ROWS[options.row], options.out / f"{options.row}.json"
    found: dict[str, Any] = {"row": options.row, "kernels": native.status()["active"]}
    stage = "preparing"
    try:
        if row.engine != "plain":
            found["deepspeed"] = deepspeed_setup.load().__version__
        device = torch.device("cpu")
        if options.device == "cuda":
            device = torch.device("cuda", 0)
        with tempfile.TemporaryDirectory() as folder:
            measurement = Measurement(row, device, Path(folder), options.tiny)
            print("ready", flush=True)
            if not sys.stdin.readline():
                return
            stage, begun = "building", time.monotonic()
            found |= _machine(device)
            measurement.build()
            stage = "steps"
            found |= measurement.run(begun + options.budget)
            found["seconds_of_row"] = time.monotonic() - begun
            write(path, found)
            if row.profile:
                stage = "profile"
                found["profile"] = measurement.profile()
                write(path, found)
    except Exception as error:
        what = f"{type(error).__name__}: {error}"[:1500]
        if stage == "profile":
            found["profile"] = {"error": what}
        else:
            found |= {"error": what, "while": stage, "trace": traceback.format_exc()[-2500:]}
            found["out_of_memory"] = isinstance(error, torch.OutOfMemoryError)
        traceback.print_exc()
        write(path, found)
    sys.stdout.flush()
    os._exit(0)  # process groups and CUDA contexts may hang when they are taken apart


def _machine(device: torch.device) -> dict[str, Any]:
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "free_gib_at_start": (
            torch.cuda.mem_get_info(device)[0] / GIB if device.type == "cuda" else None
        ),
    }


if __name__ == "__main__":
    main()
