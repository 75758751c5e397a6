"""The one training loop: every task of every stage runs through ``fit``.

A step's data and noise depend only on (seed, step), so a resumed run equals an uninterrupted one
bit for bit without storing any generator's state.
"""

from __future__ import annotations

import math
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from syncflow import durable
from syncflow.model_io import tensors
from syncflow.progress import bar
from syncflow.training import logging
from syncflow.training.alone import alone
from syncflow.training.batches import Batches
from syncflow.training.checkpoints import checkpoint, resume, weights
from syncflow.training.checkpoints.writer import TAG, Writer
from syncflow.training.clock import Clock
from syncflow.training.compiling import compile_blocks
from syncflow.training.distributed import engine
from syncflow.training.distributed.groups import Group
from syncflow.training.optim import power_ema, precision
from syncflow.training.passes import Passes
from syncflow.training.recompute import recompute
from syncflow.training.settings import LoopConfig
from syncflow.training.stopping import StopOnSignal
from syncflow.training.tasks.task import Task

if TYPE_CHECKING:
    from syncflow.clip import Clip


# Updates among which ``max_nonfinite`` may have a loss or gradient that is not finite.
_STRETCH = 1000


class Diverged(RuntimeError):
    """Too many of the last steps had a loss or gradient that is not finite."""


def fit(
    task: Task,
    config: LoopConfig,
    out: str | Path,
    progress: bool = True,
    device: str | torch.device = "cpu",
    metadata: dict[str, str] | None = None,
    group: Group | None = None,
) -> Path:
    """Trains ``task.module`` and writes ``model.safetensors`` (averaged weights) into ``out``.

    Resumes from the newest checkpoint in ``out``; SIGTERM and Ctrl-C save one first.

    Args:
        metadata: JSON by name, for the weights' file and every checkpoint: ``config``, and what the
            weights are tied to, which must be the same when the run goes on.
        group: the processes that train together; alone where it is not given.

    Raises:
        ValueError: ``out`` was begun with another config or other data, none of its checkpoints can
            be read, another training is running in it, or the processes cannot share a batch.
        Diverged: more than ``max_nonfinite`` of the last 1000 steps had a loss or gradient that is
            not finite; the state is saved.
        OSError: something cannot be written; what was saved before stays.
        SystemExit: stopped by SIGTERM, code 0. KeyboardInterrupt: by Ctrl-C. Both have saved.
    """
    out, metadata = Path(out), metadata or {}
    group = group or Group(device=torch.device(device))
    final = out / weights.FINAL
    if final.exists() and not resume.goes_on(final, config, metadata.get("config"), group.leads):
        return final
    with alone(out, group):
        return _Run(task, config, out, progress, metadata, group).go()


