"""Two streams of a GPU: one for the picture, one for the sound that follows it layer by layer."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import torch


class Beside:
    """A second stream while a CUDA graph is captured; everywhere else the one that there is.

    Outside a graph the host is what takes time, and events would take more of it. Tensors that the
    second stream reads must be held until ``join``.
    """

    def __init__(self, device: torch.device) -> None:
        # A GPU that was never used, or is only counted with, captures nothing.
        there = device.type == "cuda" and torch.cuda.is_initialized()
        capturing = there and torch.cuda.is_current_stream_capturing()
        self.stream = _second(device) if capturing else None

    @contextlib.contextmanager
    def behind(self) -> Iterator[None]:
        """Inside, work goes to the second stream, after all that the first was given by now."""
        if self.stream is None:
            yield
            return
        self.stream.wait_stream(torch.cuda.current_stream(self.stream.device))
        with torch.cuda.stream(self.stream):
            yield

    def join(self) -> None:
        """The first stream goes on when the second is done."""
        if self.stream is not None:
            torch.cuda.current_stream(self.stream.device).wait_stream(self.stream)


@functools.cache
def _second(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
