"""A training step as one CUDA graph, or eagerly where that cannot be."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch

#: Steps that may wait on the device: enough to keep it busy, few enough to stop by the clock.
_AHEAD = 3
_WARM_UP = 3


class Step:
    """Calls ``function``, which reads and writes tensors that stay where they are.

    The first calls run eagerly and are steps as good as any; then the function is captured.
    Capturing may fail: then all steps are eager, ``mode`` says so and ``fault`` why.
    """

    def __init__(
        self, function: Callable[[], None], device: torch.device, use_graph: bool = True
    ) -> None:
        self.function, self.device = function, device
        self.graph: torch.cuda.CUDAGraph | None = None
        self.mode, self.fault = "eager", ""
        self.count = 0
        self._use_graph = use_graph and device.type == "cuda"
        self._running: deque[torch.cuda.Event] = deque()

    def __call__(self) -> None:
        if self._use_graph and self.graph is None and not self.fault:
            self._capture()
        elif self.graph is not None:
            self.graph.replay()
            self.count += 1
        else:
            self.function()
            self.count += 1
        self._pace()

    def _capture(self) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                self.function()
                self.count += 1
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self.function()
            graph.replay()  # a defect of the capture shows here, not later
            torch.cuda.synchronize()
        except Exception as error:
            self.fault = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            torch.cuda.synchronize()
            return
        self.graph, self.mode = graph, "graph"
        self.count += 1

    def _pace(self) -> None:
        if self.device.type != "cuda":
            return
        event = torch.cuda.Event()
        event.record()
        self._running.append(event)
        if len(self._running) > _AHEAD:
            self._running.popleft().synchronize()


class Tally:
    """Sums of losses on the device, so that no step waits for a number."""

    def __init__(self, names: tuple[str, ...], device: torch.device) -> None:
        self.names = names
        self._sums = torch.zeros(len(names) + 1, device=device)

    def add(self, *values: torch.Tensor) -> None:
        """Scalars of one step, in the order of the names; no copy to the host."""
        one = torch.ones_like(self._sums[0])
        self._sums += torch.stack([*(v.detach().float() for v in values), one])

    def read(self) -> dict[str, float]:
        """Means since the last reading; {} where nothing was added."""
        *sums, count = self._sums.tolist()
        self._sums.zero_()
        return {n: s / count for n, s in zip(self.names, sums, strict=True)} if count else {}
