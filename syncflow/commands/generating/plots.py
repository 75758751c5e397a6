"""``--plot FILE.png``: a drawing of each clip's sync."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def checked(file: str, count: int) -> list[Path]:
    """The drawings of ``count`` clips: FILE, or FILE-1, FILE-2 ...

    Raises:
        ValueError: another ending than .png. OSError: the folder takes no files.
    """
    from syncflow.data import media

    path = Path(file)
    if path.suffix.lower() != ".png":
        raise ValueError(f"--plot draws a PNG: end '{file}' with .png")
    media.check_folder(path)
    if count == 1:
        return [path]
    return [path.with_stem(f"{path.stem}-{number}") for number in range(1, count + 1)]


def draw(clips: Sequence[Any], paths: Sequence[Path]) -> None:
    """Draws the clips and prints where."""
    from syncflow.generation.plot import plot

    for clip, path in zip(clips, paths, strict=True):
        print(plot(clip, path))
