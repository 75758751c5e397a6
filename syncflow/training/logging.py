"""What a run tells while it lasts: metrics.jsonl, TensorBoard, W&B; time and memory."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from syncflow import durable, extras
from syncflow.training.distributed.groups import Group

if TYPE_CHECKING:
    from wandb import Run


#: Dense bfloat16 TFLOP/s by a part of the device's name (the makers' data sheets).
PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0, "RTX 4090": 165.2}

# One process alone writes: what a killed one left under this name is overwritten.
_TAG = "run"


class Pace:
    """Samples and floating point operations a second since the last time that was asked.

    Steps whose phases are timed count only where there are no others: timing slows them down.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[bool, float, int, float]] = []

    def add(self, seconds: float, samples: int, flops: float, timed: bool) -> None:
        self._steps.append((timed, seconds, samples, flops))

    def take(self) -> tuple[float, float]:
        steps = [step for step in self._steps if not step[0]] or self._steps
        _, seconds, samples, flops = (sum(column) for column in zip(*steps, strict=True))
        self._steps = []
        return samples / seconds, flops / seconds


def peak_flops(device: torch.device, stated_tflops: float | None) -> float | None:
    """The device's floating point operations a second: as stated, or by its name."""
    if stated_tflops:
        return stated_tflops * 1e12
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((1e12 * peak for part, peak in PEAK_TFLOPS.items() if part in name), None)


def memory_gib(device: torch.device) -> float:
    """The most memory held so far: the device's, or on a CPU the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def together(parts: list[dict[str, Tensor | float]]) -> dict[str, Tensor | float]:
    """What the passes of an update told, as one: means of numbers, sums of sums and counts."""
    out: dict[str, Tensor | float] = {}
    for name in parts[0]:
        values = [part[name] for part in parts]
        total = sum(values[1:], values[0])
        is_number = not isinstance(total, Tensor) or total.ndim == 0
        out[name] = total / len(parts) if is_number else total
    return out


def gathered(values: Mapping[str, Tensor | float], group: Group) -> dict[str, float]:
    """Means over all processes. A tensor [2, N] is sums and counts of N stretches of flow time and
    becomes ``name_0`` ... of those in which there was something."""
    flat = [torch.as_tensor(v, dtype=torch.float32, device=group.device) for v in values.values()]
    if not flat:
        return {}
    summed = group.sum(torch.cat([value.reshape(-1) for value in flat]))
    out: dict[str, float] = {}
    pieces = summed.split([value.numel() for value in flat])
    for name, shape, piece in zip(values, [v.shape for v in flat], pieces, strict=True):
        if not shape:
            out[name] = piece.item() / group.world
            continue
        sums, counts = piece.view(shape).tolist()
        out |= {
            f"{name}_{index}": total / count
            for index, (total, count) in enumerate(zip(sums, counts, strict=True))
            if count
        }
    return out


class Log:
    """metrics.jsonl for everybody, TensorBoard where it is installed, W&B where it is asked for.

    What an earlier process told after ``step`` is taken back: those steps come again.
    """

    def __init__(self, folder: Path, step: int, wandb: str | None, config: str | None) -> None:
        path = folder / "metrics.jsonl"
        if path.exists():
            lines = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
            durable.write_text(path, "".join(line + "\n" for line in lines), _TAG)
        self.file = path.open("a")
        self.board = self.wandb = None
        try:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        except ImportError:
            pass
        if wandb:
            self.wandb = _wandb(wandb, folder, step, config)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.file.write(json.dumps({"step": step, **values}) + "\n")
        self.file.flush()
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)
        if self.wandb is not None:
            self.wandb.log(dict(values), step=step)

    def close(self) -> None:
        self.file.close()
        if self.board is not None:
            self.board.close()
        if self.wandb is not None:
            self.wandb.finish()


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError):  # cut off by a kill
        return float("inf")


def _wandb(project: str, folder: Path, step: int, config: str | None) -> Run:
    """The run at W&B: the same one when training goes on, a new one when it starts."""
    path = folder / "wandb-id"
    if not step or not path.exists():
        durable.write_text(path, secrets.token_hex(8), _TAG)
    try:
        import wandb
    except ImportError:
        raise extras.missing("wandb", "loop.wandb is set and needs Weights & Biases") from None
    return wandb.init(
        project=project,
        name=folder.name,
        dir=str(folder),
        id=path.read_text(),
        resume="allow",
        config=json.loads(config) if config else None,
    )
