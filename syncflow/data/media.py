"""Containers in and out: mp4, mov, mkv and webm on one side, tensors on the other.

The only file that touches PyAV, which is imported when a function first needs it. Video is uint8
[F,3,H,W] and audio is mono float32 [M] in [-1,1]. Everything is placed by its timestamp; the time
zero of a file is the moment when its first picture is shown.
"""

from __future__ import annotations

import io
import os
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from syncflow.clip import FPS, SAMPLE_RATE
from syncflow.data import decode, encode

# No mbtree: with it x264 now and then gives other bytes for the same 32x32 frames.
_H264 = ("libx264", {"crf": "14", "preset": "medium", "x264-params": "mbtree=0"})
_VP9 = ("libvpx-vp9", {"crf": "16", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "0"})
#: File ending -> container, video codec with its options, audio codec.
_FORMATS = {
    ".mp4": ("mp4", _H264, "aac"),
    ".m4v": ("mp4", _H264, "aac"),
    ".mov": ("mov", _H264, "aac"),
    ".mkv": ("matroska", _H264, "aac"),
    ".webm": ("webm", _VP9, "libopus"),
}
_RATES = {
    "aac": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000),
    "libopus": (8000, 12000, 16000, 24000, 48000),
}


@dataclass(frozen=True)
class MediaInfo:
    """What a file says about itself: ``seconds`` s, ``fps`` frames/s (mean), ``width`` and
    ``height`` px, ``sample_rate`` Hz (None without sound), ``frames`` (None where not stated)."""

    seconds: float
    fps: float
    width: int
    height: int
    frames: int | None
    video_codec: str
    sample_rate: int | None
    channels: int | None
    audio_codec: str | None
    container: str


def check_writable(path: str | Path) -> Path:
    """Raises unless ``write`` could make ``path``: a known ending in a folder that takes files."""
    path = Path(path)
    if path.suffix.lower() not in _FORMATS:
        known = ", ".join(_FORMATS)
        raise ValueError(f"unknown format for '{path}': the name must end in {known}")
    check_folder(path)
    return path


def check_folder(path: str | Path) -> None:
    """Raises unless a file ``path`` can be made or replaced."""
    path = Path(path)
    folder = path.parent
    if path.is_dir():
        raise IsADirectoryError(f"cannot write '{path}': it is a folder")
    if not folder.is_dir():
        raise FileNotFoundError(f"cannot write '{path}': there is no folder '{folder}'")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"cannot write '{path}': no permission in folder '{folder}'")


