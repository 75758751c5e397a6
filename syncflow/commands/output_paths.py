"""Where generated clips go: one path for every prompt and take, settled before any is made."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import Formatter

from syncflow.data import media
from syncflow.data.export import formats

_FIELDS = "{i}, {prompt}, {name}, {seed} and {take}"


@dataclass(frozen=True)
class Plan:
    """``paths`` of the clips, prompt by prompt and take by take; ``folder`` one that is made when
    the first clip is there (``make``), None where it must exist already."""

    paths: list[Path]
    folder: Path | None = None

    def check(self) -> None:
        """Raises where a clip could not be written."""
        for folder in {path.parent for path in self.paths}:
            above = folder
            if self._is_made(folder):
                above = next(
                    p for p in (folder.absolute(), *folder.absolute().parents) if p.exists()
                )
                if not above.is_dir():
                    raise NotADirectoryError(f"cannot make '{folder}': '{above}' is a file")
            if above.is_dir():
                _check_takes_files(above, folder)
        for path in self.paths:
            _check_name(path)
            if path.parent.is_dir() or not self._is_made(path.parent):
                formats.check(path)
            else:
                formats.check_ending(path)

    def check_inputs(self, inputs: Iterable[str | Path], frames: int, sheet: bool) -> None:
        """Raises where a file to be written is one of those to be read, under whatever name.

        Args:
            inputs: files.
            frames: of a clip, each of which may be a file.
            sheet: whether the contact sheet is written too.
        """
        given = {_identity(path): Path(path) for path in inputs}
        made = [file for path in self.paths for file in formats.files(path, frames)]
        for path in [*made, self.sheet] if sheet else made:
            source = given.get(_identity(path)) if path.exists() else None
            if source is not None:
                raise ValueError(
                    f"'{path}' is a file to be read, '{source}', and would be replaced: give -o "
                    "another name, or --force"
                )

    def make(self) -> None:
        """Makes the folders that are needed."""
        for folder in {path.parent for path in self.paths}:
            if self._is_made(folder):
                folder.mkdir(parents=True, exist_ok=True)

    def _is_made(self, folder: Path) -> bool:
        numbered = any(formats.is_frames(path) for path in self.paths)
        return numbered or folder == self.folder

    @property
    def sheet(self) -> Path:
        """The contact sheet beside the clips."""
        if len(self.paths) == 1 and not formats.is_frames(self.paths[0]):
            return self.paths[0].with_suffix(".png")
        return self.paths[0].with_name("contact_sheet.png")


def plan(
    out: str | None,
    prompts: Sequence[str],
    takes: int,
    seed: int,
    films: Sequence[Path] | None = None,
    sheet: bool = False,
    video: Path | None = None,
) -> Plan:
    """Where every clip goes; touches nothing.

    ``out`` is a file, numbered pictures (frame-%04d.png), a folder, a pattern with {i}, {prompt},
    {name}, {seed} or {take}, or None for ``clip.mp4`` and, with several clips, the folder
    ``clips``, neither of which replaces an older one: they count up. Folders of clips and of
    numbered pictures are made where they are missing; the parents of a single file are not: a
    typing error there should be heard of.

    Args:
        films: given videos, one for each prompt; their clips have their names.
        video: or one for all prompts.

    Raises:
        ValueError: one file for several clips, a pattern with unknown fields or without enough.
    """
    total = len(prompts) * takes
    text = out or _unused("clip.mp4" if total == 1 and films is None else "clips/", sheet)
    _check_name(Path(text))
    is_folder = Path(text).is_dir() or text.endswith(("/", "\\"))
    if "{" not in text and not is_folder and films is None and (total == 1 or Path(text).suffix):
        return _one(Path(text), len(prompts), takes)
    folder = None
    if "{" not in text:
        folder = Path(text)
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"'{text}' is a file; several clips need a folder")
        if films is not None and folder.suffix and not is_folder:
            raise ValueError(f"'{text}' is one file; for a folder of videos give a folder")
        text = "{name}" if films is not None else "{i}-{prompt}"
        text += "-{take}" if takes > 1 else ""
    paths = []
    for index, prompt in enumerate(prompts):
        slug = "-".join(re.findall(r"[a-z0-9]+", prompt.lower()))[:60].strip("-") or "clip"
        film = films[index] if films is not None else None
        named = film or video
        number = str(index + 1).zfill(len(str(len(prompts))))
        for take in range(1, takes + 1):
            name = named.stem if named else slug
            fields = {"i": number, "prompt": slug, "name": name, "seed": seed, "take": take}
            path = Path(_filled(text, fields))
            if folder is not None:  # names may have dots, so their ending is no suffix to replace
                path = folder / f"{path}{_ending(film)}"
            paths.append(path)
    if len(set(paths)) < len(paths):
        raise ValueError(f"'{out}' gives several clips the same name; add {{i}} or {{take}} to it")
    return Plan(paths, folder)


def with_endings(found: Plan, films: Sequence[Path], takes: int) -> Plan:
    """The plan with names in mkv for the films whose picture their own container cannot take."""
    paths = list(found.paths)
    for index, path in enumerate(paths):
        if found.folder is not None and path.suffix != ".mkv":
            try:
                check_holds(path, films[index // takes])
            except ValueError:
                paths[index] = path.with_name(f"{path.name}.mkv")
    return replace(found, paths=paths)


def check_holds(path: Path, film: Path) -> None:
    """Raises ValueError where a file of that name, whose folder need not be there yet, cannot hold
    the picture of ``film`` as it is."""
    media.check_copy(Path(tempfile.gettempdir(), f"film{path.suffix}"), film)


def _one(base: Path, prompts: int, takes: int) -> Plan:
    """One file, or one for each take."""
    if prompts > 1:
        raise ValueError(
            f"'{base}' is one file, but there are {prompts} prompts: "
            f"give a folder or a pattern such as 'clips/{{i}}.mp4', or put one prompt of several "
            "words in quotes"
        )
    if takes == 1:
        return Plan([base])
    names = [f"{base.stem}-{take}{base.suffix}" for take in range(1, takes + 1)]
    return Plan([base.with_name(name) for name in names])


def _filled(text: str, fields: dict[str, object]) -> str:
    try:
        for _, name, spec, conversion in Formatter().parse(text):
            # Python's own patterns reach into objects, and a width can be gigabytes.
            if name is not None and (name not in fields or conversion or not _is_width(spec)):
                raise KeyError(name)
        return text.format(**fields)
    except (LookupError, ValueError, TypeError, AttributeError):
        raise ValueError(f"'{text}' is not a valid pattern; it may contain {_FIELDS}") from None


def _is_width(spec: str | None) -> bool:
    return re.fullmatch(r"0?[0-9]{0,2}d?", spec or "") is not None


def _unused(text: str, sheet: bool) -> str:
    """``text``, or the first of text-2, text-3 ... that is not there."""
    base = Path(text)
    taken, number = base, 1
    while taken.exists() or (sheet and taken.suffix and taken.with_suffix(".png").exists()):
        number += 1
        taken = base.with_name(f"{base.stem}-{number}{base.suffix}")
    return f"{taken}/" if text.endswith("/") else str(taken)


def _ending(film: Path | None) -> str:
    if film is None:
        return ".mp4"
    return film.suffix if film.suffix.lower() in media.ENDINGS else f"{film.suffix}.mkv"


def _identity(path: str | Path) -> tuple[int, int]:
    """The same for all names, links among them, of one file."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _check_takes_files(folder: Path, wanted: Path) -> None:
    """Permissions alone do not tell: of a read-only disk, or to root."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        what = "make" if folder != wanted else "write into"
        raise type(error)(f"cannot {what} '{wanted}': {error.strerror} in '{folder}'") from None


def _check_name(path: Path) -> None:
    most = 255  # bytes, on every file system in use
    size = len(os.fsencode(path.name))
    if size > most:
        raise ValueError(f"'{path.name[:40]}...' has {size} bytes; names have at most {most}")
