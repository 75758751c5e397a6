"""What training asks of a folder of raw clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from syncflow.data import impacts_dataset
from syncflow.data.manifest import Geometry
from syncflow.impacts.scene import Attributes
from syncflow.json_types import JsonObject


class ClipShards:
    """Memory-mapped clips: ``video(i)`` uint8 [F,3,H,W], ``audio(i)`` float32 [M], ``caption(i)``,
    ``contact_times(i)`` in seconds (audible ones in the picture)."""

    def __init__(self, folder: str | Path) -> None:
        self._shards = impacts_dataset.read_shards(folder)

    def __len__(self) -> int:
        return len(self._shards)

    @property
    def fps(self) -> float:
        return self._shards.plan.fps

    @property
    def sample_rate(self) -> int:
        return self._shards.plan.sample_rate

    @property
    def geometry(self) -> Geometry:
        """The keyword arguments of ``ClipSpec``."""
        plan = self._shards.plan
        return {
            "seconds": plan.seconds,
            "fps": plan.fps,
            "height": plan.height,
            "width": plan.width,
            "sample_rate": plan.sample_rate,
        }

    @property
    def about(self) -> JsonObject:
        """What decides the clips (``dataset.json``), but for how many there are."""
        return self._shards.plan.model_dump(exclude={"clips"})

    def kind(self, index: int) -> str:
        """The kind of event that a clip shows."""
        return self._shards.metadata[int(index)]["attributes"]["kind"]

    def video(self, index: int) -> np.ndarray:
        return self._shards.video(int(index))

    def audio(self, index: int) -> np.ndarray:
        return self._shards.audio(int(index))

    def caption(self, index: int) -> str:
        return self._shards.metadata[int(index)]["caption"]

    def attributes(self, index: int) -> Attributes:
        """What its caption may mention, and what it does (``mentioned``)."""
        attributes: Attributes = self._shards.metadata[int(index)]["attributes"]
        return attributes

    def contact_times(self, index: int) -> list[float]:
        return [
            contact["time_s"]
            for contact in self._shards.metadata[int(index)]["contacts"]
            if contact["audible"] and contact["visible"]
        ]
