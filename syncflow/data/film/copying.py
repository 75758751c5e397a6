"""The picture of one file into another, packet by packet, shown as it was.

A film may hold pictures that are not shown: what was trimmed off without encoding anew, and what
refers to pictures that are not there. What nothing shown refers to is left out. The rest is
hidden again, which mp4 and mov can do before the first picture and other containers cannot.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from syncflow.data.film import decode, limits, opener, tracks
from syncflow.data.film.pixels import matrix

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

    from syncflow.data.film.pyav import Picture, PictureTrack, Timed


#: So many packets in a row that are shown after a moment: none before it comes later. More than the
#: 16 pictures that any codec keeps.
_REORDERED = 32
#: Packets that are tried in a container before it is said to take the film.
_TRIED = 40
#: Pictures of it that are compared.
_LOOKED_AT = 8
#: Edit lists hide pictures in these.
_HIDING = (".mp4", ".m4v", ".mov")


@dataclass(frozen=True)
class Copy:
    """Which packets of the film are copied, in the ticks of its own clock.

    ``first``: index, in decoding order, of the first; ``pts_N`` and ``dts_N`` from there on;
    ``kept_N`` which of them; ``origin`` the time of the first picture shown; ``hides`` where
    pictures are copied that are not shown ("before" the first one that is, or "after" the last),
    because others refer to them; ``ends``: seconds of what is shown, None: to the last packet.
    """

    first: int
    pts_N: np.ndarray
    dts_N: np.ndarray
    kept_N: np.ndarray
    origin: int
    hides: str | None
    ends: float | None

    def packets(
        self,
        source: InputContainer,
        track: PictureTrack,
        stream: VideoStream,
        most: int | None = None,
    ) -> Iterator[Timed]:
        """The packets for ``stream``, the first shown at time zero."""
        last = len(self.pts_N) if most is None else min(most, len(self.pts_N))
        for index, packet in enumerate(_packets(source, track)):
            index -= self.first
            if index >= last:
                return
            if index >= 0 and self.kept_N[index]:
                packet.pts = int(self.pts_N[index]) - self.origin
                packet.dts = int(self.dts_N[index]) - self.origin
                packet.stream = stream
                yield cast("Timed", packet)


def _packets(source: InputContainer, track: PictureTrack) -> Iterator[Packet[VideoStream]]:
    return (packet for packet in source.demux(track) if packet.size)


def plan(path: str | Path, until: float | None = None) -> Copy:
    """What has to be copied of the film ``path``; ``until``: only what the pictures before that
    second need. Reads the file once, and keeps nothing of it.

    Raises:
        ValueError: its pictures have no times of their own, or are hidden in between.
    """
    origin = _first_shown(path)
    with opener.film(path, fill_times=True) as source:
        track = tracks.picture(source, path)
        track_tick = float(track.time_base)
        end = None if until is None else origin + until / track_tick - 1e-3
        pts_N, dts_N, flags_N = _times(_packets(source, track), path, track, end)
    discarded_N, key_N = flags_N[:, 0], flags_N[:, 1]

    found = np.flatnonzero((pts_N == origin) & ~discarded_N)
    if not len(found):
        raise ValueError(f"the pictures of '{path}' are not one to a packet: {ANEW}")
    at = int(found[0])
    keys = np.flatnonzero(key_N[: at + 1])
    first = int(keys[-1]) if len(keys) else 0
    shown_N = ~discarded_N & (pts_N >= origin)
    if end is not None:
        shown_N &= pts_N < end
    last = int(np.flatnonzero(shown_N)[-1])
    part = slice(first, last + 1)
    latest = pts_N[shown_N].max()
    if (discarded_N & (pts_N >= origin) & (pts_N < latest))[part].any():
        raise ValueError(f"'{path}' hides pictures between those that it shows: {ANEW}")
    kept_N = np.ones(last + 1 - first, dtype=bool)
    if first == at:  # what is shown before a keyframe and stored after it, nothing else refers to
        kept_N = pts_N[part] >= origin
    after_N = (pts_N > latest)[part]
    hides = "before" if (kept_N & (pts_N[part] < origin)).any() else None
    hides = hides or ("after" if (after_N & discarded_N[part]).any() else None)
    ends = float((pts_N[part][after_N].min() - origin) * track_tick) if after_N.any() else None
    return Copy(first, pts_N[part], dts_N[part], kept_N, origin, hides, ends)


ANEW = "it cannot be copied as it is; encode it first, e.g. ffmpeg -i FILM -c:v libx264 OUT.mp4"


def _first_shown(path: str | Path) -> int:
    """The pts of the first picture that a player shows."""
    with opener.film(path, fill_times=True) as source:
        track = tracks.picture(source, path)
        frame = next(decode.pictures(source.demux(track)), None)
        if frame is None:
            raise ValueError(f"'{path}' has no video frame that can be decoded")
        if frame.pts is None:
            raise ValueError(f"the pictures of '{path}' have no times: {ANEW}")
        return frame.pts


def _times(
    packets: Iterator[Packet[VideoStream]], path: str | Path, track: PictureTrack, end: float | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """pts [N], dts [N] and (is hidden, is a keyframe) [N,2] of all packets needed until ``end``."""
    pts: list[int | None] = []
    dts: list[int | None] = []
    flags: list[tuple[bool, bool]] = []
    later = 0
    for packet in packets:
        shown = packet.dts if packet.pts is None else packet.pts
        if shown is None:
            raise ValueError(f"the pictures of '{path}' have no times: {ANEW}")
        pts.append(packet.pts)
        dts.append(packet.dts)
        flags.append((packet.is_discard, packet.is_keyframe))
        later = later + 1 if end is not None and shown >= end else 0
        if later > _REORDERED:
            break
    if any(time is None for time in pts):
        # Fine where no picture is stored before one that is shown earlier.
        if track.codec_context.has_b_frames or any(time is None for time in dts):
            raise ValueError(f"'{path}' does not say when its pictures are shown: {ANEW}")
        pts = dts
    pts_N = np.array(pts, dtype=np.int64)
    seconds = np.sort(pts_N) * float(track.time_base)
    for before, after in zip(seconds, seconds[1:], strict=False):
        if after - before > limits.MOST_GAP_S:
            limits.check_gap(path, before - seconds[0], after - seconds[0])
    if any(time is None for time in dts):  # mkv does not keep them
        order = np.sort(pts_N)
        dts_N = order - (order - pts_N).max()
    else:
        dts_N = np.array(dts, dtype=np.int64)
        if (np.diff(dts_N) <= 0).any():
            raise ValueError(f"the clock of '{path}' stands still or jumps back: {ANEW}")
    return pts_N, dts_N, np.array(flags, dtype=bool)


def add_track(out: OutputContainer, track: VideoStream, tag: str | None) -> VideoStream:
    """A track of the container ``out`` for packets of ``track``, with codec tag ``tag``."""
    # Opaque: by its parameters. The name of a decoder (libdav1d) is no codec that a muxer knows.
    stream = out.add_stream_from_template(track, opaque=True)
    stream.codec_context.sample_aspect_ratio = track.sample_aspect_ratio or Fraction(0)
    if tag is not None:
        stream.codec_context.codec_tag = tag
    return stream


def _own_tag(source: InputContainer, track: PictureTrack, suffix: str) -> str | None:
    """The codec's tag where the new container has the same kind of tags as the old one: it may say
    what nothing else does, like the profile of ProRes."""
    if "mov" not in source.format.name or suffix not in _HIDING:
        return None
    try:
        text = track.codec_context.codec_tag
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() else None


def holds(
    suffix: str, container: str, path: str | Path, copy: Copy
) -> tuple[str | None, str | None]:
    """What a ``suffix`` file cannot do for the film (None: it can hold it as it is), and the tag of
    its codec that is to be kept. Found out by writing its beginning and reading that again."""
    if copy.hides and suffix not in _HIDING:
        return f"hide the pictures {copy.hides} those that are shown", None
    with opener.film(path, fill_times=True) as source:
        track = tracks.picture(source, path)
        own, before = _own_tag(source, track, suffix), _look(source, track)
    for kept in dict.fromkeys((own, None)):
        reason = _tried(container, path, copy, kept, before)
        if reason is None:
            return None, kept
    return reason, None


def _tried(
    container: str, path: str | Path, copy: Copy, own: str | None, before: _Look
) -> str | None:
    import av

    trial = io.BytesIO()
    most = int(np.argmax(copy.pts_N >= copy.origin)) + _TRIED
    with opener.film(path, fill_times=True) as source:
        track = tracks.picture(source, path)
        name = track.codec_context.codec.canonical_name
        try:
            with av.open(trial, "w", format=container) as out:
                stream = add_track(out, track, own)
                for packet in copy.packets(source, track, stream, most):
                    out.mux(packet)
            trial.seek(0)
            with av.open(trial, "r") as again:
                after = _look(again, cast("PictureTrack", again.streams.video[0]))
        except (av.FFmpegError, ValueError, IndexError):
            return f"hold {name} video"
    if abs(after.aspect / before.aspect - 1) > 1e-3:
        return f"keep the shape of its pixels, {before.aspect:g} to 1"
    if after.matrix != before.matrix:
        return "keep how it is turned or mirrored"
    if after.kind != before.kind or after.first != before.first:
        return f"keep the pictures of {name} as they are"
    pairs = list(zip(after.times, before.times, strict=False))
    if not pairs or max(abs(a - b) for a, b in pairs) > 2e-3:
        return "keep the times of its pictures"
    return None


@dataclass(frozen=True)
class _Look:
    """What the beginning of a film looks like; ``first``: a digest of its first picture."""

    aspect: float
    matrix: tuple[int, ...]
    kind: tuple[str, int, int]
    first: bytes
    times: list[float]


def _look(source: InputContainer, track: PictureTrack) -> _Look:
    first: tuple[tuple[int, ...], tuple[str, int, int], bytes] | None = None
    times: list[float] = []
    for frame in islice(decode.pictures(source.demux(track)), _LOOKED_AT):
        times.append(float((frame.pts or 0) * frame.time_base))
        if first is None:
            first = (matrix(frame), (frame.format.name, frame.width, frame.height), _digest(frame))
    if first is None:
        raise ValueError("no picture can be decoded")
    return _Look(float(track.sample_aspect_ratio or 1), *first, [time - times[0] for time in times])


def _digest(frame: Picture) -> bytes:
    """Of samples of the picture, as they are: a whole one of 8K would be gigabytes."""
    size = {"width": min(256, frame.width), "height": min(256, frame.height)}
    few = frame.reformat(format="rgb48le", interpolation="POINT", threads=1, **size)
    return hashlib.sha256(few.to_ndarray().tobytes()).digest()
