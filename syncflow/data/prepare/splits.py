"""Who trains and who tests: whole groups, so that no test clip comes from a training video."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from syncflow.data.prepare.sources import Source


def choose(
    sources: Sequence[Source], split: str | None, test_share: float | None
) -> tuple[list[Source], int]:
    """The sources of a split, and how many were left out of it because their group is also in
    another (a group counts as "test" before anything else, and as "train" last).

    Without labels in the list, ``test_share`` of the groups are "test" and the others "train", by
    a hash of their names alone: adding files moves none of the others. Of few groups, of which the
    share would be none or all, one is held out, or left to train on.

    Raises:
        ValueError: a split is asked for and nothing says who is in it, or the list has splits and
            none is asked for, or the one asked for is empty, or there is one group to share.
    """
    labels = sorted({source.split for source in sources if source.split})
    if test_share is not None:
        if labels:
            raise ValueError(
                f"the list has its own splits ({', '.join(labels)}); leave out the test share"
            )
        if split not in ("train", "test"):
            raise ValueError(f"with a test share, the split must be train or test, got {split}")
        groups = sorted({s.group for s in sources}, key=_draw)
        if len(groups) < 2:
            raise ValueError(
                f"one group of clips ({groups[0]}) cannot be shared between train and test"
            )
        held_out = sum(_draw(group) < test_share for group in groups)
        test = set(groups[: min(max(held_out, 1), len(groups) - 1)])
        chosen = [s for s in sources if (s.group in test) == (split == "test")]
        left_out = 0
    elif not labels:
        if split is not None:
            raise ValueError(
                "the list has no splits, so it is unknown which clips "
                f"are {split!r}; give a test share"
            )
        return list(sources), 0
    elif split not in labels:
        raise ValueError(f"the list has splits {', '.join(labels)}: choose one, got {split}")
    else:
        owner: dict[str, str] = {}
        for source in sources:
            if source.split and _order(source.split) < _order(owner.get(source.group)):
                owner[source.group] = source.split
        mine = [source for source in sources if source.split == split]
        chosen = [source for source in mine if owner[source.group] == split]
        left_out = len(mine) - len(chosen)
    if not chosen:
        raise ValueError(f"no clip is in the split {split!r}")
    return chosen, left_out


def _order(split: str | None) -> tuple[int, str]:
    return (3, "") if split is None else ({"test": 0, "train": 2}.get(split, 1), split)


def _draw(group: str) -> float:
    """Uniform in [0,1), a function of the name."""
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") / 2**64