def make_folder(path: str | Path, first: str) -> Path:
    """The folder ``path``, made where it is missing; raises unless the file ``first`` can be
    written into it."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise NotADirectoryError(f"cannot write into '{path}': it is not a folder") from None
    except OSError as error:
        raise type(error)(f"cannot make the folder '{path}': {error.strerror}") from None
    check_folder(path / first)
    return path


def check_rate(path: str | Path, sample_rate: int) -> None:
    """Raises unless the sound in a file named ``path`` can have ``sample_rate`` Hz."""
    codec = _FORMATS[Path(path).suffix.lower()][2]
    if sample_rate not in _RATES[codec]:
        known = ", ".join(map(str, _RATES[codec]))
        raise ValueError(f"{codec} takes {known} Hz, got {sample_rate}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` that takes its place at the end, or vanishes on any error,
    Ctrl-C included: nobody ever sees half a file. An OSError names ``path``."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.strerror is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write(
    path: str | Path,
    video: Tensor,
    audio: Tensor | None,
    fps: float = FPS,
    sample_rate: int = SAMPLE_RATE,
) -> Path:
    """Writes ``video`` uint8 [F,3,H,W] and ``audio`` float [M] (or None); returns the path.

    mp4, m4v, mov and mkv hold H.264 (yuv420p, BT.709) and AAC, webm holds VP9 and Opus. Same input,
    same bytes. In mp4 and mov both streams last exactly F / fps and M / sample_rate; mkv and webm
    have no exact end for AAC and keep up to one codec frame of silence more, which ``read`` trims.

    Raises:
        ValueError: an odd size, a wrong shape or dtype, a rate that the codec lacks, an unknown
            file ending. OSError: a folder that is missing or takes no files.
    """
    path = check_writable(path)
    container, (video_codec, video_options), audio_codec = _FORMATS[path.suffix.lower()]
    _check_video(video, fps)
    rate = Fraction(fps).limit_denominator(1001)
    if audio is not None:
        _check_audio(audio)
        check_rate(path, sample_rate)

    with replacing(path) as temporary, _create(temporary, container, sample_rate) as out:
        options = {**video_options, "g": str(max(1, round(fps)))}
        size = tuple(video.shape[2:])
        picture = encode.picture_stream(out, video_codec, options, size, rate)
        sound = encode.sound_stream(out, audio_codec, sample_rate) if audio is not None else None
        packets = list(encode.video(picture, video, rate))
        if sound is not None:
            packets += encode.audio(sound, audio, sample_rate, container in ("mp4", "mov"))
            packets.sort(key=lambda packet: packet.dts * packet.time_base)
        out.mux(packets)
    return path


def check_copy(path: str | Path, source: str | Path) -> None:
    """Raises unless a file named ``path`` can hold the picture of ``source`` as it is."""
    import av

    path = check_writable(path)
    with open_file(source) as film:
        codec = film.streams.video[0].codec_context.name
        try:
            out = av.open(io.BytesIO(), "w", format=_FORMATS[path.suffix.lower()][0])
            with out:
                out.add_stream_from_template(film.streams.video[0])
                out.start_encoding()
        except (av.FFmpegError, ValueError) as error:
            raise ValueError(
                f"a {path.suffix} file cannot hold the {codec} video of '{source}' unchanged: "
                "give the output a name that ends in .mkv"
            ) from error


def add_sound(
    path: str | Path,
    source: str | Path,
    audio: Tensor,
    sample_rate: int = SAMPLE_RATE,
    until: float | None = None,
) -> Path:
    """Writes the picture of the file ``source``, copied bit for bit, with ``audio`` float [M] in
    place of any sound of its own; returns the path.

    Nothing is decoded or encoded anew: every packet of the picture is in the new file as it was,
    and its first picture is shown when the sound begins. ``until`` s leaves out what comes later,
    except pictures that earlier ones refer to.

    Raises:
        ValueError: the format cannot hold this picture, or a bad sound. OSError: as ``write``.
    """
    import av

    path = check_writable(path)
    _check_audio(audio)
    check_rate(path, sample_rate)
    check_copy(path, source)
    container, _, audio_codec = _FORMATS[path.suffix.lower()]
    try:
        with (
            replacing(path) as temporary,
            open_file(source) as film,
            _create(temporary, container, sample_rate) as out,
        ):
            picture = out.add_stream_from_template(film.streams.video[0])
            sound = encode.sound_stream(out, audio_codec, sample_rate)
            packets = encode.copied(film, picture, until)
            packets += encode.audio(sound, audio, sample_rate, container in ("mp4", "mov"))
            packets.sort(key=lambda packet: packet.dts * packet.time_base)
            out.mux(packets)
    except av.FFmpegError as error:
        raise ValueError(f"cannot copy the video of '{source}': {error.strerror}") from error
    return path


def write_wav(path: str | Path, audio: Tensor, sample_rate: int = SAMPLE_RATE) -> Path:
    """Writes ``audio`` float [M] in [-1,1] as a 16-bit mono wav; returns the path."""
    path = Path(path)
    check_folder(path)
    _check_audio(audio)
    samples = (audio.detach().cpu().double().clamp(-1, 1) * 32767).round().numpy().astype("<i2")
    with replacing(path) as temporary, wave.open(str(temporary), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(sample_rate)
        out.writeframes(samples.tobytes())
    return path


def probe(path: str | Path) -> MediaInfo:
    """Reads the headers of ``path``. Raises as ``read`` does."""
    with open_file(path) as source:
        picture = source.streams.video[0]
        sound = source.streams.audio[0] if source.streams.audio else None
        rate = picture.average_rate or picture.guessed_rate or picture.base_rate
        return MediaInfo(
            seconds=_stated_seconds(source, picture) or 0.0,
            fps=float(rate) if rate else 0.0,
            width=picture.width,
            height=picture.height,
            frames=picture.frames or None,
            video_codec=picture.codec_context.name,
            sample_rate=sound.rate if sound else None,
            channels=sound.channels if sound else None,
            audio_codec=sound.codec_context.name if sound else None,
            container=source.format.name,
        )


def read(
    path: str | Path,
    fps: float = FPS,
    sample_rate: int = SAMPLE_RATE,
    start: float = 0.0,
    seconds: float | None = None,
    height: int | None = None,
    width: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Reads ``seconds`` s from ``start`` s on (default: to the end) of any file PyAV can decode.

    Output frame i is the source frame whose timestamp is nearest to ``start + i / fps``, so any
    frame rate, also a variable one, comes out at ``fps``. Sound is mixed to mono, resampled and
    placed by its own timestamps: silence where the file has none. ``height`` and ``width`` (both
    or neither) crop the centre to their shape and resize. Rotation tags are obeyed.

    Returns:
        video uint8 [F,3,H,W] and audio float32 [M], M = round(F / fps * sample_rate); audio is
        None where the file has no sound at all.

    Raises:
        FileNotFoundError: no such file. ValueError: not a media file, no picture in it, damaged or
            cut short, or shorter than what was asked for.
    """
    if not fps > 0 or not sample_rate > 0:
        raise ValueError(f"fps and sample_rate must be positive, got {fps} and {sample_rate}")
    if start < 0 or (seconds is not None and not seconds > 0):
        raise ValueError(f"start must be >= 0 and seconds > 0, got {start} and {seconds}")
    if (height is None) != (width is None):
        raise ValueError(f"give both height and width or neither, got {height} and {width}")
    import av

    size = None if height is None or width is None else (height, width)
    count = None if seconds is None else max(1, round(seconds * fps))
    try:
        with open_file(path) as source:
            frames, origin = decode.video(source, path, fps, start, count, size)
        video_F3HW = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()
        samples = round(len(frames) / fps * sample_rate)
        with open_file(path) as source:
            if not source.streams.audio:
                return video_F3HW, None
            audio_M = decode.audio(source, origin + start, samples, sample_rate)
    except av.FFmpegError as error:
        raise ValueError(f"cannot decode '{path}': {error.strerror}") from error
    return video_F3HW, torch.from_numpy(audio_M)


