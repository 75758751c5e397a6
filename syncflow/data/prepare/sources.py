"""What there is to prepare: files, or pieces of files, with what is known about them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from syncflow.data import json_lines
from syncflow.data.prepare import captions
from syncflow.data.recordings import FILM_SUFFIXES as SUFFIXES

#: Column of a list -> the names it may have.
_COLUMNS = {
    "file": ("file", "file_name", "path", "video", "video_path", "filename"),
    "caption": ("caption", "text", "prompt", "label"),
    "start": ("start", "start_seconds"),
    "end": ("end", "end_seconds"),
    "seconds": ("seconds", "duration"),
    "split": ("split",),
    "group": ("group", "video_id"),
}
#: Greatest Hits: the names that a recording's video may have, best first.
_HITS_ENDINGS = ("_denoised.mp4", "_mic.mp4", ".mp4")


@dataclass(frozen=True)
class Source:
    """A file, or ``seconds`` s of it from ``start`` s on (None: to its end).

    ``split`` as its list says; ``group`` what may not be spread over splits (by default the file);
    ``events`` are timed annotations (seconds of the file, phrase), from which windows get captions.
    """

    file: str
    start: float = 0.0
    seconds: float | None = None
    caption: str | None = None
    split: str | None = None
    group: str = ""
    events: tuple[tuple[float, str], ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "group", self.group or self.file)


def find(path: Path, layout: str = "auto", videos: Path | None = None) -> tuple[list[Source], Path]:
    """The sources behind ``path``, sorted and without repetitions, and the folder that their file
    names start from (``videos``, or where ``path`` is).

    ``layout``: "folder", "list" (csv, jsonl or parquet with a column "file"), "vggsound" (its csv),
    "greatest-hits" (its folder), or "auto": folder or list.

    Raises:
        FileNotFoundError: there is no such path. ValueError: it is not what ``layout`` says, or
            holds nothing.
    """
    if not path.exists():
        raise FileNotFoundError(f"no such file or folder: '{path}'")
    if videos is not None and not videos.is_dir():
        raise FileNotFoundError(f"no such folder: '{videos}'")
    if layout == "auto":
        layout = "list" if path.suffix.lower() in _READERS else "folder"
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; known are auto, {', '.join(LAYOUTS)}")
    is_video = path.suffix.lower() in SUFFIXES
    if (layout in ("folder", "greatest-hits")) != path.is_dir() and not is_video:
        kind = "a folder or a video file" if layout == "folder" else f"what {layout} needs"
        raise ValueError(f"'{path}' is not {kind}")
    root = videos or (path if path.is_dir() else path.parent)
    found = LAYOUTS[layout](path, root)
    unique = {(source.file, source.start, source.seconds): source for source in found}
    if not unique:
        raise ValueError(f"'{path}' has no clips ({', '.join(SUFFIXES)})")
    return sorted(unique.values(), key=lambda s: (s.file, s.start, s.seconds or 0.0)), root


def _folder(path: Path, root: Path) -> list[Source]:
    files = [path] if path.is_file() else _media(path)
    said = captions.metadata(root)
    out = []
    for file in files:
        name = file.relative_to(root).as_posix()
        out.append(Source(name, caption=captions.sidecar(file) or said.get(name)))
    return out


def _media(folder: Path) -> list[Path]:
    # Names beginning with a dot are other programs' leftovers.
    return [
        path for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]  # fmt: skip


def _list(path: Path, root: Path) -> list[Source]:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(
            f"'{path}' is not a supported list file; the name must end in {', '.join(_READERS)}"
        )
    out = []
    for number, row in enumerate(reader(path), start=1):
        try:
            out.append(_row(row, root))
        except ValueError as error:
            raise ValueError(f"'{path}', entry {number}: {error}") from None
    return out


def _row(row: dict[str, Any], root: Path) -> Source:
    known = {
        column: next((row[n] for n in names if row.get(n) not in (None, "")), None)
        for column, names in _COLUMNS.items()
    }
    if known["file"] is None:
        raise ValueError(
            f"there is no column 'file', only {', '.join(map(repr, row)) or 'nothing'}"
        )
    numbers = {}
    for name in ("start", "end", "seconds"):
        try:
            numbers[name] = None if known[name] is None else float(known[name])
        except (TypeError, ValueError):
            raise ValueError(f"{name} must be a number of seconds, got {known[name]!r}") from None
    start, seconds = numbers["start"] or 0.0, numbers["seconds"]
    if numbers["end"] is not None:
        seconds = numbers["end"] - start
    if not start >= 0 or (seconds is not None and not 0 < seconds < float("inf")):
        raise ValueError(f"cannot read {seconds} s starting at {start} s")
    file = str(known["file"])
    text = None if known["caption"] is None else captions.one_line(str(known["caption"]))
    return Source(
        file,
        start,
        seconds,
        text or captions.sidecar(root / file),
        None if known["split"] is None else str(known["split"]),
        str(known["group"] or ""),
    )


def _csv(path: Path) -> Iterable[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        yield from csv.DictReader(file)


def _parquet(path: Path) -> Iterable[dict[str, Any]]:
    from pyarrow import ArrowInvalid, parquet

    try:
        return parquet.read_table(path).to_pylist()
    except ArrowInvalid as error:
        raise ValueError(f"'{path}' is not a parquet file: {error}") from None


def _vggsound(path: Path, root: Path) -> list[Source]:
    """Rows of video id, start second, label, split; the clips, 10 s each, lie in files named after
    id and second, as its download scripts write them, or after the id alone."""
    at: dict[str, str] = {}
    for file in _media(root):
        at.setdefault(file.stem, file.relative_to(root).as_posix())
    out = []
    with path.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            if len(row) != 4 or not row[1].strip().isdigit():
                raise ValueError(
                    f"'{path}', line {number}: expected video id, start second, label and split, "
                    f"got {','.join(row)[:80]!r}"
                )
            name, second, label, split = (cell.strip() for cell in row)
            stem = f"{name}_{int(second):06d}"
            known = at.get(stem) or at.get(name) or f"{stem}.mp4"
            out.append(Source(known, caption=label, split=split, group=name))
    return out


def _greatest_hits(path: Path, root: Path) -> list[Source]:
    """Recordings ``<name>_denoised.mp4`` (or ``_mic.mp4``) with ``<name>_times.txt``: time,
    material, action, reaction of every touch of the drumstick; ``train.txt`` and ``test.txt``, if
    there, name recordings."""
    split_of: dict[str, str] = {}
    for split in ("train", "test"):
        names = path / f"{split}.txt"
        if names.is_file():
            split_of |= {name: split for name in names.read_text().split()}
    recordings: dict[str, Path] = {}
    for file in _media(path):
        for ending in _HITS_ENDINGS:
            name = file.name.removesuffix(ending)
            if file.name.endswith(ending) and not file.name.endswith("_thumb.mp4"):
                best = recordings.get(name)
                if best is None or _rank(file.name) < _rank(best.name):
                    recordings[name] = file
                break
    out = []
    for name, file in recordings.items():
        events = captions.drumstick_events(file.with_name(f"{name}_times.txt"))
        out.append(
            Source(
                file.relative_to(path).as_posix(),
                split=split_of.get(name),
                group=name,
                events=events,
            )
        )
    if split_of:
        out = [replace(source, split=source.split or "unlisted") for source in out]
    return out


def _rank(name: str) -> int:
    return next(rank for rank, ending in enumerate(_HITS_ENDINGS) if name.endswith(ending))


_READERS: dict[str, Callable[[Path], Iterable[dict[str, Any]]]] = {
    ".csv": _csv, ".jsonl": json_lines.read, ".parquet": _parquet,
}  # fmt: skip
LAYOUTS: dict[str, Callable[[Path, Path], list[Source]]] = {
    "folder": _folder, "list": _list, "vggsound": _vggsound, "greatest-hits": _greatest_hits,
}  # fmt: skip
