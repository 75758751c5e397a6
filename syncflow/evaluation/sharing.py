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
from collections.abc import Mapping, Sequence
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
from syncflow.ranges import SEED, Whole

_NUMBER = Whole(0, 10**9)
_COUNT = Whole(1, 10**9)
#: Options of ``generate`` that are the export's own.
_OWN = ("seed", "progress", "audio_takes")
#: In the folder: SHA-256 of each prompt's files, by which one that was cut later is known, and how
#: all of them are made.
_WRITTEN = ".written"
_SETTINGS = "settings.json"
_ELSEWHERE = "choose another folder, or empty this one"


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
        try:
            named, found = rows.fieldnames or (), list(rows)
        except csv.Error as error:  # a field beyond csv's limit, most of all
            where = f"'{path}', line {rows.line_num + 1}"
            raise ValueError(f"{where}, is no CSV that can be read: {error}") from None
        if "text" not in named:
            raise ValueError(f"'{path}' has no column 'text': JavisBench's list is a CSV with one")
        return [Item(number, row["text"] or "") for number, row in enumerate(found)]

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
            number; ``clips``, ``levels``, ``seed``, ``batch`` or ``options`` that cannot be; whole
            clips in ``out`` that were made otherwise, by another model, say, or seed.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; known are {', '.join(LAYOUTS)}")
    kind = LAYOUTS[layout]
    batch, seed = _COUNT.check("batch", batch), SEED.check("seed", seed)
    clips = None if clips is None else _COUNT.check("clips", clips)
    asked = options or {}
    for name in _OWN:
        if name in asked:
            raise ValueError(f"options must not have {name}, which is set here: {asked[name]!r}")
    items, real = _items(kind, prompts, clips, levels)
    loaded = model if isinstance(model, SyncFlow) else load(model)
    prompted = [item.prompt for item in items]
    wanted = record.planned(loaded, prompted, seed, **asked)
    how = {"layout": layout, **wanted[0]}
    del how["prompt"]
    done = _done(Path(out), kind, how, dict(zip(items, wanted, strict=True)))
    folder = media.make_folder(out, kind.list_name)
    media.make_folder(folder / _WRITTEN, _SETTINGS)
    durable.write_sealed(folder / _WRITTEN / _SETTINGS, how)
    if prompts is None:
        durable.write_text(folder / kind.list_name, kind.write(items))
        media.make_folder(folder / "real", f"{items[0].stem}.mp4")
        for item, case in zip(items, real, strict=True):
            spec = loaded.config.geometry.spec
            _save(systems.rendered(case, spec.height, spec.width), folder / "real", item, kind)
    made = there = 0
    for first in bar(range(0, len(items), batch), desc=layout, shown=progress):
        part = items[first : first + batch]
        if done.issuperset(part):
            there += len(part)
            continue
        drawn = loaded.generate(
            prompted[first : first + batch], seed=seed + first, progress=False, **asked
        )
        for item, clip in zip(part, drawn, strict=True):
            _save(clip, folder, item, kind)
            hashes = {path.name: durable.digest(path) for path in _paths(folder, item, kind)}
            durable.write_sealed(_card(folder, item), hashes)
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


def _done(
    folder: Path, kind: Layout, how: record.Record, wanted: Mapping[Item, record.Record]
) -> set[Item]:
    """The prompts whose clips are there, whole.

    Raises:
        ValueError: whole clips are there that were made otherwise: the scores of a mixture would be
            nobody's.
    """
    if not folder.is_dir():
        return set()
    cards = {card.stem: card for card in (folder / _WRITTEN).glob("sample_*.json")}
    whole = {stem: names for stem, card in cards.items() if (names := _whole(folder, card))}
    settings = folder / _WRITTEN / _SETTINGS
    if settings.exists():
        if whole:
            _check_same(folder, durable.read_sealed(settings), how)
    else:  # of somebody else's, or of versions up to 0.2
        for path in sorted(folder.glob("sample_*")):
            if path.suffix in (".mp4", ".wav") and path.stem not in cards:
                raise ValueError(f"'{folder}' has a {path.name} of others: {_ELSEWHERE}")
    done = set()
    for item, made in wanted.items():
        paths = _paths(folder, item, kind)
        if whole.get(item.stem, set()).issuperset(path.name for path in paths):
            _check_same(folder, tags.read(paths[0]) or {}, made)
            done.add(item)
    return done


def _whole(folder: Path, card: Path) -> set[str]:
    """The names of a clip's files, none where one of them is not as it was written."""
    try:
        hashes = durable.read_sealed(card)
        same = all(durable.digest(folder / name) == found for name, found in hashes.items())
    except (ValueError, OSError):
        return set()
    return set(hashes) if same else set()


def _check_same(folder: Path, old: record.Record, new: record.Record) -> None:
    """Raises ValueError, with the first that is not, unless both say the same."""
    before, now = _flat(old), _flat(new)
    for name in {**now, **before}:
        was, asked = before.get(name), now.get(name)
        if was != asked:
            raise ValueError(
                f"'{folder}' has whole clips of {name} {was!r:.60}, not of {asked!r:.60}: "
                f"{_ELSEWHERE}"
            )


def _flat(made: record.Record) -> dict[str, object]:
    """The sampling options beside all else."""
    return {**made, "sampling": None, **made.get("sampling", {})}


def _save(clip: Clip, folder: Path, item: Item, kind: Layout) -> None:
    for path in _paths(folder, item, kind):
        clip.save(path)


def _paths(folder: Path, item: Item, kind: Layout) -> list[Path]:
    return [folder / f"{item.stem}{ending}" for ending in kind.endings]


def _card(folder: Path, item: Item) -> Path:
    return folder / _WRITTEN / f"{item.stem}.json"
