"""The one training loop: every task of every stage runs through ``fit``.

A step's data and noise depend only on (seed, step), so a resumed run equals an uninterrupted one
bit for bit without storing any generator's state.
"""

from __future__ import annotations

import json
import math
import signal
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from syncflow.training import checkpoint, optimizer
from syncflow.training.settings import LoopConfig


class Task(Protocol):
    """What the loop needs to know of a task."""

    module: nn.Module  # what is trained and saved

    def batch(self, step: int) -> Any: ...

    def loss(self, batch: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]: ...

    def validate(self, module: nn.Module) -> dict[str, float]: ...


def epoch_indices(size: int, seed: int, step: int, batch_size: int) -> np.ndarray:
    """Which samples step ``step`` sees: every epoch is a new permutation, none is repeated or
    skipped within it."""
    first = step * batch_size
    places = np.arange(first, first + batch_size)
    out = np.empty(batch_size, dtype=np.int64)
    for epoch in np.unique(places // size):
        here = places // size == epoch
        permutation = np.random.default_rng([seed, int(epoch)]).permutation(size)
        out[here] = permutation[places[here] % size]
    return out


class _Log:
    """metrics.jsonl for everybody, TensorBoard where it is installed."""

    def __init__(self, folder: Path) -> None:
        self.file = (folder / "metrics.jsonl").open("a")
        try:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"))
        except ImportError:
            self.board = None

    def write(self, step: int, values: dict[str, float]) -> None:
        self.file.write(json.dumps({"step": step, **values}) + "\n")
        self.file.flush()
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)

    def close(self) -> None:
        self.file.close()
        if self.board is not None:
            self.board.close()


def fit(
    task: Task, config: LoopConfig, out: str | Path, progress: bool = True,
    device: str | torch.device = "cpu", metadata: dict[str, str] | None = None,
) -> Path:
    """Trains ``task.module`` and writes ``model.safetensors`` (averaged weights) into ``out``.

    Resumes from the newest checkpoint in ``out``; SIGTERM and Ctrl-C save one first.

    Raises:
        RuntimeError: more than ``max_nonfinite`` steps had a loss or gradient that is not finite.
    """
    out, device = Path(out), torch.device(device)
    final = out / checkpoint.FINAL
    if final.exists():
        same = checkpoint.metadata(final).get("config_hash") == (metadata or {}).get("config_hash")
        print(f"{out}: finished before{'' if same else ' with another config'}, skipped")
        return final
    out.mkdir(parents=True, exist_ok=True)
    if config.threads:
        torch.set_num_threads(config.threads)
    module = task.module.to(device).train()
    optimizers = optimizer.build(module, config)
    parameters = [p for p in module.parameters() if p.requires_grad]
    average = checkpoint.Average(module, config.ema)
    step, skipped, seconds = _resume(out, module, optimizers, average)
    log, stop = _Log(out), _StopOnSignal()
    bar = tqdm(
        total=config.steps, initial=step, desc=out.name, disable=not progress, mininterval=2
    )
    saved, begun = time.monotonic(), time.monotonic() - seconds

    def state() -> dict[str, Any]:
        return {
            "step": step, "skipped": skipped, "seconds": time.monotonic() - begun,
            "model": module.state_dict(), "ema": average.weights,
            "optimizers": [o.state_dict() for o in optimizers],
        }

    with stop, bar:
        while step < config.steps and not stop.asked:
            metrics = _step(task, config, module, parameters, optimizers, step, device)
            if metrics is None:
                skipped += 1
                if skipped > config.max_nonfinite:
                    raise RuntimeError(
                        f"{skipped} steps had a loss or gradient that is not finite; "
                        f"lower lr (now {config.lr}) or resume from an earlier checkpoint in {out}"
                    )
            else:
                average.update(module, step)
            step += 1
            bar.update()
            if metrics and (step % config.log_every == 0 or step == 1):
                bar.set_postfix({k: f"{v:.3g}" for k, v in metrics.items()}, refresh=False)
                log.write(step, {**metrics, "seconds": time.monotonic() - begun})
            if step % config.validate_every == 0 or step == config.steps:
                values = _validate(task, module, average)
                log.write(step, values)
                bar.write(f"{out.name} {step}: " + "  ".join(f"{k} {v:.4g}" for k, v in values.items()))
            if time.monotonic() - saved > 60 * config.checkpoint_minutes:
                checkpoint.save(out, state())
                saved = time.monotonic()
    checkpoint.save(out, state())
    log.close()
    if stop.asked:
        print(f"{out}: stopped at step {step}, resumes from there")
        raise SystemExit(0)
    checkpoint.save_weights(
        final, average.of(module),
        {**(metadata or {}), "steps": str(step), "seconds": f"{time.monotonic() - begun:.0f}"},
    )
    return final


def _step(
    task: Task, config: LoopConfig, module: nn.Module, parameters: list[nn.Parameter],
    optimizers: list[torch.optim.Optimizer], step: int, device: torch.device,
) -> dict[str, float] | None:
    """One optimizer step; None when something was not finite and the step was left out."""
    metrics: dict[str, float] = {}
    for part in range(config.accumulate):
        index = step * config.accumulate + part
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + index)
        autocast = (
            torch.autocast(device.type, torch.bfloat16)
            if config.precision == "bf16" else nullcontext()
        )
        with autocast:
            loss, metrics = task.loss(task.batch(index), generator)
        (loss / config.accumulate).backward()
    norm = torch.nn.utils.clip_grad_norm_(parameters, config.clip)
    lr = optimizer.learning_rate(step, config)
    finite = bool(torch.isfinite(norm)) and bool(torch.isfinite(loss))
    for each in optimizers:
        for group in each.param_groups:
            group["lr"] = lr
        if finite:
            each.step()
        each.zero_grad(set_to_none=True)
    if not finite:
        return None
    return {"loss": loss.item(), **metrics, "grad_norm": norm.item(), "lr": lr}


@torch.no_grad()
def _validate(task: Task, module: nn.Module, average: checkpoint.Average) -> dict[str, float]:
    """Validation with the averaged weights, on the same clips and noise every time."""
    own = {k: v.detach().clone() for k, v in module.state_dict().items()}
    module.load_state_dict(average.of(module))
    module.eval()
    values = {
        f"val_{k}": v for k, v in task.validate(module).items() if math.isfinite(v)
    }
    module.load_state_dict(own)
    module.train()
    return values


def _resume(
    out: Path, module: nn.Module, optimizers: list[torch.optim.Optimizer],
    average: checkpoint.Average,
) -> tuple[int, int, float]:
    state = checkpoint.load(out)
    if state is None:
        return 0, 0, 0.0
    module.load_state_dict(state["model"])
    for each, saved in zip(optimizers, state["optimizers"], strict=True):
        each.load_state_dict(saved)
    for name, value in state["ema"].items():
        average.weights[name].copy_(value)
    print(f"{out}: resumed at step {state['step']}")
    return state["step"], state["skipped"], state["seconds"]


class _StopOnSignal:
    """Turns SIGTERM and Ctrl-C into a request to save and stop."""

    def __enter__(self) -> _StopOnSignal:
        self.asked = False
        self.before = {}
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                self.before[number] = signal.signal(number, self._ask)
        except ValueError:  # not the main thread: signals stay as they are
            pass
        return self

    def _ask(self, *_: Any) -> None:
        self.asked = True

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
