"""Batches made ahead of the steps that they are for."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic

import torch

from syncflow.training.distributed.side_stream import Made, SideStream
from syncflow.training.tasks.randomness import Source
from syncflow.training.tasks.task import Batch, Task


class Batches(Generic[Batch]):
    """Batches and what their steps draw; the next ``ahead`` are made meanwhile by ``readers``
    threads. What is drawn is drawn by one more, in order: processes pair noise together.

    Args:
        task: makes them.
        ahead: so many; 0 = each when it is taken.
        source: the randomness of a pass.
        readers: threads that read.
        device: where batches go.
    """

    def __init__(
        self,
        task: Task[Batch],
        ahead: int,
        source: Callable[[int], Source],
        readers: int = 1,
        device: torch.device | None = None,
    ) -> None:
        self.task, self.ahead, self.source = task, ahead, source
        self.side = SideStream(device or torch.device("cpu"))
        self.pools: list[ThreadPoolExecutor] = []
        if ahead:
            self.pools = [ThreadPoolExecutor(readers), ThreadPoolExecutor(1)]
        self.waiting: dict[int, Future[Made[Batch]]] = {}

    def __enter__(self) -> Batches[Batch]:
        return self

    def __exit__(self, *_: object) -> None:
        for pool in self.pools:
            pool.shutdown(cancel_futures=True)

    def prepare(self, index: int) -> None:
        """Has the passes from ``index`` on made, as many as are made ahead."""
        if not self.pools:
            return
        readers, drawer = self.pools
        for place in range(index, index + self.ahead):
            if place not in self.waiting:
                read = readers.submit(self._read, place)
                self.waiting[place] = drawer.submit(self._drawn, place, read.result)

    def take(self, index: int) -> Batch:
        """The batch of a pass."""
        future = self.waiting.pop(index, None)
        if future is not None:
            return future.result().take()
        return self.task.drawn(self.task.batch(index), self.source(index))

    def _read(self, index: int) -> Made[Batch]:
        return self.side.make(lambda: self.task.batch(index))

    def _drawn(self, index: int, read: Callable[[], Made[Batch]]) -> Made[Batch]:
        # On the same stream as it was sent on: nothing waits for that.
        batch = read().value
        return self.side.make(lambda: self.task.drawn(batch, self.source(index)))
