"""How long a file says it is, and whether all of it is there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from syncflow.data.film import limits

if TYPE_CHECKING:
    from av.container import InputContainer

    from syncflow.data.film.pyav import PictureTrack, SoundTrack


#: A file may end so much before the time it states (s), or two pictures.
_SLACK = 0.25
_SEGMENT = b"\x18\x53\x80\x67"
#: An avi's chunks: a name and a length, all ones where a recorder did not know it yet.
_RIFF_HEADER, _UNKNOWN = 8, 0xFFFFFFFF


def stated_seconds(
    source: InputContainer, track: PictureTrack | SoundTrack, path: str | Path
) -> float | None:
    """Seconds from the first picture to the end, as the headers have them; None where they say
    nothing.

    Raises:
        ValueError: a length that cannot be.
    """
    seconds = None
    if track.duration is not None:
        seconds = float(track.duration * track.time_base)
    elif source.duration is not None:
        seconds = source.duration / 1e6
        begins = float((track.start_time or 0) * track.time_base)
        if _is_matroska(source) and begins > 0:
            # Some writers state the length, others the time of the end: the last packets know.
            seconds = _end(source, track, begins + seconds) - begins
    if seconds is None or seconds <= 0:
        return None
    limits.check_seconds(path, seconds)
    size = Path(path).stat().st_size
    if seconds > limits.MOST_GAP_S and size < seconds * limits.LEAST_BYTES_PER_SECOND:
        _check_gaps(source, track, path)
    return seconds


def _end(source: InputContainer, track: PictureTrack | SoundTrack, latest: float) -> float:
    """Own time (s) at which the last picture of the track ends; moves the file's position."""
    end = 0.0
    for back in (30.0, latest):
        source.seek(max(0, int((latest - back) / track.time_base)), stream=track, backward=True)
        for packet in source.demux(track):
            if packet.pts is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if end:
            break
    return end


def _check_gaps(source: InputContainer, track: PictureTrack | SoundTrack, path: str | Path) -> None:
    """Raises for a gap in the times of the pictures; reads the file, which is small."""
    times = sorted(
        float(packet.pts * packet.time_base)
        for packet in source.demux(track)
        if packet.pts is not None
    )
    for before, after in zip(times, times[1:], strict=False):
        limits.check_gap(path, before - times[0], after - times[0])


def last_shown_until(source: InputContainer, track: PictureTrack | SoundTrack, end: float) -> float:
    """Own time (s) until which the last picture stays, where the container says more than the
    packets: matroska keeps no length of a last picture but that of its track."""
    text = track.metadata.get("DURATION") if _is_matroska(source) else None
    try:
        hours, minutes, seconds = (text or "").split(":")
        stated = 3600 * float(hours) + 60 * float(minutes) + float(seconds)
    except ValueError:
        return end
    return stated if end < stated <= end + limits.MOST_GAP_S else end


def is_whole(source: InputContainer, path: str | Path, reach: float, step: float) -> bool:
    """Whether the file ends where it says it does; ``reach``: own time (s) of its last packet."""
    if _is_matroska(source):
        end = _segment_end(Path(path))
        if end is not None:
            return end <= Path(path).stat().st_size
        stated = (source.duration or 0) / 1e6
    elif source.format.name == "avi":
        return _riff_end(Path(path)) <= Path(path).stat().st_size
    else:
        stated = ((source.duration or 0) + (source.start_time or 0)) / 1e6
    return reach >= stated - max(_SLACK, 2 * step)


def _is_matroska(source: InputContainer) -> bool:
    return "matroska" in source.format.name


def _segment_end(path: Path) -> int | None:
    """Where the one big element of a matroska file ends, in bytes; None for a live recording,
    which does not know."""
    with path.open("rb") as file:
        head = file.read(4096)
    at = head.find(_SEGMENT) + len(_SEGMENT)
    if at < len(_SEGMENT) or at >= len(head):
        return None
    length = 9 - head[at].bit_length()  # of the number: as many bytes as zeros before its first bit
    digits = head[at : at + length]
    if len(digits) < length:
        return None
    size = int.from_bytes(digits, "big") & ((1 << 7 * length) - 1)
    return None if size == (1 << 7 * length) - 1 else at + length + size


def _riff_end(path: Path) -> int:
    """Where the last of the big chunks of an avi ends, in bytes, as their headers have it; 0 where
    they do not say. FFmpeg takes what is there for the whole film."""
    size, end = path.stat().st_size, 0
    with path.open("rb") as file:
        while end < size:
            file.seek(end)
            head = file.read(_RIFF_HEADER)
            length = int.from_bytes(head[4:], "little")
            if head[:4] != b"RIFF" or len(head) < _RIFF_HEADER or length in (0, _UNKNOWN):
                break
            end += _RIFF_HEADER + length
    return end
