"""Folders of recordings, read piece by piece: sound files, and films with or without sound."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from syncflow.data import decode, media

FILM_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
SOUND_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac")
_NAMED = 5  # of the files that cannot be used


class Recordings:
    """Every file below ``folder`` that has what is wanted of it, in order of their names.

    Args:
        folder: is searched through; names that begin with a dot are left out.
        part: "sound" takes sound files and films with sound, "picture" films.
        sample_rate: Hz, that sounds are resampled to; mono.

    Raises:
        FileNotFoundError: no such folder. ValueError: no file there has any.
    """

    def __init__(
        self, folder: str | Path, part: Literal["sound", "picture"], sample_rate: int
    ) -> None:
        self.folder, self.part, self.sample_rate = Path(folder), part, sample_rate
        if not self.folder.is_dir():
            raise FileNotFoundError(f"no such folder: '{folder}'")
        suffixes = FILM_SUFFIXES + (SOUND_SUFFIXES if part == "sound" else ())
        names = [
            path for path in sorted(self.folder.rglob("*"))
            if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
        ]  # fmt: skip
        with ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool:
            lengths = list(pool.map(self._length, names))
        both = list(zip(names, lengths, strict=True))
        self.files = [path for path, seconds in both if seconds]
        self._seconds = [seconds for _, seconds in both if seconds]
        if not self.files:
            raise ValueError(f"'{folder}' has no {part} in it ({', '.join(suffixes)})")
        unusable = [path.name for path, seconds in both if not seconds]
        if unusable:
            shown = ", ".join(unusable[:_NAMED]) + (" ..." if len(unusable) > _NAMED else "")
            print(f"{folder}: {len(unusable)} files have no {part} to read: {shown}", flush=True)

    def __len__(self) -> int:
        return len(self.files)

    def seconds(self, index: int) -> float:
        """The length of a recording, s."""
        return self._seconds[index]

    def audio(self, index: int, start: float, samples: int) -> np.ndarray:
        """float32 [samples] from ``start`` s on; silence after the end.

        Raises:
            ValueError: the file cannot be decoded.
        """
        import av

        path = self.files[index]
        try:
            with media.open_file(path, picture=False) as source:
                origin = _origin(source.streams.audio[0])
                return decode.audio(source, origin + start, samples, self.sample_rate)
        except av.FFmpegError as error:
            raise ValueError(f"cannot decode '{path}': {error.strerror}") from error

    def video(
        self, index: int, start: float, frames: int, fps: float, height: int, width: int
    ) -> np.ndarray:
        """uint8 [F, 3, H, W] from ``start`` s on, the centre of every frame.

        Raises:
            ValueError: the file cannot be decoded, or is shorter.
        """
        video, _ = media.read(
            self.files[index], fps, self.sample_rate, start, frames / fps, height, width
        )
        return torch.as_tensor(video).numpy()

    def _length(self, path: Path) -> float:
        """Seconds; 0 where there is nothing to read."""
        try:
            with media.open_file(path, picture=self.part == "picture") as source:
                streams = source.streams.audio if self.part == "sound" else source.streams.video
                if not streams:
                    return 0.0
                stream = streams[0]
                if stream.duration is not None:
                    return float(stream.duration * stream.time_base)
                return (source.duration or 0) / 1e6
        except (ValueError, OSError):
            return 0.0


def _origin(stream: object) -> float:
    """When a sound begins, by the file's clock."""
    start, base = stream.start_time, stream.time_base  # type: ignore[attr-defined]
    return float((start or 0) * base)
