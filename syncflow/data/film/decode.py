"""The pictures and the sound of a file, placed by their timestamps.

Here frames become arrays at the wanted rate, size and time. Time zero is the first picture that a
player shows: FFmpeg drops what an edit list hides and what lacks the pictures it refers to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, cast, overload

import numpy as np
import torch
from torch import Tensor

from syncflow.data.film import limits, opener, tracks
from syncflow.data.film.extent import is_whole, last_shown_until
from syncflow.data.film.interlace import progressive
from syncflow.data.film.mono import alike, mono
from syncflow.data.film.pixels import Matrix, matrix, shown

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

    from syncflow.data.film.pyav import Picture, Sound, SoundTrack


#: Seconds decoded and dropped after an audio seek: the first frames there lack their overlap.
_PREROLL = 0.5
#: Decoding so many seconds of sound and dropping them beats a seek, which in mkv and webm lands on
#: a timestamp rounded to a millisecond; of pictures, which cost more, a few.
_DECODE_THROUGH = 20.0
_PICTURES_THROUGH = 3.0
#: How far before the wanted time a seek aims, one try after the other, until it lands before it.
_BACK = (0.0, 10.0, 60.0)
#: Height and width; None: as stored.
Size = tuple[int, int] | None
#: Rates outside are wrong header fields.
_SLOWEST, _FASTEST, _USUAL = 0.01, 1000.0, 25.0


@dataclass(frozen=True)
class Pictures:
    """``video`` uint8 [F,3,H,W]; ``origin`` the file's own time of its first picture, s."""

    video: Tensor
    origin: float


def step(track: VideoStream) -> float:
    """Seconds from picture to picture, as the header has it."""
    for rate in (track.average_rate, track.guessed_rate, track.base_rate):
        if rate and _SLOWEST <= rate <= _FASTEST:
            return 1 / float(rate)
    return 1 / _USUAL


def video(
    path: str | Path, fps: float, start: float, count: int | None, size: Size, whole: bool = True
) -> Pictures:
    """The frames shown at start + i / fps: the nearest of the file's, but none that comes more than
    half of 1 / fps later. ``whole``: raises where fewer than ``count`` are there."""
    with opener.film(path) as source:
        reel = _Reel(source, path)
        first = next(frames := reel.frames(), None)
        if first is None:
            raise ValueError(f"'{path}' has no video frame that can be decoded")
        reel.origin = first[0]
        if start <= _PICTURES_THROUGH:
            video = _placed(reel, chain([first], frames), fps, start, count, size, whole)
            return Pictures(video, reel.origin)
    for back in (*_BACK, None):
        with opener.film(path) as source:
            again = _Reel(source, path, reel.origin)
            aim = None if back is None else start - 2 * again.step - back
            first = next(frames := again.frames(aim), None)
            if aim is None or (first is not None and first[0] - reel.origin <= start):
                video = _placed(
                    again, chain([first] if first else [], frames), fps, start, count, size, whole
                )
                return Pictures(video, reel.origin)
    raise AssertionError("the last try begins with the first picture")


class _Reel:
    """The pictures of an open file in the order in which they are shown."""

    def __init__(self, source: InputContainer, path: str | Path, origin: float = 0.0) -> None:
        self.source, self.path, self.origin = source, path, origin
        self.track = tracks.picture(source, path)
        self.step = step(self.track)
        self.aspect = float(self.track.sample_aspect_ratio or 1)
        self._turn: tuple[tuple[int, int, int], Matrix] | None = None
        self.reach = 0.0  # how far into the file anything could be read, in its own time

    def frames(self, aim: float | None = None) -> Iterator[tuple[float, Picture]]:
        """(own time in s, frame); with ``aim`` from a keyframe on that, with luck, is shown before
        ``aim`` s after the first picture."""
        import av

        packets = self._packets()
        earliest = float("-inf")
        if aim is not None:
            target = int((self.origin + max(0.0, aim)) / self.track.time_base)
            try:
                self.source.seek(target, stream=self.track, backward=True)
            except av.FFmpegError:
                return
            key = next((p for p in packets if p.is_keyframe and p.pts is not None), None)
            if key is None or key.pts is None:
                return
            # Pictures before it refer to what the seek has skipped.
            earliest = float(key.pts * key.time_base)
            packets = chain([key], packets)
        follows = self.origin
        for frame in progressive(pictures(packets)):
            time = follows if frame.pts is None else float(frame.pts * frame.time_base)
            follows = time + (_seconds(frame) or self.step)
            if time >= earliest - 1e-6:
                yield time, frame

    def pixels(self, frame: Picture, size: Size) -> np.ndarray:
        """uint8 [H,W,3] as a screen shows it."""
        try:
            kind = (frame.rotation, frame.width, frame.height)
            if self._turn is None or self._turn[0] != kind:
                self._turn = kind, matrix(frame)
            return shown(frame, size, self.aspect, self._turn[1])
        except ValueError as error:
            raise ValueError(f"cannot read '{self.path}': {error}") from None

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        for packet in self.source.demux():
            if packet.pts is not None:
                end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                self.reach = max(self.reach, end)
            if packet.stream.index == self.track.index:
                yield cast("Packet[VideoStream]", packet)


