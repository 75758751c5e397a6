"""The files of a folder of rendered clips: its `dataset.json`, the lines of its `metadata.jsonl`,
and its arrays.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import ConfigDict, StrictBool, field_validator, model_validator

from syncflow.config import Config
from syncflow.config.units import Clips, FramesPerSecond, Hertz, Pixels, Seconds, Total
from syncflow.impacts.scene import Scene
from syncflow.impacts.vary import of_any_material
from syncflow.impacts.world import LEVELS, SEEDS, sample_scene
from syncflow.json_types import JsonObject
from syncflow.ranges import Real, Whole

SHARD = 256
"""Clips in one shard."""

CONTAINERS = ("mp4", "shards")


class Plan(Config):
    """Everything that decides a folder's contents; written to `dataset.json`."""

    clips: Clips
    seed: Total
    level: Annotated[int, Whole(min(LEVELS), max(LEVELS))]
    split: str
    height: Pixels
    width: Pixels
    fps: FramesPerSecond
    seconds: Seconds
    sample_rate: Hertz
    container: str
    materials: Literal["level", "all"] = "level"

    def scene(self, number: int) -> Scene:
        """The scene of one clip of the folder."""
        scene = sample_scene(
            SEEDS[self.split].start + self.seed + number,
            self.level,
            self.split,
            self.seconds,
            self.fps,
            self.sample_rate,
        )
        return of_any_material(scene) if self.materials == "all" else scene

    @property
    def video_shape(self) -> tuple[int, int, int, int]:
        """[F, 3, H, W] of a clip."""
        return round(self.seconds * self.fps), 3, self.height, self.width

    @property
    def audio_shape(self) -> tuple[int]:
        """[M] of a clip."""
        return (round(self.seconds * self.sample_rate),)

    def file(self, number: int) -> str:
        """The name, without folder, of the mp4 of a clip or the stem of the shard that holds it."""
        if self.container == "mp4":
            return f"{self.split}_{SEEDS[self.split].start + self.seed + number:08d}.mp4"
        return f"shard_{number // SHARD:05d}"

    def check(self) -> None:
        """Raises ValueError for whatever cannot be made."""
        if self.split not in SEEDS:
            raise ValueError(f"split must be one of {', '.join(SEEDS)}, got {self.split!r}")
        if self.container not in CONTAINERS:
            raise ValueError(
                f"container must be one of {', '.join(CONTAINERS)}, got {self.container!r}"
            )
        size = len(SEEDS[self.split])
        if self.seed + self.clips > size:
            raise ValueError(
                f"the {self.split} split has seeds 0 to {size - 1}, got {self.clips} clips "
                f"from seed {self.seed} on"
            )
        if self.materials == "all" and self.level > 1:
            raise ValueError(f'materials "all" are for level 1; level {self.level} has all of them')
        if min(self.height, self.width) < 16:
            raise ValueError(
                f"height and width must be at least 16 pixels, got {self.height} x {self.width}"
            )
        if self.container == "mp4" and (self.height % 2 or self.width % 2):
            raise ValueError(
                f"an mp4 needs an even height and width, got {self.height} x {self.width}"
            )
        if self.container == "mp4":
            from syncflow.data import media

            media.check_rate("clip.mp4", self.sample_rate)
        self.scene(0)


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
