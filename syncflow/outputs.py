"""Where generated clips go: one path for every prompt and take, settled before any is made."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path


def plan(out: str | None, prompts: Sequence[str], takes: int, seed: int) -> list[Path]:
    """The path of every clip, prompt by prompt and take by take.

    ``out`` is a file, a folder, a pattern with {i}, {prompt}, {seed} or {take}, or None for
    ``clip.mp4`` and, with several clips, the folder ``clips``. A folder is made where it is
    missing; the parents of a single file are not: a typing error there should be heard of.

    Raises:
        ValueError: one file for several prompts, a pattern with unknown fields or without enough.
    """
    total = len(prompts) * takes
    text = out or ("clip.mp4" if total == 1 else "clips/")
    folder = Path(text).is_dir() or text.endswith(("/", "\\"))
    if "{" not in text and not folder and (total == 1 or Path(text).suffix):
        if len(prompts) > 1:
            raise ValueError(
                f"'{text}' is one file, but there are {len(prompts)} prompts: "
                f"give a folder or a pattern such as 'clips/{{i}}.mp4'"
            )
        base = Path(text)
        if total == 1:
            return [base]
        return [base.with_name(f"{base.stem}-{take}{base.suffix}") for take in range(1, takes + 1)]
    if "{" not in text:
        try:
            Path(text).mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise ValueError(f"'{text}' is a file; several clips need a folder") from None
        text = str(Path(text) / ("{i}-{prompt}" + ("-{take}" if takes > 1 else "") + ".mp4"))
    paths = []
    for index, prompt in enumerate(prompts):
        slug = "-".join(re.findall(r"[a-z0-9]+", prompt.lower()))[:60].strip("-") or "clip"
        for take in range(1, takes + 1):
            number = str(index + 1).zfill(len(str(len(prompts))))
            try:
                paths.append(Path(text.format(i=number, prompt=slug, seed=seed, take=take)))
            except (LookupError, ValueError, TypeError, AttributeError):
                known = "{i}, {prompt}, {seed} and {take}"
                raise ValueError(f"'{text}' is no pattern: it may hold {known}") from None
    if len(set(paths)) < len(paths):
        raise ValueError(f"'{text}' gives several clips the same name: put {{i}} or {{take}} in it")
    return paths


def sheet_path(paths: Sequence[Path]) -> Path:
    """The contact sheet beside the clips ``paths``."""
    if len(paths) == 1:
        return paths[0].with_suffix(".png")
    return paths[0].with_name("contact_sheet.png")
