"""Containers in and out: mp4, mov, mkv and webm on one side, tensors on the other.

The front of ``film``, whose files alone touch PyAV; it is imported when a function first
needs it. Video is uint8 [F,3,H,W] and audio is mono float32 [M] in [-1,1]. Everything is placed by
its timestamp; the time zero of a file is the moment when its first picture is shown.
"""

from __future__ import annotations

import heapq
import os
import wave
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
from torch import Tensor

from syncflow.clip import FPS, SAMPLE_RATE
from syncflow.data.film import copying, decode, edit_list, encode, limits, opener, tracks
from syncflow.data.film.extent import stated_seconds
from syncflow.durable import replacing

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
#: Endings of the films that are written.
ENDINGS = tuple(_FORMATS)
_RATES = {
    "aac": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000),
    "libopus": (8000, 12000, 16000, 24000, 48000),
}


@dataclass(frozen=True)
class MediaInfo:
    """What a file says about itself: ``seconds`` s, ``fps`` frames/s (mean), ``width`` and
    ``height`` px, ``sample_rate`` Hz (None without sound), ``frames`` (None where not stated),
    ``tags`` its metadata, names in small letters."""

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
    tags: dict[str, str] = field(default_factory=dict)


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


def write(
    path: str | Path,
    video: Tensor,
    audio: Tensor | None,
    fps: float = FPS,
    sample_rate: int = SAMPLE_RATE,
    tags: Mapping[str, str] | None = None,
) -> Path:
    """Writes ``video`` uint8 [F,3,H,W] and ``audio`` float [M] (or None) with the metadata
    ``tags``; returns the path.

    mp4, m4v, mov and mkv hold H.264 (yuv420p, BT.709) and AAC, webm holds VP9 and Opus. Same input,
    same bytes. In mp4 and mov both streams last exactly F / fps and M / sample_rate; mkv and webm
    have no exact end for AAC and keep up to one codec frame of silence more, which ``read`` trims.
    H.264 takes even sizes alone: the last row or column of an odd one is there twice.

    Raises:
        ValueError: a wrong shape or dtype, a rate that the codec lacks, an unknown
            file ending. OSError: a folder that is missing or takes no files.
    """
    path = check_writable(path)
    container, (video_codec, video_options), audio_codec = _FORMATS[path.suffix.lower()]
    encode.check_video(video, fps)
    rate = Fraction(fps).limit_denominator(1001)
    if audio is not None:
        encode.check_audio(audio)
        check_rate(path, sample_rate)

    with (
        replacing(path) as temporary,
        encode.create(temporary, container, sample_rate, tags) as out,
    ):
        options = {**video_options, "g": str(max(1, round(fps)))}
        video = encode.even(video) if video_codec == "libx264" else video
        height, width = video.shape[2:]
        picture = encode.picture_stream(out, video_codec, options, (height, width), rate)
        sound = encode.sound_stream(out, audio_codec, sample_rate) if audio is not None else None
        packets = list(encode.video(picture, video, rate))
        if audio is not None and sound is not None:
            packets += encode.audio(sound, audio, sample_rate, container in ("mp4", "mov"))
            packets.sort(key=lambda packet: packet.dts * packet.time_base)
        out.mux(packets)
    return path


def check_copy(path: str | Path, source: str | Path, until: float | None = None) -> None:
    """Raises unless a file named ``path`` can hold the picture of ``source`` as it is."""
    path = check_writable(path)
    with opener.decoding(source):
        _tag_of_copy(path, source, copying.plan(source, until))


def _tag_of_copy(path: Path, source: str | Path, copy: copying.Copy) -> str | None:
    """The codec's tag to keep; raises where ``path`` cannot hold the film as it is."""
    suffix = path.suffix.lower()
    reason, tag = copying.holds(suffix, _FORMATS[suffix][0], source, copy)
    if reason is None:
        return tag
    for other in (".mp4", ".mov", ".mkv", ".webm"):
        if copying.holds(other, _FORMATS[other][0], source, copy)[0] is None:
            advice = f"give the output a name that ends in {other}"
            break
    else:
        advice = f"no format here can; {copying.ANEW}"
    raise ValueError(f"a {suffix} file cannot {reason}, as in '{source}': {advice}")


def add_sound(
    path: str | Path,
    source: str | Path,
    audio: Tensor,
    sample_rate: int = SAMPLE_RATE,
    until: float | None = None,
    tags: Mapping[str, str] | None = None,
) -> Path:
    """Writes the picture of the file ``source``, copied bit for bit, with ``audio`` float [M] in
    place of any sound of its own; returns the path.

    Nothing is decoded or encoded anew: the packets of the picture are in the new file as they were,
    and the first picture that is shown is shown when the sound begins. What the file hides stays
    hidden or is left out. ``until`` s leaves out what comes later, except pictures that earlier
    ones refer to; mp4 and mov hide those. ``tags`` are the new file's metadata.

    Raises:
        ValueError: the format cannot hold this picture, or a bad sound. OSError: as ``write``.
    """
    import av

    path = check_writable(path)
    encode.check_audio(audio)
    check_rate(path, sample_rate)
    container, _, audio_codec = _FORMATS[path.suffix.lower()]
    try:
        copy = copying.plan(source, until)
        tag = _tag_of_copy(path, source, copy)
        with replacing(path) as temporary:
            with (
                opener.film(source) as film,
                encode.create(temporary, container, sample_rate, tags) as out,
            ):
                track = tracks.picture(film, source)
                picture = copying.add_track(out, track, tag)
                sound = encode.sound_stream(out, audio_codec, sample_rate)
                heard = encode.audio(sound, audio, sample_rate, container in ("mp4", "mov"))
                packets = copy.packets(film, track, picture)
                for packet in heapq.merge(packets, heard, key=lambda p: p.dts * p.time_base):
                    out.mux(packet)
            if copy.ends is not None and container in ("mp4", "mov"):
                edit_list.end_first_track(temporary, copy.ends)
    except av.FFmpegError as error:
        raise ValueError(f"cannot copy the video of '{source}': {error.strerror}") from error
    return path


