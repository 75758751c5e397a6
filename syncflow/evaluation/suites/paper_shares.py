"""Clips of the paper's systems made by several processes that never talk to each other.

Each makes every n-th batch of every system and keeps its clips as they are, bit for bit; whoever
finds all of them there measures them. A batch is there whole or not at all, so that what was
killed is started again and makes what is missing.
"""

from __future__ import annotations

import hashlib
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
from syncflow.evaluation.suites.paper_systems import Make, Networks, System, checkpoints
from syncflow.json_types import JsonObject
from syncflow.model_io import fingerprint
from syncflow.progress import bar

#: In the report's folder, until the report is there.
FOLDER = "clips.partial"
_CARD = "settings.json"
#: Beside the report, once it is there: of which clips it is.
_DONE = "shares.json"
_REPORT = "report.json"


def sources(
    data: str | Path,
    ablations: Mapping[str, str | Path],
    cascades: Mapping[str, tuple[str, str]],
    networks: Networks,
) -> JsonObject:
    """What lies behind a report's rows and metrics, by content: a folder may change under its name.
    Of the data, which is large, names, sizes and times of change stand for it."""
    films = [path for path in Path(data).rglob("*") if path.suffix.lower() in datasets.MEDIA]
    real = [
        [path.name, path.stat().st_size, path.stat().st_mtime_ns]
        for path in sorted(films)
        if path.is_file()
    ]
    return {
        "data": _hash(real),
        "ablations": {
            name: [_content(path) for path in checkpoints(folder)]
            for name, folder in ablations.items()
        },
        "cascades": {name: [_content(part) for part in parts] for name, parts in cascades.items()},
        "networks": {
            name: _content(given) for name, given in networks.model_dump(exclude_none=True).items()
        },
    }


def _content(source: str | Path) -> str:
    """A hash of a file, or of names and contents in a folder; what is neither, a hub's id or
    module:function, is its own."""
    path = Path(source)
    if path.is_file():
        return fingerprint.of_file(path)
    if not path.is_dir():
        return str(source)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return _hash([[str(file.relative_to(path)), fingerprint.of_file(file)] for file in files])


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[: fingerprint.DIGITS]


class Shares:
    """The batches of all systems in ``out``'s folder of clips.

    Args:
        out: of the report.
        settings: what decides the clips; those of other settings are refused.
        items: all of them. size: height and width of real clips.
        seed, batch: as in ``paper.measure``.
        beside: what the report shows besides; with another one the clips stay good, and a report
            that is there does not.

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
        beside: object = None,
    ) -> None:
        self.folder, self.items, self.size, self.seed, self.batch = (
            out / FOLDER, items, size, seed, batch,
        )  # fmt: skip
        self.settings: JsonObject = json.loads(
            json.dumps({**settings, "seed": seed, "batch": batch})
        )
        self._done, self._report, self._beside = out / _DONE, out / _REPORT, _hash(beside)
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
            before, asked = (_shown(values.get(other[0])) for values in (found, now))
            raise ValueError(
                f"{self.folder} has clips made with another {other[0]}: {before}, now {asked}; "
                "delete it, or give another --out"
            )

    @property
    def finished(self) -> bool:
        """Whether the report that is there is the one that was made of these clips."""
        try:
            return durable.read_sealed(self._done) == self._card_of_report()
        except (FileNotFoundError, ValueError):  # a damaged one says nothing
            return False

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
        durable.write_sealed(self._done, self._card_of_report())
        shutil.rmtree(self.folder, ignore_errors=True)

    def _card_of_report(self) -> JsonObject:
        report = durable.digest(self._report)
        return {**self.settings, "beside": self._beside, "report": report}

    def _keep(self, system: System, number: int, first: int, make: Make) -> None:
        path = self._path(system, number, first)
        part = datasets.readable(self.items[first : first + self.batch], self.size, {})
        try:
            made = (
                make([i for i, _ in part], [c for _, c in part], self.seed + first) if part else []
            )
        except ValueError as error:  # of what was asked; a full disk passes, and is raised
            path.parent.mkdir(parents=True, exist_ok=True)
            durable.write_text(path.with_suffix(".txt"), datasets.reason(error))
            return
        from safetensors.torch import save_file

        tensors: dict[str, Tensor] = {}
        for place, clip in enumerate(made):
            tensors |= {f"video_{place}": clip.video, f"audio_{place}": clip.audio}
        about = [[clip.fps, clip.sample_rate, clip.prompt] for clip in made]
        path.parent.mkdir(parents=True, exist_ok=True)
        with durable.replacing(path) as partial:
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
        # The hash tells apart what is alike once it is a file's name.
        name = "".join(c if c.isalnum() else "-" for c in system.name)[:40]
        which = _hash([system.name, system.tables, system.at])
        return self.folder / f"{name}-{which}-{number}" / f"{first:07d}.{ending}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
