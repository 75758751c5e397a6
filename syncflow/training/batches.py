"""Batches made ahead of the steps that they are for."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic

from syncflow.training.tasks.randomness import Source
from syncflow.training.tasks.task import Batch, Task


class Batches(Generic[Batch]):
    """Batches and what their steps draw; the next one is made meanwhile (``ahead`` > 0)."""

    def __init__(self, task: Task[Batch], ahead: int, source: Callable[[int], Source]) -> None:
        self.task, self.ahead, self.source = task, ahead, source
        self.pool = ThreadPoolExecutor(1) if ahead else None
        self.waiting: dict[int, Future[Batch]] = {}

    def __enter__(self) -> Batches[Batch]:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def prepare(self, index: int) -> None:
        if self.pool is None:
            return
        for place in range(index, index + self.ahead):
            if place not in self.waiting:
                self.waiting[place] = self.pool.submit(self._make, place)

    def take(self, index: int) -> Batch:
        future = self.waiting.pop(index, None)
        return self._make(index) if future is None else future.result()

    def _make(self, index: int) -> Batch:
        return self.task.drawn(self.task.batch(index), self.source(index))
