"""Going on with a run: its newest checkpoint, and whether the config is still the same."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from torch import Tensor

from syncflow import durable
from syncflow.json_types import JsonObject
from syncflow.model_io import tensors
from syncflow.training import settings
from syncflow.training.checkpoints import checkpoint
from syncflow.training.distributed.groups import Group
from syncflow.training.optim import optimizer

# What may change while a run lasts: how long it is, where it goes, what it tells, how it is shared
# out. Everything else decides what is learned.
_FREE = {"out", "validation", "samples", "cache"}
_FREE_LOOP = {
    "steps", "minutes", "threads", "checkpoint_minutes", "checkpoint_every", "keep_last",
    "keep_every", "log_every", "validate_every", "max_nonfinite", "prefetch", "readers",
    "recompute", "compile", "wandb", "peak_tflops", "deepspeed", "sequence_parallel", "changed",
    "average_every",
}  # fmt: skip


@dataclass(frozen=True)
class Start:
    """Where a run begins: ``step`` 0 with no state, or a checkpoint's.

    ``recent``: the steps that were skipped not long ago; ``frozen``: the checksum of the weights
    that are not trained; ``damaged``: the checkpoints after this one, which cannot be read.
    """

    step: int = 0
    skipped: int = 0
    seconds: float = 0.0
    recent: tuple[int, ...] = ()
    state: Mapping[str, Tensor] = field(default_factory=dict)
    frozen: str | None = None
    damaged: tuple[Path, ...] = ()
    #: Settings that are other ones from here on, as ``loop.changed`` allows.
    changed: tuple[str, ...] = ()


def find(out: Path, metadata: Mapping[str, str], group: Group) -> Start:
    """The newest checkpoint below ``out`` that no process finds damaged; they agree on it.

    Raises:
        ValueError: it was made with another config or on other data, or there are checkpoints and
            none can be read.
        OSError: the disk cannot be read, which says nothing about the checkpoints.
    """
    saved, damaged = _newest(out, group)
    if saved is None:
        return Start()
    about = saved.about
    changed, allowed = _differences(about.get("config"), metadata.get("config"))
    if changed:
        raise ValueError(
            f"{out} was started with another config: {'; '.join(changed)}. Give another out, "
            "restore the config, or start from its weights with init"
        )
    changed = _other_data(cast("Mapping[str, str]", about), metadata)
    if changed:
        raise ValueError(
            f"{out} was trained on other data: {'; '.join(changed)}. Give another out, restore the "
            "data, or start from its weights with init"
        )
    frozen = about.get("frozen")
    if frozen is None and "frozen" not in about and (out / checkpoint.FROZEN).exists():
        frozen = durable.digest(out / checkpoint.FROZEN)
    return Start(
        about["step"],
        about["skipped"],
        about["seconds"],
        tuple(about.get("recent_skips", ())),
        saved,
        frozen,
        tuple(damaged),
        tuple(allowed),
    )


def _newest(out: Path, group: Group) -> tuple[checkpoint.Saved | None, list[Path]]:
    """The newest checkpoint that can be read, and the damaged ones after it."""
    damaged: list[Path] = []
    reason = ""
    for folder in checkpoint.folders(out):
        saved = problem = unread = None
        try:
            saved = checkpoint.Saved(folder, group.rank, group.world)
        except checkpoint.Damaged as error:
            problem = str(error)
        except OSError as error:  # all must hear of it, or they wait for this one
            unread = error
        bad, stop = group.any(problem is not None, unread is not None)
        if stop:
            raise unread or OSError(f"another process cannot read '{folder}'")
        if not bad:
            return saved, damaged
        damaged.append(folder)
        reason = reason or problem or f"another process finds '{folder}' damaged"
        if problem is not None:
            print(f"{problem}; trying the one before", flush=True)
    left = damaged + checkpoint.damaged(out)
    if left:
        raise ValueError(
            f"none of the {len(left)} checkpoints in {out / checkpoint.FOLDER} can be read, and "
            f"nothing was changed ({reason or f'{left[0].name} was put aside before'}). Put back a "
            "copy of what is damaged, or give another out to start anew; frozen.safetensors is "
            "written at the start of any run of the same config"
        )
    return None, []


def _other_data(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What of the data is not what a run was begun with, by name, with both values."""
    changed = []
    for key in now.keys() - {"config", "config_hash"}:
        if key not in before or before[key] == now[key]:
            continue
        old, new = json.loads(before[key]), json.loads(now[key])
        if not isinstance(old, dict) or not isinstance(new, dict):
            old, new = {key: old}, {key: new}
            key = ""
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                where = f"{key} {name}".strip()
                values = (textwrap.shorten(repr(v.get(name)), 60) for v in (old, new))
                changed.append("{} was {} and is {}".format(where, *values))
    return changed


def goes_on(final: Path, config: settings.LoopConfig, text: str | None, tells: bool) -> bool:
    """Whether the finished run that ended in ``final`` is to be longer now; the process that
    ``tells`` says what becomes of it."""
    out = final.parent
    about = tensors.about(final)
    changed = differing(about.get("config"), text)
    done, seconds = int(about.get("steps", config.steps or 0)), float(about.get("seconds", 0))
    if config.minutes is not None:
        is_short, end = seconds < 60 * config.minutes, f"minute {config.minutes:g}"
    else:
        is_short, end = done < (config.steps or 0), f"{config.steps}"
    longer = not changed and is_short and bool(checkpoint.folders(out))
    if tells and not longer:
        print(f"{out}: finished before{' with another config' if changed else ''}, skipped")
    elif tells:
        told = f"{out}: finished at step {done}, goes on to {end}"
        before = json.loads(about["config"]).get("loop") if about.get("config") else None
        if before:
            old = settings.LoopConfig.model_validate(before)
            was = optimizer.learning_rate(done - 1, old, seconds)
            rate = optimizer.learning_rate(done, config, seconds)
            if abs(rate - was) > 0.1 * config.lr:
                told += f"; lr jumps from {was:.3g} to {rate:.3g}"
        print(told)
    return longer


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


def _decisive(text: str) -> JsonObject:
    values = json.loads(text)
    try:  # settings that did not exist then have their defaults
        config = settings.TrainConfig.parse({"run": values}).run
        values = json.loads(config.model_dump_json())
    except ValueError:
        pass
    values = {k: v for k, v in values.items() if k not in _FREE}
    loop = {k: v for k, v in values.get("loop", {}).items() if k not in _FREE_LOOP}
    if loop.get("randomness") in ("sample", "device"):
        parts = loop.pop("accumulate")
        loop["batch_size * accumulate"] = loop.pop("batch_size") * parts
        for bucket in values["data"] if isinstance(values.get("data"), list) else ():
            bucket["batch_size"] = (bucket["batch_size"] or 0) * parts
    return values | {"loop": loop}


def _flat(values: JsonObject, prefix: str = "") -> JsonObject:
    out: JsonObject = {}
    for key, value in values.items():
        if isinstance(value, dict):
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = value
    return out
