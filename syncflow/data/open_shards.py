"""The shards of latents that are open, wherever they lie."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from syncflow.data.latent_rows import Shard
from syncflow.data.latent_sources import Folder
from syncflow.data.manifest import ShardLine


class OpenShards:
    """The shards of a folder by their numbers, opened once: all at first, or where they are copied
    each when it is read, by whichever thread.

    Args:
        place: of the shards.
        check: raises ValueError for one that does not belong to the others.
    """

    def __init__(self, place: Folder, check: Callable[[Shard], None]) -> None:
        self.place, self.check = place, check
        self.entries: list[ShardLine] = place.manifest["shards"]
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._lock = threading.Lock()
        self._opening = [threading.Lock() for _ in self.entries]
        for number in range(1 if place.lazy else len(self.entries)):
            self[number]

    def __getitem__(self, number: int) -> Shard:
        with self._opening[number]:
            with self._lock:
                shard = self._open.get(number)
                if shard is not None:
                    self._open.move_to_end(number)
                    return shard
            shard = self._opened(self.entries[number])
            with self._lock:
                self._open[number] = shard
                self._close_some()
            return shard

    def _opened(self, entry: ShardLine) -> Shard:
        shard = self.place.open(entry, self._is_open)
        if len(shard.tensors["video_mean"]) != entry["count"]:
            raise ValueError(
                f"'{shard.path}' does not have the {entry['count']} rows that its manifest lists"
            )
        self.check(shard)
        return shard

    def _is_open(self, path: Path) -> bool:
        with self._lock:
            return any(shard.path == path for shard in self._open.values())

    def _close_some(self) -> None:
        """Lets go of those that were not read for longest, beyond what may be open."""
        while len(self._open) > 1:
            sizes = [sum(v.nbytes for v in shard.tensors.values()) for shard in self._open.values()]
            if sum(sizes) <= self.place.most_open:
                return
            self._open.popitem(last=False)
