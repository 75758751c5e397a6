"""Recordings whose events somebody wrote down: the Greatest Hits' layout, or any folder like it.

A film ``NAME_denoised.mp4`` (or ``NAME_mic.mp4``, ``NAME.mp4``, ``.mkv``, ``.webm``, ``.mov``) and
beside it ``NAME_times.txt``, one event a line: seconds, then what was struck, how (hit or scratch)
and how it reacted, as far as they are known ("None" where not). Nothing is downloaded: the videos
are the user's own copy (Owens et al. 2016, "Visually Indicated Sounds").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from syncflow import plain_text
from syncflow.clip import Clip

_ENDINGS = (".mp4", ".mkv", ".webm", ".mov")
_KINDS = ("_denoised", "_mic", "")


@dataclass(frozen=True)
class Event:
    """``time`` s in the film; ``material`` and ``kind`` None where nobody said."""

    time: float
    material: str | None
    kind: str | None


@dataclass(frozen=True)
class Window:
    """A cut of a film with its events: ``times`` s within the clip; ``material`` and ``kind`` of
    most of them ("mixed" where there is no most common one, "unknown" where nobody said)."""

    name: str
    start: float
    clip: Clip
    times: list[float]
    material: str
    kind: str


def read_events(path: str | Path) -> list[Event]:
    """The events of a ``_times.txt``, in order of time.

    Raises:
        ValueError: a line that does not begin with a number; the message names file and line.
    """
    events = []
    for number, line in enumerate(plain_text.lines(plain_text.read(Path(path))), start=1):
        words = line.replace(",", " ").split()
        if not words:
            continue
        try:
            time = float(words[0])
        except ValueError:
            raise ValueError(
                f"'{path}' line {number}: expected seconds first, got {line!r}"
            ) from None
        said = [None if word == "None" else word for word in (*words[1:], None, None)]
        events.append(Event(time, said[0], said[1]))
    return sorted(events, key=lambda event: event.time)


def find(folder: str | Path) -> list[tuple[Path, Path]]:
    """(film, times) of every annotated film under ``folder``.

    Raises:
        FileNotFoundError: no such folder, or nothing annotated in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: '{folder}'")
    found = []
    for times in sorted(folder.rglob("*_times.txt")):
        name = times.name.removesuffix("_times.txt")
        films = [times.with_name(name + kind + end) for kind in _KINDS for end in _ENDINGS]
        film = next((film for film in films if film.is_file()), None)
        if film is not None:
            found.append((film, times))
    if not found:
        raise FileNotFoundError(f"no video with a '_times.txt' file under '{folder}'")
    return found


def windows(folder: str | Path, count: int, like: Clip) -> list[Window]:
    """The first ``count`` windows of the length, rates and size of ``like`` with an event in them,
    taken from the films in turn; windows of one film do not overlap."""
    from syncflow.data import media

    seconds, (height, width) = like.seconds, like.video.shape[2:]
    waiting = [(film, read_events(times), 0.0) for film, times in find(folder)]
    found: list[Window] = []
    while waiting and len(found) < count:
        film, events, after = waiting.pop(0)
        length = media.probe(film).seconds
        # A little before its first event, so that the event has a past.
        first = next((e.time for e in events if e.time - 0.25 >= after), None)
        if first is None or first - 0.25 + seconds > length:
            continue
        start = first - 0.25
        inside = [e for e in events if start <= e.time < start + seconds]
        clip = Clip.load(film, like.fps, like.sample_rate, start, seconds, height, width)
        times = [event.time - start for event in inside]
        material, kind = _most([e.material for e in inside]), _most([e.kind for e in inside])
        found.append(Window(film.name, start, clip, times, material, kind))
        waiting.append((film, events, start + seconds))
    if len(found) < 2:
        raise ValueError(
            f"'{folder}' has {len(found)} windows of {seconds:g} s; at least 2 are needed"
        )
    return found


def _most(names: Sequence[str | None]) -> str:
    known = Counter(name for name in names if name is not None).most_common(2)
    if not known:
        return "unknown"
    return "mixed" if len(known) > 1 and known[0][1] == known[1][1] else known[0][0]
