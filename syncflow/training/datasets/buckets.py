"""What a run sees, and when: clips of one folder, or of several in batches of one bucket each.

Everything follows from the seed and the number of the pass, so a resumed run sees what an
uninterrupted one does, whatever the number of processes.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from syncflow.clip import ClipSpec
from syncflow.data.latents import Latents
from syncflow.models.text import tokens
from syncflow.training.settings import BucketConfig, LoopConfig

_BLOCK = 256  # updates in which every bucket has its share
_ORDER = 5  # the stream of random numbers that orders the buckets


def epoch_indices(
    size: int,
    seed: int,
    step: int,
    batch_size: int,
    shards: tuple[int, ...] = (),
    together: int = 0,
) -> np.ndarray:
    """Which samples step ``step`` sees: every epoch is a new permutation, none is repeated or
    skipped within it. ``together``: it goes through ``shards`` (their sizes) in a new order, so
    many at a time, and mixes the samples of those; 0 = all of them."""
    first = step * batch_size
    places = np.arange(first, first + batch_size)
    out = np.empty(batch_size, dtype=np.int64)
    for epoch in np.unique(places // size):
        here = places // size == epoch
        order = _permutation(size, seed, int(epoch), shards, together)
        out[here] = order[places[here] % size]
    return out


@lru_cache(maxsize=8)
def _permutation(
    size: int, seed: int, epoch: int, shards: tuple[int, ...], together: int
) -> np.ndarray:
    """The order of an epoch; made once, and not for every pass of a million clips."""
    rng = np.random.default_rng([seed, epoch])
    if together:
        ends = np.cumsum([0, *shards])
        order = rng.permutation(len(shards))
        parts = [order[first : first + together] for first in range(0, len(order), together)]
        rows = [np.concatenate([np.arange(ends[n], ends[n + 1]) for n in part]) for part in parts]
        out = np.concatenate([rng.permutation(part) for part in rows])
    else:
        out = rng.permutation(size)
    out.setflags(write=False)
    return out


@dataclass(frozen=True)
class Bucket:
    """Clips of one geometry. ``name`` stands in logs, ``batch_size`` is that of a pass of all
    processes; ``together``: shards that are mixed (``epoch_indices``)."""

    name: str
    latents: Latents
    batch_size: int
    together: int = 0

    @property
    def spec(self) -> ClipSpec:
        """Lengths and sizes of its clips."""
        return self.latents.spec


@dataclass(frozen=True)
class Pass:
    """Clips of ``bucket`` in its ``turn``-th pass; ``places`` number them through the run, for
    their draws."""

    bucket: Bucket
    turn: int
    places: range
    seed: int

    @property
    def rows(self) -> np.ndarray:
        """Which clips."""
        latents, together = self.bucket.latents, self.bucket.together
        shards = latents.counts if together else ()
        size = len(self.places)
        return epoch_indices(len(latents), self.seed, self.turn, size, shards, together)


class Plan:
    """Which bucket and which of its rows a pass sees; ``statistics`` normalise all of them.

    An update is of one bucket. Of every 256 updates a bucket has its share, rounded up or down, in
    an order drawn anew; its rows come in epochs of their own. The share is that of the batches in
    an epoch of its clips, times its weight.

    Args:
        buckets: at least one.
        weights: one each.
        loop: its seed, batch size and accumulation.
    """

    def __init__(
        self, buckets: Sequence[Bucket], weights: Sequence[float], loop: LoopConfig
    ) -> None:
        self.buckets, self.loop = list(buckets), loop
        batches = [
            weight * len(bucket.latents) / bucket.batch_size
            for bucket, weight in zip(buckets, weights, strict=True)
        ]
        self.shares = np.array(batches) / sum(batches)
        self._before = [np.zeros(len(self.buckets), dtype=np.int64)]  # each block
        self._lock = threading.Lock()  # the next batch is made by another thread
        self.statistics = self.buckets[0].latents.statistics
        self._largest = max(bucket.batch_size for bucket in self.buckets)

    def at(self, index: int) -> Pass:
        """Pass ``index``; ``accumulate`` of them are an update."""
        parts = self.loop.accumulate
        update, part = divmod(index, parts)
        number, earlier = self._bucket(update)
        bucket = self.buckets[number]
        size = bucket.batch_size
        # By the update and the largest batch: another accumulation must not number otherwise.
        first = update * parts * self._largest + part * size
        places = range(first, first + size)
        return Pass(bucket, earlier * parts + part, places, self.loop.seed)

    def _bucket(self, update: int) -> tuple[int, int]:
        """The bucket of an update, and how many updates it had before."""
        if len(self.buckets) == 1:
            return 0, update
        block, place = divmod(update, _BLOCK)
        with self._lock:
            while len(self._before) <= block:
                order = self._block(len(self._before) - 1)
                seen = np.bincount(order, minlength=len(self.buckets))
                self._before.append(self._before[-1] + seen)
            before = self._before[block]
        order = self._block(block)
        number = int(order[place])
        return number, int(before[number] + np.count_nonzero(order[:place] == number))

    def _block(self, number: int) -> np.ndarray:
        """The buckets of the updates of a block."""
        rng = np.random.default_rng([self.loop.seed, _ORDER, number])
        points = (np.arange(_BLOCK) + rng.random()) / _BLOCK
        drawn = np.searchsorted(self.shares.cumsum()[:-1], points, side="right")
        return rng.permutation(drawn)


def training_buckets(
    data: str | Sequence[str | BucketConfig],
    loop: LoopConfig,
    statistics: dict[str, list[float]] | None = None,
    read: Callable[[str], Latents] = Latents,
    together: int = 0,
) -> Plan:
    """The plan of a training set; all its latents are normalised by ``statistics`` and, where those
    do not name one, by those of all of them. ``read`` opens a folder.

    Raises:
        ValueError: two folders are of different encoders.
        FileNotFoundError: a folder has no finished latents.
    """
    entries = [data] if isinstance(data, str) else data
    chosen = [BucketConfig(data=entry) if isinstance(entry, str) else entry for entry in entries]
    latents = [read(entry.data) for entry in chosen]
    for each in latents if not together else ():
        each.place.require_room()
    for entry, other in zip(chosen[1:], latents[1:], strict=True):
        other.require(entry.data, latents[0].manifest, "encoders")
    own = latents[0].statistics if len(latents) == 1 else _pooled(latents)
    for each in latents:
        each.normalise({**own, **(statistics or {})})
    sizes = [entry.batch_size or loop.batch_size for entry in chosen]
    buckets = [
        Bucket(*each, together) for each in zip(_names(latents), latents, sizes, strict=True)
    ]
    return Plan(buckets, [entry.weight for entry in chosen], loop)


def validation_buckets(
    folders: str | Sequence[str], plan: Plan, read: Callable[[str], Latents] = Latents
) -> list[Bucket]:
    """Validation sets, each of a geometry and of the encoders that are trained on, and normalised
    as those are.

    Raises:
        ValueError: one is not.
    """
    trained = {bucket.spec for bucket in plan.buckets}
    first = plan.buckets[0].latents.manifest
    latents = []
    for folder in [folders] if isinstance(folders, str) else folders:
        found = read(folder)
        found.normalise(plan.statistics)
        found.require(folder, first, "encoders")
        if found.spec not in trained:
            found.require(folder, first, "geometry")
        latents.append(found)
    names = _names(latents)
    return [Bucket(name, each, len(each)) for name, each in zip(names, latents, strict=True)]


def _names(latents: Sequence[Latents]) -> list[str]:
    """Height x width x frames; the second of the same has a number."""
    out: list[str] = []
    for spec in (each.spec for each in latents):
        name = f"{spec.height}x{spec.width}x{spec.num_frames}"
        again = sum(other.split("_")[0] == name for other in out)
        out.append(f"{name}_{again + 1}" if again else name)
    return out


def _pooled(latents: Sequence[Latents]) -> dict[str, list[float]]:
    """Mean and deviation per channel over all latents of all folders."""
    out: dict[str, list[float]] = {}
    volumes: dict[str, list[int]] = {
        "video": [len(each) * math.prod(each.spec.video_latent_shape) for each in latents],
        "audio": [len(each) * each.spec.audio_latent_length for each in latents],
    }
    for kind, weight in volumes.items():
        stats = [each.manifest["statistics"] for each in latents]
        mean, std = (np.array([one[f"{kind}_{key}"] for one in stats]) for key in ("mean", "std"))
        centre = np.average(mean, axis=0, weights=weight)
        square = np.average(mean**2 + std**2, axis=0, weights=weight) - centre**2
        out |= {f"{kind}_mean": centre.tolist(), f"{kind}_std": np.sqrt(square).tolist()}
    return out


def stacked(clips: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Batches of one as one batch; captions are padded to the longest."""
    length = max(clip["mask"].shape[1] for clip in clips)
    out = {}
    for name in clips[0]:
        values = [clip[name] for clip in clips]
        if name in ("text", "mask"):
            values = [tokens.pad(value, length) for value in values]
        out[name] = torch.cat(values)
    return out
