"""Going on with a run: its newest checkpoint, and whether the config is still the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from syncflow.training import settings
from syncflow.training.checkpoints import checkpoint
from syncflow.training.optim import optimizer

# What may change while a run lasts: how long it is, where it goes, what it tells, how it is shared
# out. Everything else decides what is learned.
_FREE = {"out", "validation", "samples"}
_FREE_LOOP = {
    "steps", "threads", "checkpoint_minutes", "checkpoint_every", "keep_last", "keep_every",
    "log_every", "validate_every", "max_nonfinite", "prefetch", "recompute", "wandb",
    "peak_tflops", "deepspeed", "sequence_parallel", "changed", "average_every",
}  # fmt: skip


@dataclass(frozen=True)
class Start:
    """Where a run begins: ``step`` 0 with no state, or a checkpoint's."""

    step: int = 0
    skipped: int = 0
    seconds: float = 0.0
    state: Mapping[str, Tensor] = field(default_factory=dict)
    #: Settings that are other ones from here on, as ``loop.changed`` allows.
    changed: list[str] = field(default_factory=list)


def find(out: Path, config: str | None) -> Start:
    """The newest readable checkpoint below ``out``.

    Raises:
        ValueError: it was made with another config.
    """
    saved = checkpoint.newest(out)
    if saved is None:
        return Start()
    about = saved.about
    changed, allowed = _differences(about.get("config"), config)
    if changed:
        raise ValueError(
            f"{out} was started with another config: {'; '.join(changed)}. Give another out, "
            "restore the config, or start from its weights with init"
        )
    return Start(about["step"], about["skipped"], about["seconds"], saved, allowed)


def goes_on(final: Path, config: settings.LoopConfig, text: str | None, tells: bool) -> bool:
    """Whether the finished run that ended in ``final`` is to be longer now; the process that
    ``tells`` says what becomes of it."""
    out = final.parent
    about = checkpoint.metadata(final)
    changed = differing(about.get("config"), text)
    done = int(about.get("steps", config.steps))
    longer = not changed and done < config.steps and bool(checkpoint.folders(out))
    if tells and not longer:
        print(f"{out}: finished before{' with another config' if changed else ''}, skipped")
    elif tells:
        told = f"{out}: finished at step {done}, goes on to {config.steps}"
        before = json.loads(about["config"]).get("loop") if about.get("config") else None
        if before:
            old = settings.LoopConfig.model_validate(before)
            rates = optimizer.learning_rate(done - 1, old), optimizer.learning_rate(done, config)
            if abs(rates[1] - rates[0]) > 0.1 * config.lr:
                told += f"; lr jumps from {rates[0]:.3g} to {rates[1]:.3g}"
        print(told)
    return longer


def drop_damaged(out: Path, step: int) -> None:
    """Removes checkpoints after ``step``: they could not be read, and their names are needed."""
    for folder in checkpoint.folders(out):
        if int(folder.name) > step:
            shutil.rmtree(folder)


def differing(before: str | None, now: str | None) -> list[str]:
    """The keys in which two configs differ, with both values; [] where one is not known. What the
    present one names in ``loop.changed`` may differ."""
    return _differences(before, now)[0]


def _differences(before: str | None, now: str | None) -> tuple[list[str], list[str]]:
    """Those that are refused, and those that are allowed."""
    if not before or not now:
        return [], []
    old, new = _flat(_decisive(before)), _flat(_decisive(now))
    free = {f"loop.{name}" for name in json.loads(now).get("loop", {}).get("changed", [])}
    found: tuple[list[str], list[str]] = [], []
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            found[key in free].append(f"{key} was {old.get(key)!r} and is {new.get(key)!r}")
    return found


def _decisive(text: str) -> dict[str, Any]:
    values = json.loads(text)
    try:  # settings that did not exist then have their defaults
        config = settings.TrainConfig.parse({"run": values}).run
        values = json.loads(config.model_dump_json())
    except ValueError:
        pass
    values = {k: v for k, v in values.items() if k not in _FREE}
    loop = {k: v for k, v in values.get("loop", {}).items() if k not in _FREE_LOOP}
    if loop.get("randomness") == "sample":
        parts = loop.pop("accumulate")
        loop["batch_size * accumulate"] = loop.pop("batch_size") * parts
        for bucket in values["data"] if isinstance(values.get("data"), list) else ():
            bucket["batch_size"] = (bucket["batch_size"] or 0) * parts
    return values | {"loop": loop}


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = value
    return out
