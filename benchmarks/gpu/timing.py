"""Times of GPU work: graph replay over rotating inputs, medians with their spread."""

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

# Inputs rotate through more memory than any L2 cache holds, so that every call reads cold ones.
ROTATION_BYTES = 200 << 20
MOST_SETS = 64


@dataclass(frozen=True)
class Time:
    """Microseconds of one call; `how` is "graph" or "events"."""

    median: float
    p20: float
    p80: float
    how: str

    def as_json(self) -> dict[str, float | str]:
        """The fields, numbers to a thousandth."""
        return {k: round(v, 3) if isinstance(v, float) else v for k, v in asdict(self).items()}


def sets_for(bytes_each: int, dry: bool) -> int:
    """How many copies of an op's inputs to rotate among."""
    return 1 if dry else max(2, min(MOST_SETS, ROTATION_BYTES // max(1, bytes_each) + 1))


def measure(calls: list[Callable[[], object]], dry: bool, seconds: float = 0.1) -> Time | None:
    """Time of one of `calls`, which do the same work on different inputs. None in a dry run, which
    makes each call once."""
    if dry:
        calls[0]()
        return None
    for _ in range(3):
        for call in calls:
            call()
    torch.cuda.synchronize()
    try:
        run, how = _captured(calls), "graph"
    except RuntimeError:
        torch.cuda.synchronize()
        run, how = (lambda: [call() for call in calls]), "events"
    one = _events(run, 2)[-1]
    repeats = max(5, min(200, int(seconds * 1e6 / max(one, 1.0))))
    times = sorted(t / len(calls) for t in _events(run, repeats))
    fifth = max(0, len(times) // 5)
    return Time(statistics.median(times), times[fifth], times[-1 - fifth], how)


def _captured(calls: list[Callable[[], object]]) -> Callable[[], object]:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in calls:
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    return graph.replay


def _events(run: Callable[[], object], repeats: int) -> list[float]:
    """Microseconds of every repeat."""
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    marks[0].record()
    for mark in marks[1:]:
        run()
        mark.record()
    torch.cuda.synchronize()
    return [a.elapsed_time(b) * 1e3 for a, b in zip(marks, marks[1:], strict=False)]
