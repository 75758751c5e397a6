"""Files -> segments -> batches -> shards, settled before the first picture is decoded.

Which segments share a batch and which batches a shard is a function of the list alone. A killed run
that goes on, or another number of processes, therefore writes the same shards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from syncflow.data import json_lines, media
from syncflow.data.latent_shards import write_lines
from syncflow.data.prepare import workers
from syncflow.data.prepare.sources import Source
from syncflow.json_types import JsonObject

#: About as many windows in a shard.
SHARD = 256


@dataclass(frozen=True)
class Plan:
    """``segments`` in order; ``batches`` are ranges of them, ``shards`` ranges of batches."""

    segments: list[Source]
    batches: list[range]
    shards: list[range]


@dataclass(frozen=True)
class Length:
    """Looks how long a source's file says it is, in seconds; 0 where it does not or cannot."""

    root: Path

    def __call__(self, source: Source) -> float:
        try:
            return media.probe(self.root / source.file).seconds
        except Exception:  # decoding will say what is wrong with it
            return 0.0


def make(
    sources: Sequence[Source],
    root: Path,
    out: Path,
    window_s: float,
    segment_s: float,
    batch: int,
    per_segment: int | None,
    num_workers: int,
) -> Plan:
    """The plan for ``sources``, from ``out/plan.jsonl`` if it is there, and kept there if not.

    Files longer than ``segment_s`` are read in segments of that length; the last one takes the
    rest if that is shorter than a window.
    """
    path = out / "plan.jsonl"
    if path.exists():
        lines = list(json_lines.read(path))
        segments = [source_of(line, path) for line in lines]
        expected = [line["windows"] for line in lines]
    else:
        lengths = workers.ordered(Length(root), sources, num_workers, lambda source: 0.0)
        segments, expected = [], []
        for source, length in zip(sources, lengths, strict=True):
            for segment, seconds in _segments(source, length, window_s, segment_s):
                segments.append(segment)
                fit = max(1, int(seconds / window_s))
                expected.append(fit if per_segment is None else min(fit, per_segment))
        write_lines(
            path,
            [{**asdict(s), "windows": n} for s, n in zip(segments, expected, strict=True)],
        )
    batches = _grouped(expected, batch)
    windows = [sum(expected[i] for i in group) for group in batches]
    return Plan(segments, batches, _grouped(windows, SHARD))


def _segments(
    source: Source, length: float, window_s: float, segment_s: float
) -> list[tuple[Source, float]]:
    """Segments of a source and their seconds; ``length`` is the file's."""
    whole = source.seconds if source.seconds is not None else max(0.0, length - source.start)
    count = max(1, int((whole - window_s) // segment_s) + 1 if whole > segment_s else 1)
    out = []
    for number in range(count):
        last = number == count - 1
        start = source.start + number * segment_s
        rest = whole - number * segment_s
        seconds = rest if last and source.seconds is not None else None if last else segment_s
        out.append((replace(source, start=start, seconds=seconds), rest if last else segment_s))
    return out


def _grouped(sizes: Sequence[int], least: int) -> list[range]:
    """Ranges of neighbours whose sizes add up to ``least`` or more."""
    out, first, total = [], 0, 0
    for index, size in enumerate(sizes):
        total += size
        if total >= least:
            out.append(range(first, index + 1))
            first, total = index + 1, 0
    if first < len(sizes):
        out.append(range(first, len(sizes)))
    return out


def check_same(out: Path, sources: Sequence[Source]) -> None:
    """Raises ValueError, with the first difference, where ``out`` has a plan for other clips, or
    for the same ones with other captions."""
    path = out / "plan.jsonl"
    if not path.exists():
        return
    before: dict[tuple[str, float], Source] = {}
    for line in json_lines.read(path):  # the first segment of a source begins where it does
        segment = source_of(line, path)
        before.setdefault((segment.file, segment.start), segment)
    advice = "use a new --out"
    for source in sources:
        known = before.get((source.file, source.start))
        if known is None:
            raise ValueError(f"{source.file} is new, and {out} was planned without it; {advice}")
        if known.caption != source.caption:
            raise ValueError(
                f"caption of {source.file} was {known.caption!r}, now {source.caption!r}; {advice}"
            )
        if known.events != source.events:
            raise ValueError(f"the annotations of {source.file} have changed; {advice}")
    gone = {segment.file for segment in before.values()} - {source.file for source in sources}
    if gone:
        raise ValueError(f"{min(gone)} is gone, and {out} was planned with it; {advice}")


def source_of(line: JsonObject, path: Path) -> Source:
    """The segment of a line of ``plan.jsonl``.

    Raises:
        ValueError: the line is not one of a plan.
    """
    try:
        segment = dict(line)
        segment.pop("windows")
        events = segment.pop("events")
        told = None if events is None else tuple((time, said) for time, said in events)
        return Source(**segment, events=told)
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"'{path}' is damaged ({str(line):.80}); delete {path.parent} to encode again"
        ) from None
