"""Several soundtracks of one picture: the best first, judged by one metric and told by another.

Picking the take with the best score makes that score look better than it is. So takes are ordered
by events (onsets heard against contacts seen) and what is reported beside it comes from the whole
curves of both (``envelopes``), which took no part in the choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from syncflow.clip import Clip
from syncflow.detect import contacts, envelopes, matching, onsets

#: What the takes are ordered by, and what took no part in it.
RANKED_BY, REPORTED_BY = "agreement", "correlation"
_TOLERANCE = 0.1


def agreement(seen: Sequence[float], heard: Sequence[float]) -> float:
    """F1 of contacts and onsets at 100 ms in which a pair counts less the further it is apart:
    0 (nothing meets) to 1 (everything meets exactly, or nothing happens in either)."""
    if not len(seen) and not len(heard):
        return 1.0
    pairs = matching.match(seen, heard, _TOLERANCE)
    closeness = sum(1 - abs(seen[i] - heard[j]) / _TOLERANCE for i, j in pairs)
    return 2 * closeness / (len(seen) + len(heard))


def ranked(takes: Sequence[Clip]) -> list[Clip]:
    """The takes of one picture, best agreement first, each with its ``scores``."""
    first = takes[0]
    seen = contacts.times(first.video, first.fps)
    change = envelopes.picture(first.video, first.fps)
    scored: list[tuple[float, Clip]] = []
    for clip in takes:
        heard = onsets.times(clip.audio, clip.sample_rate)
        rise = envelopes.sound(clip.audio, clip.sample_rate, clip.fps)
        scores = {
            RANKED_BY: agreement(seen, heard),
            REPORTED_BY: envelopes.correlation(change, rise),
        }
        scored.append((scores[RANKED_BY], replace(clip, scores=scores)))
    return [clip for _, clip in sorted(scored, key=lambda pair: -pair[0])]
