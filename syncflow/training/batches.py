"""Batches made ahead of the steps that they are for."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from syncflow.training.tasks.randomness import Source
from syncflow.training.tasks.task import Task


class Batches:
    """Batches and what their steps draw; the next one is made meanwhile (``ahead`` > 0)."""

    def __init__(self, task: Task, ahead: int, source: Callable[[int], Source]) -> None:
        self.task, self.ahead, self.source = task, ahead, source
        self.pool = ThreadPoolExecutor(1) if ahead else None
        self.waiting: dict[int, Future] = {}

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def prepare(self, index: int) -> None:
        if self.pool is None:
            return
        for place in range(index, index + self.ahead):
            if place not in self.waiting:
                self.waiting[place] = self.pool.submit(self._make, place)

    def take(self, index: int) -> Any:
        future = self.waiting.pop(index, None)
        return self._make(index) if future is None else future.result()

    def _make(self, index: int) -> Any:
        return self.task.drawn(self.task.batch(index), self.source(index))
