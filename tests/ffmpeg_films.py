"""Small films of every kind, made by ffmpeg's command line, and what ffmpeg itself shows of them.

Every film has 36 pictures of 64x48 at 24 a second. Cells in each picture tell its number in binary,
a light corner tells up from down and left from right; picture 18 is white, and with it, at 0.75 s,
a click begins in the sound.
"""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

WIDTH, HEIGHT, RATE, COUNT, FLASH = 64, 48, 24, 36, 18


@cache
def ffmpeg() -> str:
    import imageio_ffmpeg

    return imageio_ffmpeg.get_ffmpeg_exe()


def run(*words: object, cwd: Path) -> None:
    command = [ffmpeg(), "-v", "error", "-y", "-threads", "1", *map(str, words)]
    done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode(errors='replace')[-400:]}")


def pictures(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """uint8 [F,H,W,3]."""
    film = np.zeros((COUNT, height, width, 3), np.uint8)
    film[:, : height // 2], film[:, height // 2 :] = (30, 40, 120), (20, 90, 40)
    film[:, 2:10, 2:18] = (220, 200, 60)
    for index in range(COUNT):
        for bit in range(6):
            if (index + 1) >> bit & 1:
                film[index, 16:40, 2 + 10 * bit : 10 + 10 * bit] = 210
    film[FLASH] = 250
    return film


def click(channels: int = 1, rate: int = 48000) -> np.ndarray:
    """float32 [M, channels]: 20 ms of 1 kHz that begin with the flash, in all of them."""
    time = np.arange(round(COUNT / RATE * rate)) / rate - FLASH / RATE
    sound = 0.5 * np.sin(2 * np.pi * 1000 * time) * ((time >= 0) & (time < 0.02))
    return np.repeat(sound[:, None], channels, 1).astype("<f4")


def write_inputs(folder: Path) -> None:
    pictures().tofile(folder / "v.raw")
    pictures(65, 49).tofile(folder / "odd.raw")
    for name, channels, rate in (("a", 1, 48000), ("stereo", 2, 44100), ("low", 1, 8000)):
        click(channels, rate).tofile(folder / f"{name}.raw")
    for channels in (4, 6, 8):
        click(channels).tofile(folder / f"a{channels}.raw")
    # PQ and HLG: dark grey, and a right half of reference white (203 cd/m2).
    for name, dark, white in (("pq", 300, 64 + 876 * 0.5807), ("hlg", 300, 64 + 876 * 0.75)):
        luma = np.full((COUNT, HEIGHT, WIDTH), dark, "<u2")
        luma[:, :, WIDTH // 2 :] = round(white)
        luma[FLASH] = round(white)
        chroma = np.full((COUNT, HEIGHT // 2 * WIDTH // 2 * 2), 512, "<u2")
        np.concatenate([luma.reshape(COUNT, -1), chroma], 1).tofile(folder / f"{name}.raw")
    (folder / "words.srt").write_text("1\n00:00:00,100 --> 00:00:01,000\nwords\n")


def _raw(name: str, size: str, pixels: str = "rgb24") -> str:
    return f"-f rawvideo -pix_fmt {pixels} -s {size} -r {RATE} -i ../{name}.raw"


#: Words of a command that stand for an input.
INPUTS = {
    "V": _raw("v", "64x48"),
    "ODD": _raw("odd", "65x49"),
    "PQ": _raw("pq", "64x48", "yuv420p10le"),
    "HLG": _raw("hlg", "64x48", "yuv420p10le"),
    "A": "-f f32le -ar 48000 -ac 1 -i ../a.raw",
    "STEREO": "-f f32le -ar 44100 -ac 2 -i ../stereo.raw",
    "LOW": "-f f32le -ar 8000 -ac 1 -i ../low.raw",
    "QUAD": "-f f32le -ar 48000 -channel_layout quad -i ../a4.raw",
    "SIX": "-f f32le -ar 48000 -channel_layout 5.1 -i ../a6.raw",
    "EIGHT": "-f f32le -ar 48000 -channel_layout 7.1 -i ../a8.raw",
}
X264 = "-c:v libx264 -preset veryfast -pix_fmt yuv420p -crf 12"
AAC = "-c:a aac"


@dataclass(frozen=True)
class Film:
    """``steps``: ffmpeg commands, the last of which (or ``then``) leaves ``name``.

    ``fps`` at which all of its pictures are read; ``copy`` ending of the file that it is copied
    to. ``refused``, ``not_copied``: words of the reason where it is not read, or not copied.
    ``filters`` that ffmpeg needs to show what a player shows. ``late``: seconds by which the
    container or codec itself delays the sound. ``same``: the decoded pictures can be compared.
    """

    name: str
    steps: tuple[str, ...]
    then: Callable[[Path], None] | None = None
    fps: float = RATE
    copy: str = ".mp4"
    refused: str | None = None
    not_copied: str | None = None
    filters: str = ""
    track: str = "0:v:0"
    sound: str = "0:a:0"
    late: float = 0.001
    same: bool = True

    def make(self, zoo: Path) -> Path:
        folder = zoo / re.sub(r"\W", "_", self.name)
        if not folder.exists():
            folder.mkdir()
            for step in self.steps:
                words = [INPUTS.get(word, word) for word in step.split()]
                run(*" ".join(words).split(), cwd=folder)
            if self.then is not None:
                self.then(folder)
        return folder / self.name


@dataclass(frozen=True)
class Shown:
    """``times_N`` s since the first picture, pictures uint8 [N,H,W,3], and when the click begins,
    s since the first picture (None without a sound)."""

    times_N: np.ndarray
    film_NHW3: np.ndarray
    click: float | None

    @property
    def flash(self) -> int:
        return int(self.film_NHW3.mean((1, 2, 3)).argmax())


def onset(sound_M: np.ndarray, rate: int = 48000) -> float:
    """When the click begins, s."""
    level = np.abs(sound_M)
    return float(np.argmax(level > 0.3 * level.max())) / rate


def shown(
    path: Path, filters: str = "", track: str = "0:v:0", sound: str | None = "0:a:0"
) -> Shown:
    """What ffmpeg's command line shows and plays of a film."""
    # Two commands, since two outputs of one write their lines into each other.
    film, text = _output(
        path, "-map", track, "-vf", f"{filters}showinfo,scale,format=rgb24",
        "-fps_mode", "passthrough", "-f", "rawvideo",
    )  # fmt: skip
    base = re.search(r"config in time_base: (\d+)/(\d+)", text)
    rows = re.findall(r" n: *\d+ +pts: *(-?\d+) +pts_time.* s:(\d+)x(\d+)", text)
    if base is None or not rows:
        raise RuntimeError(f"ffmpeg shows no picture of {path}: {text[-400:]}")
    tick, (width, height) = int(base[1]) / int(base[2]), map(int, rows[0][1:])
    times = np.array([int(row[0]) for row in rows]) * tick
    pictures = np.frombuffer(film, np.uint8).reshape(-1, height, width, 3)
    found = None
    if sound is not None:
        heard, text = _output(
            path, "-map", sound, "-af", "asettb=1/48000,ashowinfo", "-ac", "1", "-f", "f32le"
        )
        found = _begins(np.frombuffer(heard, "<f4"), text, times[0])
    return Shown(times - times[0], pictures, found)


def _begins(sound_M: np.ndarray, text: str, origin: float) -> float | None:
    """When the click begins, s after ``origin``; frames may have gaps in between."""
    frames = re.findall(r" n:\d+ pts:(-?\d+) .*rate:(\d+) nb_samples:(\d+)", text)
    if not frames:
        return None
    rate = int(frames[0][1])
    sample = round(onset(sound_M, rate) * rate)
    for pts, _, count in frames:
        if sample < int(count):
            return int(pts) / 48000 + sample / rate - origin
        sample -= int(count)
    raise RuntimeError(f"{sample} samples more than frames")


def _output(path: Path, *words: str) -> tuple[bytes, str]:
    command = [ffmpeg(), "-copyts", "-threads", "1", "-i", f"file:{path}", *words, "-"]
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL)
    return done.stdout, done.stderr.decode(errors="replace")


# ---- changes of bytes that no command makes ----


def _boxes(data: bytes, name: bytes) -> list[int]:
    """Where the contents of the boxes of that name begin, in an mp4."""
    return [found.end() for found in re.finditer(re.escape(name), data)]


def patched(name: str, change: Callable[[bytearray], None]) -> Callable[[Path], None]:
    def then(folder: Path) -> None:
        data = bytearray((folder / "base.mp4").read_bytes())
        change(data)
        (folder / name).write_bytes(data)

    return then


def matrix(*abcd: int) -> Callable[[bytearray], None]:
    """The display matrix of the first track."""

    def change(data: bytearray) -> None:
        a, b, c, d = (value << 16 for value in abcd)
        at = _boxes(data, b"tkhd")[0] + 40
        struct.pack_into(">9i", data, at, a, b, 0, c, d, 0, 0, 0, 1 << 30)

    return change


def edits(*entries: tuple[float, float]) -> Callable[[bytearray], None]:
    """The edit list of the first track: (seconds shown, from this second of the track on)."""

    def change(data: bytearray) -> None:
        at = _boxes(data, b"elst")[0]
        clock = struct.unpack_from(">I", data, _boxes(data, b"mvhd")[0] + 12)[0]
        ticks = struct.unpack_from(">I", data, _boxes(data, b"mdhd")[0] + 12)[0]
        count = struct.unpack_from(">I", data, at + 4)[0]
        assert count == len(entries), count
        for index, (seconds, start) in enumerate(entries):
            place = at + 8 + 12 * index
            struct.pack_into(">Ii", data, place, round(seconds * clock), round(start * ticks))

    return change


def zero(box: bytes, offset: int) -> Callable[[bytearray], None]:
    """A field of the first box of that name becomes 0."""

    def change(data: bytearray) -> None:
        struct.pack_into(">I", data, _boxes(data, box)[0] + offset, 0)

    return change


def cut(name: str, share: float) -> Callable[[Path], None]:
    def then(folder: Path) -> None:
        data = (folder / f"base.{name.rpartition('.')[2]}").read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * share)])

    return then


def joined_late(name: str, share: float) -> Callable[[Path], None]:
    """A transport stream without its first packets, as of a broadcast."""

    def then(folder: Path) -> None:
        data = (folder / "base.ts").read_bytes()
        (folder / name).write_bytes(data[int(len(data) * share) // 188 * 188 :])

    return then
