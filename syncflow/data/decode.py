"""The pictures and the sound of an open file, placed by their timestamps.

``media`` opens and closes the files; here frames become arrays at the wanted rate, size and time.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

_BT709, _UNTAGGED = 1, 2  # ITU-T H.273
#: Seconds decoded and dropped after an audio seek: the first frames there lack their overlap.
_PREROLL = 0.5
#: Decoding so many seconds of sound and dropping them beats a seek, which in mkv and webm lands on
#: a timestamp rounded to a millisecond.
_DECODE_THROUGH = 20.0


def _timed(frames: Iterator[Any], step: float) -> Iterator[tuple[float, Any]]:
    """(seconds, frame) of every decoded frame; one without a timestamp follows the one before."""
    time = -step
    for frame in frames:
        time = time + step if frame.pts is None else float(frame.pts * frame.time_base)
        yield time, frame


def video(
    source: Any, path: Any, fps: float, start: float, count: int | None, size: Any
) -> tuple[list[np.ndarray], float]:
    """The frames [H,W,3] nearest to start + i / fps, and the time of the file's first picture."""
    stream = source.streams.video[0]
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    step = 1 / float(rate)
    aspect = float(stream.sample_aspect_ratio or 1)
    first = next(_timed(source.decode(stream), step), None)
    if first is None:
        raise ValueError(f"'{path}' has no video frame that can be decoded")
    origin = first[0]
    # Back to the start, or to the keyframe before the wanted picture's predecessor.
    target = int((origin + max(0.0, start - 2 * step)) / stream.time_base)
    source.seek(target if start else int(origin / stream.time_base), stream=stream, backward=True)

    frames: list[np.ndarray] = []
    before: tuple[float, Any] | None = None
    pixels: np.ndarray | None = None

    def emit(until: float) -> None:
        """Repeats the frame ``before`` for all output times nearer to it than ``until``."""
        nonlocal pixels
        while len(frames) != count and start + len(frames) / fps <= until + 1e-6:
            pixels = _pixels(before[1], size, aspect) if pixels is None else pixels
            frames.append(pixels)

    end = origin
    reach = 0.0  # how far into the file anything could be read

    def decode() -> Iterator[Any]:
        nonlocal reach
        for packet in source.demux():
            if packet.pts is not None:
                reach = max(reach, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream.index == stream.index:
                yield from packet.decode()

    for time, frame in _timed(decode(), step):
        time -= origin
        if before is not None:
            emit((before[0] + time) / 2)
            if len(frames) == count:
                return frames, origin
        before, pixels = (time, frame), None
        end = time + (float(frame.duration * frame.time_base) if frame.duration else step)
    stated = ((source.duration or 0) + (source.start_time or 0)) / 1e6
    if reach < stated - max(0.25, 2 * step):
        raise ValueError(f"'{path}' is cut short: {reach:.2f} s of its {stated:.2f} s can be read")
    if count is None:
        count = round((end - start) * fps)
    # The last picture may be held for one output frame: 48 frames at 24 fps are 2 s at any rate.
    if count < 1 or end < start + (count - 1) / fps - 1e-3:
        wanted = f"{start:g} s on" if count < 1 else f"{start:g} to {start + count / fps:g} s"
        raise ValueError(f"'{path}' lasts {end:.2f} s: it cannot be read from {wanted}")
    emit(float("inf"))
    return frames, origin


def _pixels(frame: Any, size: tuple[int, int] | None, aspect: float) -> np.ndarray:
    """uint8 [H,W,3], upright; with ``size`` the centre of that shape, resized. ``aspect`` is the
    width of a pixel over its height."""
    turns = round(frame.rotation / 90) % 4
    # Files from before colour tags follow the convention of their size: BT.709 from HD on.
    options: dict[str, Any] = {"format": "rgb24", "threads": 1}
    if frame.colorspace == _UNTAGGED and frame.height >= 720:
        options["src_colorspace"] = _BT709
    if size is not None:
        height, width = size if turns % 2 == 0 else size[::-1]
        shown = frame.width * aspect  # px wide on a screen of square pixels
        scale = max(height / frame.height, width / shown)
        options["height"] = max(height, round(frame.height * scale))
        options["width"] = max(width, round(shown * scale))
        options["interpolation"] = "AREA" if scale < 1 else "BICUBIC"
    pixels = frame.reformat(**options).to_ndarray()
    if size is not None:
        top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
        pixels = pixels[top : top + height, left : left + width]
    return np.ascontiguousarray(np.rot90(pixels, turns))


def audio(source: Any, begin: float, samples: int, sample_rate: int) -> np.ndarray:
    """float32 [samples], beginning at the file's time ``begin`` s."""
    stream = source.streams.audio[0]
    end = begin + samples / sample_rate
    sought = begin - (stream.start_time or 0) * stream.time_base > _DECODE_THROUGH
    if sought:
        source.seek(int((begin - _PREROLL) / stream.time_base), stream=stream, backward=True)
    audio_M = np.zeros(samples, dtype=np.float32)
    piece: list[Any] = []
    starts: list[float] = []  # of the piece, as each of its frames has it
    expected = elapsed = 0.0

    def place() -> None:
        sound = _resample(piece, sample_rate)
        # From the start of a file the first timestamp is exact; elsewhere rounding averages out.
        since = sum(starts) / len(starts) if sought else starts[0]
        offset = round((since - begin) * sample_rate)
        sound = sound[max(0, -offset) :]
        offset = max(0, offset)
        audio_M[offset : offset + len(sound)] = sound[: max(0, samples - offset)]

    for time, frame in _timed(source.decode(stream), 0.0):
        if frame.pts is None:
            time = expected
        # mkv rounds to milliseconds; only a real gap starts a new piece.
        if piece and abs(time - expected) > 0.005:
            place()
            piece, starts, elapsed = [], [], 0.0
        piece.append(frame)
        starts.append(time - elapsed)
        elapsed += frame.samples / frame.sample_rate
        expected = starts[0] + elapsed
        if expected > end + _PREROLL:
            break
    if piece:
        place()
    return audio_M


def _resample(frames: list[Any], sample_rate: int) -> np.ndarray:
    """The sound of consecutive frames as mono float32 [M], the mean of their channels."""
    from av import AudioResampler

    # The library's own mono mix adds channels up: stereo would come out 3 dB too loud and clip.
    resampler = AudioResampler(format="fltp", layout=frames[0].layout, rate=sample_rate)
    out = []
    for index, frame in enumerate(frames):
        frame.pts = None if index else 0
        out += [part.to_ndarray().mean(0) for part in resampler.resample(frame)]
    out += [part.to_ndarray().mean(0) for part in resampler.resample(None)]
    return np.concatenate(out) if out else np.zeros(0, dtype=np.float32)
