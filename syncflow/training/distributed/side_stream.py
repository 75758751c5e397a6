"""Batches on their way to a GPU: from pinned memory and on a stream of their own, so that neither
the step that runs meanwhile nor the thread that sends them waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor


def send(value: Tensor, device: torch.device) -> Tensor:
    """``value`` on ``device``. A copy to a GPU is begun and not waited for: what runs on the same
    stream afterwards finds it there."""
    if device.type == "cuda" and value.device.type == "cpu" and torch.cuda.is_available():
        value = value.pin_memory()
    return value.to(device, non_blocking=True)


Value = TypeVar("Value")


@dataclass(frozen=True)
class Made(Generic[Value]):
    """What was made on a side stream, and the event after which it is there (None: it is)."""

    value: Value
    event: torch.cuda.Event | None = None

    def take(self) -> Value:
        """The value, for the stream that calls: its work from here on waits on the device."""
        if self.event is not None:
            stream = torch.cuda.current_stream(self.event.device)
            stream.wait_event(self.event)
            for tensor in tensors(self.value):
                if tensor.device.type == "cuda":  # or its memory could be given away too early
                    tensor.record_stream(stream)
        return self.value


class SideStream:
    """Where batches for ``device`` are made; on a CPU nothing is beside anything."""

    def __init__(self, device: torch.device) -> None:
        there = device.type == "cuda" and torch.cuda.is_available()
        self.stream = torch.cuda.Stream(device) if there else None

    def make(self, function: Callable[[], Value]) -> Made[Value]:
        """Calls ``function``, in any thread, with what it sends and computes on the side stream."""
        if self.stream is None:
            return Made(function())
        with torch.cuda.stream(self.stream):
            return Made(function(), self.stream.record_event())


def tensors(value: object) -> Iterator[Tensor]:
    """Every tensor of a batch: of mappings, sequences and dataclasses, to any depth."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from tensors(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from tensors(each)
    elif is_dataclass(value) and not isinstance(value, type):
        for each in fields(value):
            yield from tensors(getattr(value, each.name))
