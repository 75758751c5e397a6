"""Clips of the paper's systems made by several processes that never talk to each other.

Each makes every n-th batch of every system and keeps its clips as they are, bit for bit; whoever
finds all of them there measures them. A batch is there whole or not at all, so that what was
killed is started again and makes what is missing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from syncflow import durable, plain_text
from syncflow.clip import Clip
from syncflow.data import lock
from syncflow.evaluation.suites import datasets
from syncflow.evaluation.suites.datasets import Item
from syncflow.evaluation.suites.paper_systems import Make, System
from syncflow.json_types import JsonObject
from syncflow.progress import bar

#: In the report's folder, until the report is there.
FOLDER = "clips.partial"
_CARD = "settings.json"
#: Beside the report, once it is there: of which clips it is.
_DONE = "shares.json"


class Shares:
    """The batches of all systems in ``out``'s folder of clips.

    Args:
        out: of the report.
        settings: what decides the clips; those of other settings are refused.
        items: all of them. size: height and width of real clips.
        seed, batch: as in ``paper.measure``.

    Raises:
        ValueError: the folder has clips that were made with other settings.
    """

    def __init__(
        self,
        out: Path,
        settings: Mapping[str, object],
        items: Sequence[Item],
        size: tuple[int, int],
        seed: int,
        batch: int,
    ) -> None:
        self.folder, self.items, self.size, self.seed, self.batch = (
            out / FOLDER, items, size, seed, batch,
        )  # fmt: skip
        self.settings: JsonObject = json.loads(
            json.dumps({**settings, "seed": seed, "batch": batch})
        )
        self._done = out / _DONE
        if self.finished:
            return
        with lock.held(self.folder / ".lock", wait=True):
            card = self.folder / _CARD
            if not card.exists():
                durable.write_sealed(card, self.settings)
            found = durable.read_sealed(card)
        now = self.settings
        other = [key for key in {**found, **now} if found.get(key) != now.get(key)]
        if other:
            raise ValueError(
                f"{self.folder} has clips made with another {other[0]}: {found.get(other[0])!r}, "
                f"now {now.get(other[0])!r}; delete it, or give another --out"
            )

    @property
    def finished(self) -> bool:
        """Whether a report of these clips was written before."""
        return self._done.exists() and durable.read_sealed(self._done) == self.settings

    def make(self, systems: Sequence[System], share: tuple[int, int], progress: bool) -> None:
        """Makes what this share has not yet made."""
        index, count = share
        for system in systems:
            for number, make in enumerate(system.makes):
                starts = range(0, len(self.items), self.batch)[index::count]
                for first in bar(starts, desc=system.name, shown=progress, leave=False):
                    if not self._is_there(system, number, first):
                        self._keep(system, number, first, make)

    def complete(self, systems: Sequence[System]) -> bool:
        """Whether every batch of every system is there."""
        return all(
            self._is_there(system, number, first)
            for system in systems
            for number in range(len(system.makes))
            for first in range(0, len(self.items), self.batch)
        )

    def stored(self, system: System) -> System:
        """The system, its clips read and not made."""
        makes = tuple(self._reader(system, number) for number in range(len(system.makes)))
        return replace(system, makes=makes)

    def finish(self) -> None:
        """Removes the clips; the report has what was measured of them."""
        durable.write_sealed(self._done, self.settings)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _keep(self, system: System, number: int, first: int, make: Make) -> None:
        part = datasets.readable(self.items[first : first + self.batch], self.size, {})
        try:
            made = (
                make([i for i, _ in part], [c for _, c in part], self.seed + first) if part else []
            )
        except datasets.USER_ERRORS as error:
            durable.write_text(self._path(system, number, first, "txt"), datasets.reason(error))
            return
        from safetensors.torch import save_file

        tensors: dict[str, Tensor] = {}
        for place, clip in enumerate(made):
            tensors |= {f"video_{place}": clip.video, f"audio_{place}": clip.audio}
        about = [[clip.fps, clip.sample_rate, clip.prompt] for clip in made]
        with durable.replacing(self._path(system, number, first)) as partial:
            kept = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
            save_file(kept, partial, {"clips": json.dumps(about)})

    def _reader(self, system: System, number: int) -> Make:
        def read(items: Sequence[Item], real: Sequence[Clip], seed: int) -> list[Clip]:
            first = seed - self.seed
            refused = self._path(system, number, first, "txt")
            if refused.exists():
                raise ValueError(plain_text.read(refused))
            from safetensors import safe_open

            with safe_open(self._path(system, number, first), "pt") as file:
                about = json.loads((file.metadata() or {})["clips"])
                return [
                    Clip(
                        file.get_tensor(f"video_{place}"),
                        file.get_tensor(f"audio_{place}"),
                        fps,
                        rate,
                        prompt,
                    )
                    for place, (fps, rate, prompt) in enumerate(about)
                ]

        return read

    def _is_there(self, system: System, number: int, first: int) -> bool:
        return any(
            self._path(system, number, first, ending).exists() for ending in ("safetensors", "txt")
        )

    def _path(self, system: System, number: int, first: int, ending: str = "safetensors") -> Path:
        name = "".join(c if c.isalnum() else "-" for c in system.name)
        folder = self.folder / f"{name}-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{first:07d}.{ending}"
