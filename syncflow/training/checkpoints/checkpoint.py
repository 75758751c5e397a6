"""Checkpoints of a run: complete or absent, readable by any number of processes.

    checkpoints/00001200/manifest.json          step, skipped, seconds, config, parts, checksums
    checkpoints/00001200/part-00000.safetensors tensors by name: model/x, ema/x, exp_avg/x ...
    checkpoints/00001300.damaged                one that could not be read, out of the way
    frozen.safetensors                          what the run does not train, once

``writer`` writes them. Reading compares every file with the checksum in the manifest, that of the
frozen weights too. None is ever deleted because it cannot be read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NotRequired, TypedDict, cast

from safetensors import SafetensorError, safe_open
from torch import Tensor

from syncflow import durable

FOLDER, MANIFEST, FROZEN = "checkpoints", "manifest.json", "frozen.safetensors"
_PART = re.compile(r"part-\d{5}\.safetensors")


class Damaged(ValueError):
    """A checkpoint is not what was written. A disk that cannot be read is an OSError instead."""


def part(rank: int) -> str:
    """The name of a process's file."""
    return f"part-{rank:05d}.safetensors"


class About(TypedDict):
    """What a checkpoint says of itself, beside the run's own words (config, encoders ...).
    ``seconds`` of training; ``parts``: bytes by name; ``frozen``: the sum of those weights."""

    step: int
    skipped: int
    seconds: float
    recent_skips: NotRequired[list[int]]
    parts: dict[str, int]
    checksums: NotRequired[dict[str, str]]
    frozen: NotRequired[str | None]
    config: NotRequired[str]


def manifest(folder: Path) -> About:
    """What a checkpoint says about itself; its tensors are not looked at.

    Raises:
        Damaged: it is not there, or not what was written. OSError: it cannot be read.
    """
    path = folder / MANIFEST
    try:
        about = durable.read_sealed(path)
    except FileNotFoundError:
        raise Damaged(f"{folder} is not complete: it has no {MANIFEST}") from None
    except ValueError as error:
        raise Damaged(str(error)) from None
    wrong = _wrong(about)
    if wrong is not None:
        raise Damaged(f"'{path}' is damaged: {wrong} is {about.get(wrong)!r}")
    return cast(About, about)


def _wrong(about: Mapping[str, object]) -> str | None:
    """The key whose value none of ours could have; manifests had no checksum at first."""
    step, parts = about.get("step"), about.get("parts")
    if type(step) is not int or step < 0:
        return "step"
    skipped = about.get("skipped")
    if type(skipped) is not int or not 0 <= skipped <= step:
        return "skipped"
    seconds = about.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        return "seconds"
    if not (math.isfinite(seconds) and seconds >= 0):
        return "seconds"
    fine = isinstance(parts, dict) and parts and all(_PART.fullmatch(name) for name in parts)
    return None if fine else "parts"


class Saved(Mapping[str, Tensor]):
    """A checkpoint's tensors, read one at a time, and what else it says (``about``).

    Args:
        folder: of the checkpoint.
        rank, world: this process's. Each compares its share of the files with their checksums; a
            process by itself, all.

    Raises:
        Damaged: it is not complete, or not what was written. OSError: it cannot be read.
    """

    def __init__(self, folder: Path, rank: int = 0, world: int = 1) -> None:
        self.about = manifest(folder)
        sums = self.about.get("checksums", {})
        expected = {folder / name: sums.get(name) for name in self.about["parts"]}
        frozen = folder.parent.parent / FROZEN
        # Without a word about frozen weights: of a version that kept no checksums.
        has_frozen = self.about["frozen"] is not None if "frozen" in self.about else frozen.exists()
        if has_frozen:
            expected[frozen] = self.about.get("frozen")
        self._files: dict[str, tuple[safe_open, str]] = {}
        for path in expected:
            prefix = "model/" if path == frozen else ""
            file = _opened(path, self.about["parts"].get(path.name))
            self._files |= {prefix + key: (file, key) for key in file.keys()}  # noqa: SIM118
        for path, checksum in list(expected.items())[rank::world]:
            if checksum is not None and durable.digest(path) != checksum:
                raise Damaged(f"'{path}' is damaged: its checksum is not the one in {MANIFEST}")

    def __getitem__(self, name: str) -> Tensor:
        file, key = self._files[name]
        return file.get_tensor(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def weights(self) -> dict[str, Tensor]:
        """The averaged weights, and those that are not averaged as they are."""
        names = [key.removeprefix("model/") for key in self if key.startswith("model/")]
        return {n: self[f"ema/{n}" if f"ema/{n}" in self else f"model/{n}"] for n in names}


def _opened(path: Path, size: int | None) -> safe_open:
    """A safetensors file of ``size`` bytes (None: any)."""
    try:
        if size is not None and path.stat().st_size != size:
            raise Damaged(f"'{path}' is damaged: it has {path.stat().st_size} bytes, not {size}")
        return safe_open(path, "pt")
    except FileNotFoundError:
        raise Damaged(f"'{path}' is missing") from None
    except SafetensorError as error:
        raise Damaged(f"'{path}' is damaged: {error}") from error


def folders(out: Path) -> list[Path]:
    """The checkpoints of a run, newest first; not those that are known to be damaged."""
    found = [p for p in (out / FOLDER).glob("*") if p.name.isdigit()]
    return sorted(found, key=lambda p: int(p.name), reverse=True)


def damaged(out: Path) -> list[Path]:
    """Those that were put aside."""
    return sorted((out / FOLDER).glob(f"*{durable.DAMAGED}*"))


def newest(out: Path) -> Saved | None:
    """The newest checkpoint that is not damaged; None where there is none."""
    for folder in folders(out):
        try:
            return Saved(folder)
        except Damaged:
            continue
    return None