class _Run:
    """One call of ``fit``."""

    def __init__(
        self,
        task: Task,
        config: LoopConfig,
        out: Path,
        progress: bool,
        metadata: dict[str, str],
        group: Group,
    ) -> None:
        if group.world > 1 and config.randomness == "batch":
            raise ValueError(f'{group.world} processes need loop.randomness "sample" or "device"')
        group.rows(config.batch_size)
        self.task, self.config, self.out, self.group = task, config, out, group
        self.metadata = metadata
        out.mkdir(parents=True, exist_ok=True)
        if config.threads:
            torch.set_num_threads(config.threads)
        if group.leads:
            print(f"{out}: {precision.told(config, group.device)}", flush=True)
        start = resume.find(out, metadata, group)
        if start.state:
            own = task.module.state_dict()
            own |= {k: start.state[f"model/{k}"] for k in own if f"model/{k}" in start.state}
            task.module.load_state_dict(own)
        compile_blocks(task.module, config)
        recompute(task.module, config.recompute)
        self.engine = engine.build(task, config, group)
        self.step, self.skipped, self.recent = start.step, start.skipped, list(start.recent)
        self.saved_step: int | None = None
        if start.state:
            self.engine.restore(start.state, start.step - start.skipped)
        self.clock = Clock(config, group, start.seconds)
        self.writer = Writer(out, group.rank, group.world, config.keep_last, config.keep_every)
        self.log = None
        if group.leads:
            for folder in start.damaged:  # their names are needed
                print(f"{out}: damaged, now {durable.put_aside(folder)}", flush=True)
            if start.state:
                self.writer.frozen = start.frozen
            else:  # anew: an earlier run that came to nothing may have left others
                self.writer.save_frozen(self.engine.frozen())
            self.log = logging.Log(out, start.step, config.wandb, metadata.get("config"))
            if start.step:
                told = "; ".join(["", *start.changed])
                print(f"{out}: resumed at step {start.step}{told}", flush=True)
        group.barrier()
        self.watch = group.watch
        self.pace = logging.Pace()
        peak = logging.peak_flops(group.device, config.peak_tflops)
        # Counting traces the whole model: only where a share of the peak can be told.
        self.peak = peak if peak and task.flops(0) is not None else None
        passes = self.passes = Passes(task, config, group)
        self.batches = Batches(task, config.prefetch, passes.source, config.readers, group.device)
        shown = progress and group.leads
        self.bar = bar(
            total=config.steps, initial=start.step, desc=out.name, shown=shown, mininterval=2
        )

    def go(self) -> Path:
        config, group, saved = self.config, self.group, time.monotonic()
        with StopOnSignal() as stop, self.bar, self.batches:
            while not self.clock.over(self.step):
                late = time.monotonic() - saved > 60 * config.checkpoint_minutes
                stopping, saving = group.any(stop.asked is not None, late and group.leads)
                if stopping:
                    break
                if saving:
                    self._save()
                    saved = time.monotonic()
                self._advance()
                if _due(self.step, config.checkpoint_every):
                    self._save()
                    saved = time.monotonic()
        self._save()
        self.writer.wait()
        if not self.clock.over(self.step):
            self._close()
            if group.leads:
                print(f"{self.out}: stopped at step {self.step}; rerun to resume", flush=True)
            if stop.asked == signal.SIGINT:
                raise KeyboardInterrupt
            raise SystemExit(0)
        self._finish()
        self._close()
        return self.out / weights.FINAL

    def _finish(self) -> None:
        """Writes the final weights; where that fails, the last checkpoint has them."""
        values, failed = self.engine.weights(), None
        if self.group.leads:
            about = {"steps": str(self.step), "seconds": f"{math.ceil(self.clock.seconds())}"}
            try:
                values = self.task.finish(values, self.out)
                tensors.save(self.out / weights.FINAL, values, {**self.metadata, **about}, TAG)
            except OSError as error:
                failed = error
        if self.group.any(failed is not None)[0]:
            kept = self.out / checkpoint.FOLDER / f"{self.step:08d}"
            raise OSError(
                f"the final weights could not be written: {failed or 'see the first process'}; "
                f"they are kept in {kept}: make room and run this again"
            ) from failed

    def _snapshot(self) -> None:
        """Writes the power function averages."""
        failed = None
        for index, length in enumerate(self.config.average_lengths):
            values = self.engine.power(index)
            if self.group.leads and failed is None:
                try:
                    power_ema.write(self.out, self.step, length, values, self.metadata, TAG)
                except OSError as error:
                    failed = error
        if self.group.any(failed is not None)[0]:  # all must hear of it, or they wait for this one
            raise failed or OSError("the first process cannot write the averages")

    def _close(self) -> None:
        if self.log is not None:
            self.log.close()

    def _save(self) -> None:
        # Never a step twice: the one that leads may have renamed its folder while others write.
        if self.saved_step == self.step:
            return
        self.saved_step = self.step
        state = self.engine.state()
        self.writer.save(
            state,
            {
                "step": self.step,
                "skipped": self.skipped,
                "recent_skips": self.recent,
                "seconds": self.clock.seconds(),
                "world": self.group.world,
                **self.metadata,
            },
        )

    def _advance(self) -> None:
        """One step and what is told about it."""
        config, next_step = self.config, self.step + 1
        told = _due(next_step, config.log_every, 1)
        self.watch.begin(told)
        begun = time.perf_counter()
        loss, metrics = self._accumulate()
        self.engine.synchronise()
        lr = self.clock.learning_rate(self.step)
        with self.watch.phase("optimizer"):
            norm = self.engine.step(lr, self.step, loss)
        self.watch.end()
        seconds = time.perf_counter() - begun
        flops = self.passes.flops(self.step) if self.peak else 0.0
        self.pace.add(seconds, self.passes.samples(self.step), flops, told)
        self.step = next_step
        self.clock.read()
        self.bar.update()
        if norm is None:
            self._skip()
        elif told:
            values = logging.gathered({"loss": loss, **metrics}, self.group)
            values |= {"grad_norm": norm, "lr": lr}
            self.bar.set_postfix(
                {k: f"{values[k]:.3g}" for k in ("loss", "grad_norm", "lr")}, refresh=False
            )
            values |= self._speed()
            self._tell(values)
        last = self.step if self.clock.over(self.step) else 0
        if _due(self.step, config.validate_every, last):
            self._validate()
        if _due(self.step, config.average_every):
            self._snapshot()
        if _due(self.step, self.task.clips_every, last):
            self._clips()

    def _accumulate(self) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The gradients of an update; its mean loss and what is told of all its passes."""
        losses: list[Tensor] = []
        told: list[dict[str, Tensor | float]] = []
        for index in self.passes.of(self.step):
            with self.watch.phase("data"):
                batch = self.batches.take(index)
                if index + 1 < self.passes.total:
                    self.batches.prepare(index + 1)
            with self.watch.phase("forward"):
                loss, metrics = self.engine.loss(batch, self.passes.source(index))
            with self.watch.phase("backward"):
                self.engine.backward(loss)
            losses.append(loss.detach())
            told.append(metrics)
        return torch.stack(losses).mean(), logging.together(told)

    def _skip(self) -> None:
        """The update that just was is left out."""
        self.skipped += 1
        self.recent = [s for s in self.recent if s > self.step - _STRETCH] + [self.step]
        if self.group.leads:
            why = "not finite, or a spike" if self.config.max_spike else "not finite"
            clips = self.passes.clips(self.step - 1)
            whose = f"; clips: {clips}" if clips else ""
            self.bar.write(f"{self.out.name} {self.step}: {why}, left out{whose}")
        if len(self.recent) > self.config.max_nonfinite:
            self._save()
            self.writer.wait()
            self._close()
            raise Diverged(
                f"{len(self.recent)} of the last {min(self.step, _STRETCH)} steps had a loss or "
                f"gradient that is not finite, or a spike; lower lr (now {self.config.lr}), say so "
                f'("changed": ["lr"] in loop) and resume, or start from an earlier checkpoint in '
                f"{self.out} with init; step {self.step} is saved"
            )

    def _speed(self) -> dict[str, float]:
        samples, flops = self.pace.take()
        out = {
            "seconds": self.clock.seconds(),
            "samples_per_second": samples,
            "memory_gib": logging.memory_gib(self.group.device),
            **self.watch.split(),
        }
        if self.peak:
            out["mfu"] = flops / (self.peak * self.group.world)
        return out

    def _validate(self) -> None:
        found = cast("dict[str, float]", self.engine.evaluate("validate"))
        values = {f"val_{k}": v for k, v in found.items() if math.isfinite(v)}
        self._tell(values)
        if self.group.leads:
            shown = {k: v for k, v in values.items() if "_se" not in k}
            what = "  ".join(f"{k} {v:.4g}" for k, v in shown.items())
            self.bar.write(f"{self.out.name} {self.step}: {what}")

    def _clips(self) -> None:
        clips = cast("list[Clip]", self.engine.evaluate("clips"))
        if self.log is not None:
            from syncflow.training.tasks import samples as shown

            shown.write(clips, self.out, self.step, self.log.board)

    def _tell(self, values: dict[str, float]) -> None:
        if self.log is not None:
            self.log.write(self.step, values)


def _due(step: int, every: int, also: int = 0) -> bool:
    """Whether something is done at this step: at every so many, and at ``also``; 0 = never."""
    return bool(every) and (step % every == 0 or step == also)
