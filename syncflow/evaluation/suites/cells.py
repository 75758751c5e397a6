"""Cells of a grid of accelerations: what each asks of a model, and the model that answers it."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from syncflow import flow
from syncflow.evaluation.suites.systems import Model
from syncflow.models.text.int8 import quantize_linears
from syncflow.sampling import OPTIONS

if TYPE_CHECKING:
    from syncflow.generation.pipeline import SyncFlow
    from syncflow.models.ddit import DDiT


#: Axis -> values as they are written, of each grid; the product of its axes are its cells.
Grid = Mapping[str, Sequence[str]]

DTYPES, PARTS = ("fp32", "bf16", "int8", "fp8"), ("both", "video", "audio")
_BEYOND_SAMPLING = ("dtype", "compile", "guidance_interval")


@dataclass(frozen=True)
class Cell:
    """One way to run a model.

    Attributes:
        label: what it changes, for tables.
        sampling: options of ``generate``.
        dtype: of ``DTYPES``, "" = as the model was loaded.
        part: the towers that the dtype is of.
        compile: whether steps run through ``torch.compile``.
    """

    label: str
    sampling: dict[str, float | str] = field(default_factory=dict)
    dtype: str = ""
    part: str = "both"
    compile: bool = False

    @property
    def not_run(self) -> str | None:
        """Why it cannot run here."""
        if self.dtype == "fp8":
            return "fp8 needs a GPU's 8-bit products, and there is no such path on a CPU"
        return None


def cells(grids: Sequence[Grid], own: Mapping[str, object]) -> tuple[Cell, list[Cell]]:
    """The full run and every other cell of some grids.

    The full run is the model's own settings (``own``) with the most steps that it or a grid has, no
    cache, and, where a grid has the axis, guidance all the way and fp32. A cell is the full run but
    for what it names.

    Raises:
        ValueError: an axis or a value that is none.
    """
    given = {axis.replace("-", "_") for grid in grids for axis in grid}
    found = [
        _cell(dict(zip(grid, values, strict=True)))
        for grid in grids
        for values in itertools.product(*grid.values())
    ]
    full = Cell("full run", {"cache": "off"})
    steps = [cell.sampling["steps"] for cell in found if "steps" in cell.sampling]
    if steps:
        full.sampling["steps"] = max(cast("list[int]", [*steps, own.get("steps") or 1]))
    if "guidance_interval" in given:
        full.sampling.update(guidance_start=0.0, guidance_end=1.0)
    if "dtype" in given:
        full = replace(full, dtype="fp32")
    others: list[Cell] = []
    for cell in found:
        sampling = {**full.sampling, **cell.sampling}
        whole = replace(cell, sampling=sampling, dtype=cell.dtype or full.dtype)
        same = [replace(one, label="") for one in (full, *others)]
        if replace(whole, label="") not in same:
            others.append(whole)
    return full, others


def _cell(named: Mapping[str, str]) -> Cell:
    label = ", ".join(f"{axis.replace('_', '-')} {value}" for axis, value in named.items())
    cell = Cell(label)
    for axis, text in named.items():
        name = axis.replace("-", "_")
        if name == "dtype":
            dtype, _, part = text.partition(":")
            cell = replace(cell, dtype=_one_of("dtype", dtype, DTYPES))
            cell = replace(cell, part=_one_of("part of dtype", part or "both", PARTS))
        elif name == "compile":
            cell = replace(cell, compile=_one_of("compile", text, ("off", "on")) == "on")
        elif name == "guidance_interval":
            cell.sampling.update(_interval(text))
        elif name in OPTIONS:
            cell.sampling[name] = _value(name, text)
        else:
            known = ", ".join((*_BEYOND_SAMPLING, *OPTIONS)).replace("_", "-")
            raise ValueError(f"unknown axis {axis!r} of a grid; known are {known}")
    noisy = cell.sampling.get("solver", flow.NOISY_SOLVERS[0]) in flow.NOISY_SOLVERS
    if not noisy and "eta" not in cell.sampling:
        cell.sampling["eta"] = 0.0
        cell = replace(cell, label=f"{label}, eta 0")
    return cell


def _value(name: str, text: str) -> float | str:
    option = OPTIONS[name]
    if option.choices:
        # What the field calls it, of both towers.
        return option.check(name, "both" if (name, text) == ("cache", "first-block") else text)
    try:
        return option.range.parse(text)
    except ValueError as error:
        raise ValueError(f"{name.replace('_', '-')} {text!r} of a grid: it {error}") from None


def _interval(text: str) -> dict[str, float | str]:
    start, dash, end = text.partition("-")
    if not dash:
        raise ValueError(
            f"guidance-interval {text!r} of a grid is no pair of flow times such as 0.1-0.6"
        )
    return {
        "guidance_start": _value("guidance_start", start),
        "guidance_end": _value("guidance_end", end),
    }


def _one_of(name: str, value: str, known: Sequence[str]) -> str:
    if value not in known:
        raise ValueError(f"unknown {name} {value!r} of a grid; known are {', '.join(known)}")
    return value


def is_as_loaded(model: Model, cell: Cell) -> bool:
    """Whether a cell is a matter of sampling alone, so that a model folder can hold it."""
    return not cell.compile and _dtype(cell) in (None, getattr(model, "dtype", torch.float32))


def _dtype(cell: Cell) -> torch.dtype | str | None:
    named = {"": None, "fp32": torch.float32, "bf16": torch.bfloat16}
    if cell.dtype == "bf16" and cell.part != "both":
        return "bf16 of one tower"
    return named.get(cell.dtype, cell.dtype)


def variant(model: Model, cell: Cell) -> Model:
    """The model that a cell asks for: the same one where that does, else one beside it."""
    if is_as_loaded(model, cell):
        return model
    from syncflow.generation import pipeline
    from syncflow.generation.steps import Steps

    loaded = cast("SyncFlow", model)
    if cell.dtype == "fp32" and loaded.dtype != torch.float32 and loaded.folder is not None:
        # The weights as they are in the folder: those in memory have lost bits.
        other = pipeline.load(loaded.folder, loaded.device, torch.float32)
    else:
        other = copy.copy(loaded)
        other.ddit = copy.deepcopy(loaded.ddit)
    other.steps = Steps(graph=loaded.steps.graph, compiled=cell.compile)
    if cell.dtype == "int8":
        _quantize(other.ddit, cell.part)
    elif cell.dtype == "bf16" and cell.part != "both":
        _halve(other.ddit, cell.part)
    elif cell.dtype:
        dtype = _dtype(cell)
        assert isinstance(dtype, torch.dtype)  # the parts of a model and int8 are above
        other.dtype = dtype
        other.ddit.to(dtype)
    if other.device.type == "cuda":
        other.ddit.fold()
    return other


def _quantize(ddit: DDiT, part: str) -> None:
    """8-bit weights for the linear layers of the blocks; embeddings and last layers stay."""
    video, audio = ddit.video_tower, ddit.audio_tower
    if part != "audio":
        for block in (*video.spatial_blocks, *video.temporal_blocks):
            quantize_linears(block)
    if part != "video":
        for module in (*ddit.adaptors, *audio.layers):
            quantize_linears(module)


def _halve(ddit: DDiT, part: str) -> None:
    """bfloat16 for one tower; the adaptors go with the sound, which they speak to."""
    sound = [*ddit.adaptors, *([ddit.upsampler] if ddit.upsampler else []), ddit.audio_tower]
    for module in [ddit.video_tower] if part == "video" else sound:
        module.to(torch.bfloat16)
    border = sound[:-1] + ([ddit.audio_tower.text_in] if ddit.audio_tower.text_in else [])
    for module in border:
        module.register_forward_pre_hook(_cast)


def _cast(module: nn.Module, given: tuple[object, ...]) -> tuple[object, ...]:
    dtype = next(module.parameters()).dtype
    return tuple(x.to(dtype) if torch.is_tensor(x) else x for x in given)


class Passes:
    """``rows``: how many rows went through every block of the video tower, in all."""

    rows = 0


@contextmanager
def counted(model: Model) -> Iterator[Passes]:
    """Counts rows of the video tower's blocks; none of a model that has no such tower."""
    passes, hooks = Passes(), []

    def count(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        passes.rows += len(given[0])

    if hasattr(model, "ddit"):
        tower = model.ddit.video_tower
        blocks = [*tower.spatial_blocks, *tower.temporal_blocks]
        hooks = [block.register_forward_pre_hook(count) for block in blocks]
    try:
        yield passes
    finally:
        for hook in hooks:
            hook.remove()


def whole_passes(model: Model, passes: Passes, clips: int) -> float | None:
    """Rows through the whole of the video tower for every clip: each caption of a step is one."""
    if not hasattr(model, "ddit"):
        return None
    return passes.rows / (2 * cast("SyncFlow", model).config.ddit.video.depth) / clips