def _create(path: Path, container: str, sample_rate: int) -> Any:
    import av

    options = {"fflags": "+bitexact"}
    if container in ("mp4", "mov"):
        options["movflags"] = "+faststart"
        # The clock of the edit list, milliseconds by default, which no other rate divides.
        options["movie_timescale"] = str(sample_rate)
    return av.open(str(path), "w", format=container, options=options)


@contextmanager
def open_file(path: str | Path, picture: bool = True) -> Iterator[Any]:
    """The container of ``path``. Raises as ``read`` does; without ``picture`` a sound is enough."""
    import av

    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such file: '{path}'")
    if path.is_dir():
        raise ValueError(f"'{path}' is a folder, not a media file")
    try:
        source = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        if isinstance(error, PermissionError):
            raise PermissionError(f"no permission to read '{path}'") from error
        raise ValueError(f"'{path}' is not a media file, or it is truncated") from error
    with source:
        if picture and not source.streams.video:
            raise ValueError(f"'{path}' has no video stream")
        yield source


def _check_video(video: Tensor, fps: float) -> None:
    if video.dtype != torch.uint8 or video.ndim != 4 or video.shape[1] != 3 or not len(video):
        raise ValueError(f"video must be uint8 [F,3,H,W], got {video.dtype} {list(video.shape)}")
    height, width = video.shape[2:]
    if height % 2 or width % 2 or not height or not width:
        raise ValueError(f"yuv420p needs an even height and width, got {height}x{width}")
    if not 0 < fps <= 1000:
        raise ValueError(f"fps must be in (0, 1000], got {fps}")


def _check_audio(audio: Tensor) -> None:
    if not audio.is_floating_point() or audio.ndim != 1 or not len(audio):
        raise ValueError(f"audio must be float [M], got {audio.dtype} {list(audio.shape)}")
    if not torch.isfinite(audio).all():
        raise ValueError("audio has values that are not finite")


def _stated_seconds(source: Any, stream: Any) -> float | None:
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    return None if source.duration is None else source.duration / 1e6
