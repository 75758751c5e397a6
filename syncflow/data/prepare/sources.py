"""What there is to prepare: files, or pieces of files, with what is known about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from syncflow import plain_text
from syncflow.data.film.opener import FILM_SUFFIXES as SUFFIXES
from syncflow.data.prepare import captions, lists, walk
from syncflow.ranges import Real

_TIME = Real(-1e7, 1e7, "s")
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
    ``problem``: why what should describe it cannot be read.
    """

    file: str
    start: float = 0.0
    seconds: float | None = None
    caption: str | None = None
    split: str | None = None
    group: str = ""
    events: tuple[tuple[float, str], ...] | None = None
    problem: str | None = None

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
        layout = "list" if path.suffix.lower() in lists.READERS else "folder"
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
        others = unsupported(path)
        also = f"; there are files of other kinds: {walk.told(others)}" if others else ""
        raise ValueError(f"'{path}' has no clips ({', '.join(SUFFIXES)}){also}")
    return sorted(unique.values(), key=lambda s: (s.file, s.start, s.seconds or 0.0)), root


def unsupported(path: Path) -> dict[str, int]:
    """How many files of a folder, by the ending of their names, are neither clips nor text about
    them; {} of a list or a file."""
    return walk.others(path, SUFFIXES) if path.is_dir() else {}


def _folder(path: Path, root: Path) -> list[Source]:
    files = [path] if path.is_file() else walk.films(path, SUFFIXES)
    said: dict[Path, dict[str, str]] = {}
    out = []
    for file in files:
        caption, problem = _beside(file)
        # Said of it in its own folder, or in one around it: the nearest counts.
        for folder in file.parents if caption is None and problem is None else ():
            if folder not in said:
                said[folder] = captions.metadata(folder)
            caption = said[folder].get(file.relative_to(folder).as_posix())
            if caption or folder == root:
                break
        out.append(Source(file.relative_to(root).as_posix(), caption=caption, problem=problem))
    return out


def _beside(file: Path) -> tuple[str | None, str | None]:
    """The caption in a file beside it, or what is wrong with that."""
    try:
        return captions.sidecar(file), None
    except (ValueError, OSError) as error:
        return None, str(error)


def _list(path: Path, root: Path) -> list[Source]:
    if path.suffix.lower() not in lists.READERS:
        known = ", ".join(lists.READERS)
        raise ValueError(f"'{path}' is not a supported list file; the name must end in {known}")
    out = []
    for number, (where, row) in enumerate(lists.rows(path), start=1):
        try:
            out.append(_row(row, root))
        except ValueError as error:
            raise ValueError(f"'{path}'{where}, entry {number}: {error}") from None
    return out


def _row(row: Mapping[str, object], root: Path) -> Source:
    row = {str(name).strip().lower(): value for name, value in row.items()}
    known = {
        column: next((row[n] for n in names if row.get(n) not in (None, "")), None)
        for column, names in _COLUMNS.items()
    }
    file = known["file"]
    if file is None:
        raise ValueError(
            f"there is no column 'file', only {', '.join(map(repr, row)) or 'nothing'}"
        )
    if not isinstance(file, str):
        raise ValueError(f"the file must be a name, got {file!r:.80}")
    numbers = {name: _number(name, known[name]) for name in ("start", "end", "seconds")}
    start, seconds = numbers["start"] or 0.0, numbers["seconds"]
    if numbers["end"] is not None:
        seconds = numbers["end"] - start
    if start < 0 or (seconds is not None and seconds <= 0):
        raise ValueError(f"cannot read {seconds} s starting at {start} s")
    caption, problem = captions.text_of(known["caption"]), None
    if caption is None:
        caption, problem = _beside(root / file)
    split, group = (None if known[n] is None else str(known[n]) for n in ("split", "group"))
    return Source(file, start, seconds, caption, split, group or "", problem=problem)


def _number(name: str, value: object) -> float | None:
    if value is None:
        return None
    try:
        return _TIME.parse(value) if isinstance(value, str) else _TIME.check(name, value)
    except ValueError:
        raise ValueError(f"{name} must be a number of seconds, got {value!r:.80}") from None


def _vggsound(path: Path, root: Path) -> list[Source]:
    """Rows of video id, start second, label, split; the clips, 10 s each, lie in files named after
    id and second, as its download scripts write them, or after the id alone."""
    at: dict[str, str] = {}
    for file in walk.films(root, SUFFIXES):
        at.setdefault(file.stem, file.relative_to(root).as_posix())
    out = []
    for line, row in lists.csv_cells(path):
        if len(row) != 4 or not row[1].strip().isdecimal():
            raise ValueError(
                f"'{path}', line {line}: expected video id, start second, label and split, "
                f"got {','.join(row)[:80]!r}"
            )
        name, second, label, split = (cell.strip() for cell in row)
        stem = f"{name}_{int(second):06d}"
        known = at.get(stem) or at.get(name) or f"{stem}.mp4"
        out.append(Source(known, caption=captions.text_of(label), split=split, group=name))
    return out


def _greatest_hits(path: Path, root: Path) -> list[Source]:
    """Recordings ``<name>_denoised.mp4`` (or ``_mic.mp4``) with ``<name>_times.txt``: time,
    material, action, reaction of every touch of the drumstick; ``train.txt`` and ``test.txt``, if
    there, name recordings."""
    split_of: dict[str, str] = {}
    for split in ("train", "test"):
        names = path / f"{split}.txt"
        if names.is_file():
            split_of |= {name: split for name in plain_text.read(names).split()}
    recordings: dict[str, Path] = {}
    for file in walk.films(path, SUFFIXES):
        for ending in _HITS_ENDINGS:
            name = file.name.removesuffix(ending)
            if file.name.endswith(ending) and not file.name.endswith("_thumb.mp4"):
                best = recordings.get(name)
                if best is None or _rank(file.name) < _rank(best.name):
                    recordings[name] = file
                break
    out = []
    for name, file in recordings.items():
        events, problem = None, None
        try:
            events = captions.drumstick_events(file.with_name(f"{name}_times.txt"))
        except ValueError as error:
            problem = str(error)
        out.append(
            Source(
                file.relative_to(path).as_posix(),
                split=split_of.get(name),
                group=name,
                events=events,
                problem=problem,
            )
        )
    if split_of:
        out = [replace(source, split=source.split or "unlisted") for source in out]
    return out


def _rank(name: str) -> int:
    return next(rank for rank, ending in enumerate(_HITS_ENDINGS) if name.endswith(ending))


LAYOUTS: dict[str, Callable[[Path, Path], list[Source]]] = {
    "folder": _folder,
    "list": _list,
    "vggsound": _vggsound,
    "greatest-hits": _greatest_hits,
}
