"""How much a file may claim or cost before it is refused: headers can say anything."""

from __future__ import annotations

#: A whole day. What claims to last longer has damaged timestamps.
MOST_SECONDS = 24 * 3600.0
#: One picture may be shown for so many seconds (slides, a paused screen).
MOST_GAP_S = 600.0
#: Tracks of a file. Ten languages with subtitles and a few angles are below it.
MOST_STREAMS = 64
#: Pixels of one picture; 8K is half of it.
MOST_PIXELS = 1 << 26
#: Bytes of the pictures that one call returns.
MOST_BYTES = 4 << 30
#: Bytes a second. A film has more than that even where nothing moves, unless its length is wrong.
LEAST_BYTES_PER_SECOND = 1000.0


def check_bytes(path: object, count: int, height: int, width: int) -> None:
    """Raises where ``count`` pictures of that size are more than one call returns."""
    size = count * height * width * 3
    if size > MOST_BYTES:
        raise ValueError(
            f"{count} pictures of {width}x{height} of '{path}' take {size / 2**30:.0f} GB, more "
            f"than {MOST_BYTES / 2**30:.0f}: read fewer seconds, or give a height and width"
        )


def check_seconds(path: object, seconds: float) -> None:
    if seconds > MOST_SECONDS:
        raise ValueError(
            f"'{path}' says it lasts {seconds:.0f} s, more than {MOST_SECONDS:.0f}: "
            "its timestamps are damaged"
        )


def check_gap(path: object, before: float, after: float) -> None:
    """Raises where no picture comes for too long, or the clock runs backwards."""
    if after - before > MOST_GAP_S:
        raise ValueError(
            f"'{path}' has no picture between {before:.2f} and {after:.2f} s, more than "
            f"{MOST_GAP_S:.0f} s: its timestamps are damaged"
        )
    if before - after > 1:
        raise ValueError(
            f"the clock of '{path}' jumps back from {before:.2f} to {after:.2f} s: "
            "its timestamps are damaged, or it is several films in one"
        )
