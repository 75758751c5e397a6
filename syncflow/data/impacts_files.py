"""The files of a folder of rendered clips: the lines of its `metadata.jsonl`, and its arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import ConfigDict, StrictBool, field_validator, model_validator

from syncflow.config import Config
from syncflow.config.units import Total
from syncflow.impacts.world import LEVELS
from syncflow.json_types import JsonObject
from syncflow.ranges import Real, Whole


class _Known(Config):
    """What is read of an object that may say more."""

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="before")
    @classmethod
    def _name_the_nearest_key(cls, data: object) -> object:
        return data


class Touch(_Known):
    """When something touches something else, in seconds of its clip."""

    time_s: Annotated[float, Real(-86_400, 86_400, "s")]
    audible: StrictBool
    visible: StrictBool


class Clip(_Known):
    """A line of `metadata.jsonl`: the shard (or file) of a clip, its place there and what is known
    of it."""

    file: str
    row: Annotated[int, Whole(0, 1_000_000)] | None = None
    caption: str
    contacts: list[Touch]
    attributes: JsonObject | None = None
    seed: Total | None = None
    level: Annotated[int, Whole(min(LEVELS), max(LEVELS))] | None = None
    split: str | None = None

    @field_validator("file")
    @classmethod
    def _beside(cls, name: str) -> str:
        if Path(name).name != name:
            raise ValueError(f"must be the name of a file in the folder, got {name!r}")
        return name


def array(path: Path, dtype: type, row: tuple[int, ...]) -> np.ndarray:
    """The memory-mapped array [N, ...] of a shard, of rows of the shape ``row``.

    Raises:
        OSError: it cannot be read. ValueError: it is damaged, or of another type or shape.
    """
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # its header is an expression, and what reads that raises anything
        raise ValueError(f"'{path}' is damaged: {' '.join(str(error).split())}") from None
    if found.dtype != dtype or found.ndim != 1 + len(row) or found.shape[1:] != row:
        raise ValueError(
            f"'{path}' must hold {np.dtype(dtype)} [N, {', '.join(map(str, row))}], got "
            f"{found.dtype} {list(found.shape)}"
        )
    return found