@overload
def decoded(packets: Iterator[Packet[VideoStream]]) -> Iterator[Picture]: ...


@overload
def decoded(packets: Iterator[Packet[AudioStream]]) -> Iterator[Sound]: ...


def decoded(
    packets: Iterator[Packet[VideoStream]] | Iterator[Packet[AudioStream]],
) -> Iterator[Picture] | Iterator[Sound]:
    """Their frames; a recording that was joined late may begin with what cannot be decoded."""
    import av

    begun = False
    for packet in packets:
        try:
            found = packet.decode()
        except av.InvalidDataError:
            if begun or not packet.size:
                raise
            continue
        begun = begun or bool(found)
        yield from cast("list[Picture] | list[Sound]", found)


def pictures(packets: Iterator[Packet[VideoStream]]) -> Iterator[Picture]:
    """The frames of a picture's packets, with FFmpeg's best guess of their times: where the
    container's go wrong (MPEG program streams state few of them), the decoding times hold."""
    wrong_pts = wrong_dts = 0
    last_pts = last_dts = None
    for frame in decoded(packets):
        pts, dts = frame.pts, frame.dts
        if dts is not None:
            wrong_dts += last_dts is not None and dts <= last_dts
        last_dts = pts if dts is None else dts
        if pts is not None:
            wrong_pts += last_pts is not None and pts <= last_pts
        last_pts = dts if pts is None else pts
        if pts is None or (wrong_pts > wrong_dts and dts is not None):
            frame.pts = dts
        yield frame


def _placed(
    reel: _Reel,
    frames: Iterator[tuple[float, Picture]],
    fps: float,
    start: float,
    count: int | None,
    size: Size,
    whole: bool,
) -> Tensor:
    kept: list[np.ndarray] = []
    before: tuple[float, Picture] | None = None
    pixels: np.ndarray | None = None
    end = stayed = 0.0

    def emit(until: float) -> None:
        """Repeats the frame ``before`` for all output times up to ``until``."""
        nonlocal pixels
        while (count is None or len(kept) < count) and start + len(kept) / fps <= until + 1e-6:
            if pixels is None:
                assert before is not None  # a time is reached by a frame
                pixels = reel.pixels(before[1], size)
                if kept and pixels.shape != kept[0].shape:  # the first size holds
                    pixels = reel.pixels(before[1], kept[0].shape[:2])
            kept.append(pixels)
            limits.check_bytes(reel.path, max(len(kept), count or 0), *pixels.shape[:2])

    for time, frame in frames:
        time -= reel.origin
        if before is not None:
            limits.check_gap(reel.path, before[0], time)
            time = max(time, before[0])
            stayed = time - before[0]
            # The nearest picture, but none is shown long before its time.
            emit(max((before[0] + time) / 2, time - 0.5 / fps - 1e-5))
            if len(kept) == count:
                return _stacked(kept)
        before, pixels = (time, frame), None
        end = time + (_seconds(frame) or reel.step)
    if not is_whole(reel.source, reel.path, reel.reach, reel.step):
        raise ValueError(
            f"'{reel.path}' is cut short: it ends {reel.reach - reel.origin:.2f} s in, "
            "before the end that it states"
        )
    end = max(end, last_shown_until(reel.source, reel.track, end + reel.origin) - reel.origin)
    if before is None:
        end = 0.0
    limits.check_seconds(reel.path, end)
    wanted = round((end - start) * fps) if count is None else count
    if count is None and stayed >= 1 / fps:  # after a slide, a last one of a moment is seen too
        wanted = max(wanted, len(kept) + 1)
    # The last picture may be held for one output frame: 48 frames at 24 fps are 2 s at any rate.
    if before is None or wanted < 1 or (whole and end < start + (wanted - 1) / fps - 1e-3):
        asked = f"{start:g} s on" if wanted < 1 else f"{start:g} to {start + wanted / fps:g} s"
        raise ValueError(f"'{reel.path}' lasts {end:.2f} s: it cannot be read from {asked}")
    count = wanted if whole else min(wanted, max(1, round((end - start) * fps)))
    emit(float("inf"))
    return _stacked(kept[:count])


