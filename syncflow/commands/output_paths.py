"""Where generated clips go: one path for every prompt and take, settled before any is made."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from syncflow.data import media


@dataclass(frozen=True)
class Plan:
    """``paths`` of the clips, prompt by prompt and take by take; ``folder`` one that is made when
    the first clip is there (``make``), None where all must exist already."""

    paths: list[Path]
    folder: Path | None = None

    def check(self) -> None:
        """Raises where a clip could not be written."""
        for path in self.paths:
            if self.folder is None or self.folder.is_dir():
                media.check_writable(path)
        if self.folder is not None and not self.folder.exists():
            above = next(p for p in self.folder.absolute().parents if p.exists())
            if not above.is_dir():
                raise NotADirectoryError(f"cannot make '{self.folder}': '{above}' is a file")
            if not os.access(above, os.W_OK | os.X_OK):
                raise PermissionError(f"cannot make '{self.folder}': no permission in '{above}'")

    def make(self) -> None:
        """Makes the folder, if one is needed."""
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def sheet(self) -> Path:
        """The contact sheet beside the clips."""
        if len(self.paths) == 1:
            return self.paths[0].with_suffix(".png")
        return self.paths[0].with_name("contact_sheet.png")


def plan(out: str | None, prompts: Sequence[str], takes: int, seed: int) -> Plan:
    """Where every clip goes; touches nothing.

    ``out`` is a file, a folder, a pattern with {i}, {prompt}, {seed} or {take}, or None for
    ``clip.mp4`` and, with several clips, the folder ``clips``. A folder is made where it is
    missing; the parents of a single file are not: a typing error there should be heard of.

    Raises:
        ValueError: one file for several prompts, a pattern with unknown fields or without enough.
    """
    total = len(prompts) * takes
    text = out or ("clip.mp4" if total == 1 else "clips/")
    is_folder = Path(text).is_dir() or text.endswith(("/", "\\"))
    if "{" not in text and not is_folder and (total == 1 or Path(text).suffix):
        if len(prompts) > 1:
            raise ValueError(
                f"'{text}' is one file, but there are {len(prompts)} prompts: "
                f"give a folder or a pattern such as 'clips/{{i}}.mp4'"
            )
        base = Path(text)
        if total == 1:
            return Plan([base])
        names = [f"{base.stem}-{take}{base.suffix}" for take in range(1, takes + 1)]
        return Plan([base.with_name(name) for name in names])
    folder = None
    if "{" not in text:
        folder = Path(text)
        if folder.is_file():
            raise ValueError(f"'{text}' is a file; several clips need a folder")
        text = str(folder / ("{i}-{prompt}" + ("-{take}" if takes > 1 else "") + ".mp4"))
    paths = []
    for index, prompt in enumerate(prompts):
        slug = "-".join(re.findall(r"[a-z0-9]+", prompt.lower()))[:60].strip("-") or "clip"
        for take in range(1, takes + 1):
            number = str(index + 1).zfill(len(str(len(prompts))))
            try:
                paths.append(Path(text.format(i=number, prompt=slug, seed=seed, take=take)))
            except (LookupError, ValueError, TypeError, AttributeError):
                known = "{i}, {prompt}, {seed} and {take}"
                raise ValueError(
                    f"'{text}' is not a valid pattern; it may contain {known}"
                ) from None
    if len(set(paths)) < len(paths):
        raise ValueError(f"'{text}' gives several clips the same name; add {{i}} or {{take}} to it")
    return Plan(paths, folder)
