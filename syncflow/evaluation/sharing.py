"""Clips in the folders that other people's benchmarks read, so that they can score a model.

``javisbench``: ``sample_0000.mp4`` and ``sample_0000.wav`` ... in the order of a CSV's rows (its
eval/javisbench/main.py, ``gather_audio_video_pred``). ``t2av-compass``: ``sample_0001.mp4`` ...,
the number being a prompt's ``index`` in a JSON list (its README.md, "Prepare videos and prompts").
Both score by networks of their own; none of that is here.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from syncflow import durable, plain_text
from syncflow.clip import Clip
from syncflow.data import media
from syncflow.data.export import tags
from syncflow.evaluation.suites import systems
from syncflow.generation import record
from syncflow.generation.pipeline import SyncFlow, load
from syncflow.json_types import JsonObject
from syncflow.progress import bar
from syncflow.ranges import Whole

_NUMBER = Whole(0, 10**9)


@dataclass(frozen=True)
class Item:
    """A prompt and the number in its file's name."""

    number: int
    prompt: str

    @property
    def stem(self) -> str:
        """The file's name without its ending."""
        return f"sample_{self.number:04d}"


class Layout:
    """One benchmark's: ``endings`` of a clip's files, and its list of prompts."""

    endings: tuple[str, ...]
    list_name: str

    def read(self, path: Path) -> list[Item]:
        """The prompts of a list."""
        raise NotImplementedError

    def write(self, items: Sequence[Item]) -> str:
        """A list of prompts; real clips of theirs lie in ``real/``."""
        raise NotImplementedError


class _JavisBench(Layout):
    endings, list_name = (".wav", ".mp4"), "prompts.csv"

    def read(self, path: Path) -> list[Item]:
        rows = csv.DictReader(io.StringIO(plain_text.read(path)))
        if "text" not in (rows.fieldnames or ()):
            raise ValueError(f"'{path}' has no column 'text': JavisBench's list is a CSV with one")
        return [Item(number, row["text"] or "") for number, row in enumerate(rows)]

    def write(self, items: Sequence[Item]) -> str:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["path", "audio_path", "text"])
        for item in items:
            real = f"real/{item.stem}"
            writer.writerow([f"{real}.mp4", f"{real}.wav", item.prompt])
        return out.getvalue()


class _Compass(Layout):
    endings, list_name = (".mp4",), "prompts.json"

    def read(self, path: Path) -> list[Item]:
        rows = plain_text.read_json(path)
        if not isinstance(rows, list):
            raise ValueError(f"'{path}' is no list: T2AV-Compass's prompts.json is one of objects")
        items = []
        for row in rows:
            good = isinstance(row, dict) and isinstance(row.get("prompt"), str)
            if not good or not _NUMBER.holds(row.get("index")):
                shown = str(row)[:60]
                raise ValueError(f"'{path}': an entry has no index and prompt: {shown}")
            items.append(Item(int(row["index"]), row["prompt"]))
        return items

    def write(self, items: Sequence[Item]) -> str:
        rows = [
            {
                "index": item.number,
                "prompt": item.prompt,
                "video_prompt": item.prompt,
                "audio_prompt": item.prompt,
                "speech_prompt": [],
            }
            for item in items
        ]
        return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"


LAYOUTS: dict[str, Layout] = {"javisbench": _JavisBench(), "t2av-compass": _Compass()}


def run(
    layout: str,
    model: SyncFlow | str | Path | None = None,
    prompts: str | Path | None = None,
    out: str | Path = "runs/share",
    clips: int | None = None,
    levels: Sequence[int] = (1,),
    seed: int = 0,
    batch: int = 8,
    *,
    options: JsonObject | None = None,
    progress: bool = True,
) -> tuple[int, int]:
    """Makes a clip for each of the benchmark's ``prompts`` (the first ``clips`` of them), or for
    test captions of impacts, whose list and real clips are written too. Goes on where it stopped.
    ``options``: of ``generate``.

    Returns:
        how many were made, and how many were there already.

    Raises:
        ValueError: an unknown layout, or a list that is none of its; an empty or repeated prompt
            number.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; known are {', '.join(LAYOUTS)}")
    kind = LAYOUTS[layout]
    items, real = _items(kind, prompts, clips, levels)
    loaded = model if isinstance(model, SyncFlow) else load(model)
    folder = media.make_folder(out, kind.list_name)
    if prompts is None:
        durable.write_text(folder / kind.list_name, kind.write(items))
        media.make_folder(folder / "real", f"{items[0].stem}.mp4")
        for item, case in zip(items, real, strict=True):
            spec = loaded.config.geometry.spec
            _save(systems.rendered(case, spec.height, spec.width), folder / "real", item, kind)
    asked = options or {}
    made = there = 0
    for first in bar(range(0, len(items), batch), desc=layout, shown=progress):
        part = items[first : first + batch]
        texts = [item.prompt for item in part]
        start = seed + first
        wanted = record.planned(loaded, texts, start, **asked)
        if all(_is_there(folder, item, kind, how) for item, how in zip(part, wanted, strict=True)):
            there += len(part)
            continue
        drawn = loaded.generate(texts, seed=start, progress=False, **asked)
        for item, clip in zip(part, drawn, strict=True):
            _save(clip, folder, item, kind)
        made += len(part)
    return made, there


def _items(
    kind: Layout, prompts: str | Path | None, clips: int | None, levels: Sequence[int]
) -> tuple[list[Item], list[systems.Case]]:
    """Prompts, and their cases where they are captions of impacts."""
    if prompts is None:
        cases = systems.cases("test", clips or 100, levels)
        return [Item(number, case.prompt) for number, case in enumerate(cases)], cases
    items = kind.read(Path(prompts))[:clips]
    if not items:
        raise ValueError(f"'{prompts}' has no prompts")
    numbers = [item.number for item in items]
    for item in items:
        if not item.prompt.strip():
            raise ValueError(f"'{prompts}': prompt {item.number} is empty")
        if numbers.count(item.number) > 1:
            raise ValueError(f"'{prompts}': two prompts have the index {item.number}")
    return items, []


def _is_there(folder: Path, item: Item, kind: Layout, how: record.Record) -> bool:
    paths = [folder / f"{item.stem}{ending}" for ending in kind.endings]
    try:
        return all(path.exists() and tags.read(path) == how for path in paths)
    except (ValueError, OSError):
        return False


def _save(clip: Clip, folder: Path, item: Item, kind: Layout) -> None:
    for ending in kind.endings:
        clip.save(folder / f"{item.stem}{ending}")
