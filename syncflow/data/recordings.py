"""Folders of recordings, read piece by piece: sound files, and films with or without sound."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np

from syncflow.data.film import decode, limits, opener, tracks
from syncflow.data.film.extent import stated_seconds

Part = Literal["sound", "picture"]
_NAMED = 5  # of the files that cannot be used


def named(folder: str | Path, part: Part) -> list[Path]:
    """Every file below ``folder`` whose name says that it may have that part, sorted; names that
    begin with a dot are left out."""
    suffixes = _suffixes(part)
    return [
        path
        for path in sorted(Path(folder).rglob("*"))
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
    ]


def _suffixes(part: Part) -> tuple[str, ...]:
    return opener.FILM_SUFFIXES + (opener.SOUND_SUFFIXES if part == "sound" else ())


class Recordings:
    """Every file below ``folder`` that has what is wanted of it, in order of their names.

    Args:
        folder: is searched through (``named``).
        part: "sound" takes sound files and films with sound, "picture" films.
        sample_rate: Hz, that sounds are resampled to; mono.

    Raises:
        FileNotFoundError: no such folder. ValueError: no file there has any.
    """

    def __init__(self, folder: str | Path, part: Part, sample_rate: int) -> None:
        self.folder, self.part, self.sample_rate = Path(folder), part, sample_rate
        if not self.folder.is_dir():
            raise FileNotFoundError(f"no such folder: '{folder}'")
        names = named(folder, part)
        with ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool:
            extents = list(pool.map(self._extent, names))
        both = list(zip(names, extents, strict=True))
        self.files = [path for path, (_, seconds) in both if seconds]
        self._extents = [extent for extent in extents if extent[1]]
        if not self.files:
            raise ValueError(f"'{folder}' has no {part} in it ({', '.join(_suffixes(part))})")
        unusable = [path.name for path, (_, seconds) in both if not seconds]
        if unusable:
            shown = ", ".join(unusable[:_NAMED]) + (" ..." if len(unusable) > _NAMED else "")
            print(f"{folder}: {len(unusable)} files have no {part} to read: {shown}", flush=True)

    def __len__(self) -> int:
        return len(self.files)

    def seconds(self, index: int) -> float:
        """The length of a recording, s."""
        return self._extents[index][1]

    def audio(self, index: int, start: float, samples: int) -> np.ndarray:
        """float32 [samples] from ``start`` s on; silence after the end.

        Raises:
            ValueError: the file cannot be decoded, or has no sound any more.
        """
        path, begins = self.files[index], self._extents[index][0]
        with opener.decoding(path):
            found = decode.audio(path, begins + start, samples, self.sample_rate)
        if found is None:
            raise ValueError(f"'{path}' has no sound")
        return found.numpy()

    def video(
        self, index: int, start: float, frames: int, fps: float, height: int, width: int
    ) -> np.ndarray:
        """uint8 [F, 3, H, W] from ``start`` s on, the centre of every frame.

        Raises:
            ValueError: the file cannot be decoded, or is shorter.
        """
        path = self.files[index]
        limits.check_bytes(path, frames, height, width)
        with opener.decoding(path):
            return decode.video(path, fps, start, frames, (height, width)).video.numpy()

    def _extent(self, path: Path) -> tuple[float, float]:
        """When the part begins by the file's own clock, and how long it is, s; 0 s where there is
        nothing to read."""
        try:
            with opener.decoding(path), opener.film(path) as source:
                sound = self.part == "sound"
                track = tracks.sound(source) if sound else tracks.picture(source, path)
                if track is None:
                    return 0.0, 0.0
                begins = float((track.start_time or 0) * track.time_base)
                return begins, stated_seconds(source, track, path) or 0.0
        except (ValueError, OSError):
            return 0.0, 0.0
