"""The sync table of ``detect/matching.py`` as one of the paper tables' metrics: events seen
against heard.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from syncflow.detect import contacts, matching, onsets
from syncflow.evaluation.metrics.metric import Metric, Pair, Result

#: Name in ``sync.measure`` -> heading, and which way is better.
NAMES: dict[str, tuple[str, Literal["lower", "higher"]]] = {
    "f1_50": ("F1 at 50 ms", "higher"),
    "f1_100": ("F1 at 100 ms", "higher"),
    "median_ms": ("median ms", "lower"),
}


class EventSync(Metric):
    """F1 and median distance of contacts and onsets. Fitted to the synthetic world: elsewhere the
    contacts mean nothing. Keeps the times of every clip, a few numbers each."""

    def __init__(self) -> None:
        self.seen: list[list[float]] = []
        self.heard: list[list[float]] = []

    def update(self, pairs: Sequence[Pair]) -> None:
        for clip in (pair.generated for pair in pairs):
            self.seen.append(contacts.times(clip.video, clip.fps))
            self.heard.append(onsets.times(clip.audio, clip.sample_rate))

    def results(self) -> list[Result]:
        table = matching.measure(self.seen, self.heard)
        facts = {"network": "none", "definition": "contacts of the picture against onsets"}
        return [
            Result(heading, table[name], better, len(self.seen), facts)
            for name, (heading, better) in NAMES.items()
        ]
