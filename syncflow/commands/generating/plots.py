"""``--plot FILE.png``: a drawing of each clip's sync."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from syncflow.clip import Clip


def checked(file: str, count: int, others: Sequence[str | Path]) -> list[Path]:
    """The drawings of ``count`` clips: FILE, or FILE-1, FILE-2 ...

    Raises:
        ValueError: another ending than .png, or a name of ``others``, which are read or written
            too. OSError: the folder takes no files.
    """
    from syncflow.data import media

    path = Path(file)
    if path.suffix.lower() != ".png":
        raise ValueError(f"--plot draws a PNG: end '{file}' with .png")
    media.check_folder(path)
    paths = [path.with_stem(f"{path.stem}-{number}") for number in range(1, count + 1)]
    paths = paths if count > 1 else [path]
    taken = {Path(other).resolve() for other in others}
    # Numbered pictures lie in a folder of their own.
    numbered = {Path(other).resolve().parent for other in others if "%" in Path(other).name}
    for drawing in paths:
        if drawing.resolve() in taken or drawing.resolve().parent in numbered:
            raise ValueError(f"--plot would replace '{drawing}', which is read or written too")
    return paths


def draw(clips: Sequence[Clip], paths: Sequence[Path]) -> None:
    """Draws the clips and prints where."""
    from syncflow.generation.remarks.plot import plot

    for clip, path in zip(clips, paths, strict=True):
        print(plot(clip, path))