def write_wav(path: str | Path, audio: Tensor, sample_rate: int = SAMPLE_RATE) -> Path:
    """Writes ``audio`` float [M] in [-1,1] as a 16-bit mono wav; returns the path."""
    path = Path(path)
    check_folder(path)
    samples = whole_samples(audio)
    with replacing(path) as temporary, wave.open(str(temporary), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(sample_rate)
        out.writeframes(samples.tobytes())
    return path


def whole_samples(audio: Tensor) -> np.ndarray:
    """float [M] in [-1,1] -> int16 [M], little-endian."""
    encode.check_audio(audio)
    return (audio.detach().cpu().double().clamp(-1, 1) * 32767).round().numpy().astype("<i2")


def probe(path: str | Path) -> MediaInfo:
    """Reads the headers of ``path``. Raises as ``read`` does."""
    with opener.film(path) as source:
        picture, sound = tracks.picture(source, path), tracks.sound(source)
        rate = picture.average_rate or picture.guessed_rate or picture.base_rate
        return MediaInfo(
            seconds=stated_seconds(source, picture, path) or 0.0,
            fps=float(rate) if rate else 0.0,
            width=picture.width,
            height=picture.height,
            frames=picture.frames or None,
            video_codec=picture.codec_context.codec.canonical_name,
            sample_rate=sound.rate if sound else None,
            channels=sound.channels if sound else None,
            audio_codec=sound.codec_context.codec.canonical_name if sound else None,
            container=source.format.name,
            tags={name.lower(): text for name, text in source.metadata.items()},
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
    """Reads ``seconds`` s from ``start`` s on (default: to the end) of a film in any format of
    ``opener.FORMATS``.

    Output frame i is the source frame whose timestamp is nearest to ``start + i / fps``, but none
    that is shown more than half of 1 / fps later, so any frame rate, also a variable one, comes out
    at ``fps``. Sound is mixed to mono, resampled and placed by its own timestamps, with silence
    where there is none. ``height`` and ``width`` (both or neither) crop the centre to their shape
    and resize. Turns and mirrors are obeyed, interlaced films made whole, and films of high dynamic
    range brought to that of a standard screen.

    Returns:
        video uint8 [F,3,H,W] and audio float32 [M], M = round(F / fps * sample_rate); audio is
        None where the file has no sound at all.

    Raises:
        FileNotFoundError: no such file. ValueError: not a media file, no picture in it, damaged or
            cut short, shorter than what was asked for, or beyond ``limits``.
    """
    if not sample_rate > 0:
        raise ValueError(f"fps and sample_rate must be positive, got {fps} and {sample_rate}")
    pictures = _pictures(path, fps, start, seconds, height, width, whole=True)
    samples = round(len(pictures.video) / fps * sample_rate)
    with opener.decoding(path):
        audio = decode.audio(path, pictures.origin + start, samples, sample_rate)
    return pictures.video, audio


def read_pictures(
    path: str | Path,
    fps: float = FPS,
    start: float = 0.0,
    seconds: float | None = None,
    height: int | None = None,
    width: int | None = None,
) -> Tensor:
    """The pictures alone, uint8 [F,3,H,W], as ``read`` gives them; where the film ends before
    ``seconds``, what there is of it (one picture at least)."""
    return _pictures(path, fps, start, seconds, height, width, whole=False).video


def _pictures(
    path: str | Path,
    fps: float,
    start: float,
    seconds: float | None,
    height: int | None,
    width: int | None,
    whole: bool,
) -> decode.Pictures:
    if not fps > 0:
        raise ValueError(f"fps must be positive, got {fps}")
    if not start >= 0 or (seconds is not None and not seconds > 0):
        raise ValueError(f"start must be >= 0 and seconds > 0, got {start} and {seconds}")
    if (height is None) != (width is None):
        raise ValueError(f"give both height and width or neither, got {height} and {width}")
    for name, value in (("start", start), ("seconds", seconds or 0.0)):
        if value > limits.MOST_SECONDS:
            raise ValueError(f"{name} must be at most {limits.MOST_SECONDS:g} s, got {value}")
    size = None if height is None or width is None else (height, width)
    count = None if seconds is None else max(1, round(seconds * fps))
    if size is not None and count is not None:
        limits.check_bytes(path, count, *size)
    with opener.decoding(path):
        return decode.video(path, fps, start, count, size, whole)
