"""What the name of a file says that it holds, and whether it can be written, before it is."""

from __future__ import annotations

import re
from pathlib import Path

from syncflow.data import media

#: Endings of files of the sound alone, and of the picture alone.
SOUNDS, PICTURES = (".wav", ".flac"), (".gif", ".png")
#: A gif counts in hundredths of a second, and browsers slow down what is shown for less than two.
GIF_FPS = 50
_NUMBER = re.compile(r"%0?(\d{0,2})d")


def check(path: str | Path) -> Path:
    """Raises unless a clip could be written under the name ``path``, as far as the name tells.

    Raises:
        ValueError: an unknown ending. OSError: a folder that is missing or takes no files.
    """
    path = check_ending(path)
    media.check_folder(frame(path, 1) if is_frames(path) else path)
    return path


def check_ending(path: str | Path) -> Path:
    """Raises ValueError unless the name says what the file is to hold."""
    path = Path(path)
    if path.suffix.lower() not in media.ENDINGS + SOUNDS + PICTURES:
        known = ", ".join(media.ENDINGS + SOUNDS + PICTURES[:1])
        raise ValueError(
            f"unknown format for '{path}': the name must end in {known}, or be frames: "
            "frame-%04d.png"
        )
    if path.suffix.lower() == ".png":
        frame(path, 1)
    return path


def check_clip(path: str | Path, fps: float, frames: int, sample_rate: int) -> None:
    """Raises ValueError unless a clip of ``frames`` pictures at ``fps`` with sound of
    ``sample_rate`` Hz fits into a file of that name."""
    path = Path(path)
    ending = path.suffix.lower()
    if ending == ".gif" and fps > GIF_FPS:
        raise ValueError(f"a gif shows at most {GIF_FPS} frames/s, the clip has {fps:g}")
    if ending == ".png":
        for picture in files(path, frames):
            media.check_folder(picture)
        _check_older(path, frames)
    if holds_film(path):
        media.check_rate(path, sample_rate)


def holds_film(path: str | Path) -> bool:
    """Whether a file of that name has picture and sound."""
    return Path(path).suffix.lower() not in SOUNDS + PICTURES


def holds_sound(path: str | Path) -> bool:
    """Whether a file of that name has sound."""
    return Path(path).suffix.lower() not in PICTURES


def is_frames(path: str | Path) -> bool:
    """Whether the name stands for numbered pictures."""
    path = Path(path)
    return path.suffix.lower() == ".png" and len(_NUMBER.findall(path.name)) == 1


def frame(pattern: str | Path, number: int) -> Path:
    """The name of frame ``number``, the first of which is 1, of a pattern such as frame-%04d.png.

    Raises:
        ValueError: the pattern has no place for one number.
    """
    pattern = Path(pattern)
    if not is_frames(pattern):
        raise ValueError(
            f"'{pattern}' is one picture; for all frames of a clip say where their number stands, "
            f"such as '{pattern.stem.replace('%', '')}-%04d.png'"
        )
    digits = _NUMBER.sub(lambda found: str(number).zfill(int(found[1] or 0)), pattern.name)
    return pattern.with_name(digits)


def files(path: str | Path, frames: int) -> list[Path]:
    """The files that a clip of so many frames takes under that name."""
    if not is_frames(path):
        return [Path(path)]
    return [frame(path, number) for number in range(1, frames + 1)]


def _check_older(pattern: Path, frames: int) -> None:
    """Raises where frames of a longer clip would stay behind the new ones."""
    older = frame(pattern, frames + 1)
    if older.exists():
        raise ValueError(
            f"'{older}' is there already, and the clip has {frames} frames: "
            "delete the older ones or give another name"
        )