def _seconds(frame: Picture) -> float:
    """How long it is shown; 0 where it does not say, or says what cannot be."""
    lasts = float(frame.duration * frame.time_base) if frame.duration else 0.0
    return lasts if 0 < lasts <= limits.MOST_GAP_S else 0.0


def _stacked(frames: list[np.ndarray]) -> Tensor:
    """[H,W,3] arrays -> uint8 [F,3,H,W]; they are given back one by one, so that there is never
    much more than one copy."""
    height, width = frames[0].shape[:2]
    out = torch.empty(len(frames), 3, height, width, dtype=torch.uint8)
    frames.reverse()
    for index in range(len(frames)):
        out[index] = torch.from_numpy(frames.pop()).permute(2, 0, 1)
    return out


def audio(path: str | Path, begin: float, samples: int, sample_rate: int) -> Tensor | None:
    """float32 [samples], beginning at the file's own time ``begin`` s; None without a sound."""
    for again in (False, True):
        with opener.film(path) as source:
            track = tracks.sound(source)
            if track is None:
                return None
            late = begin - (track.start_time or 0) * track.time_base
            sought = late > _DECODE_THROUGH and not again
            if sought:
                target = int((begin - _PREROLL) / track.time_base)
                source.seek(target, stream=track, backward=True)
            found = _sound(_timed(source, track), begin, samples, sample_rate, sought)
            if found is not None:
                return torch.from_numpy(found)
    raise AssertionError("what is read from the start is there")


def _timed(source: InputContainer, track: SoundTrack) -> Iterator[tuple[float | None, Sound]]:
    """(own time in s, frame); the time is None where the frame follows the one before."""
    for frame in decoded(source.demux(track)):
        yield (None if frame.pts is None else float(frame.pts * frame.time_base)), frame


def _sound(
    frames: Iterator[tuple[float | None, Sound]],
    begin: float,
    samples: int,
    sample_rate: int,
    sought: bool,
) -> np.ndarray | None:
    """None where a seek went past the beginning."""
    end = begin + samples / sample_rate
    audio_M = np.zeros(samples, dtype=np.float32)
    piece: list[Sound] = []
    starts: list[float] = []  # of the piece, as each of its frames has it
    expected = elapsed = 0.0

    def place() -> None:
        sound = mono(piece, sample_rate)
        # From the start of a file the first timestamp is exact; elsewhere rounding averages out.
        since = sum(starts) / len(starts) if sought else starts[0]
        offset = round((since - begin) * sample_rate)
        sound = sound[max(0, -offset) :]
        offset = max(0, offset)
        audio_M[offset : offset + len(sound)] = sound[: max(0, samples - offset)]

    for time, frame in frames:
        time = expected if time is None else time
        if sought and not starts and time > begin:
            return None
        # mkv rounds to milliseconds; only a real gap starts a new piece.
        if piece and (abs(time - expected) > 0.005 or not alike(piece[0], frame)):
            place()
            piece, starts, elapsed = [], [], 0.0
        if time > end + _PREROLL:
            break
        if not piece and time < begin - _DECODE_THROUGH:
            expected = time + frame.samples / frame.sample_rate
            continue  # nothing of it will be heard
        piece.append(frame)
        starts.append(time - elapsed)
        elapsed += frame.samples / frame.sample_rate
        expected = starts[0] + elapsed
    if piece:
        place()
    return audio_M
