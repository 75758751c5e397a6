"""The backward pass without PyTorch's engine, whose threads want a GPU for tensors on a fake one.

The same nodes in the same order on one thread: what each saved is freed as soon as it has run.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from itertools import count
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction


def backward(loss: Tensor, keep: bool = True) -> None:
    """Gradients of a scalar in ``grad`` of every leaf, as ``loss.backward()`` leaves them; without
    ``keep`` each is dropped as soon as it is there, as where it is handed on to another GPU.

    The loss is detached: nothing else may hold on to its graph, or its memory stays.
    """
    root = loss.grad_fn
    seed = torch.ones_like(loss.detach())
    loss.detach_()
    waiting = _dependencies(root)
    received: dict[Any, dict[int, Tensor]] = defaultdict(dict)
    received[root][0] = seed
    order = count()
    ready = [(-_sequence(root), next(order), root)]
    del root
    # One number for the whole pass, or recomputation would run for every tensor anew.
    with torch.no_grad(), mock.patch.object(torch._C, "_current_graph_task_id", lambda: 1):
        while ready:
            node = heapq.heappop(ready)[2]
            waiting.pop(node, None)
            given = received.pop(node, {})
            edges = node.next_functions
            grads = _run(node, given, keep) if given else (None,) * len(edges)
            del given
            for (after, place), grad in zip(edges, grads, strict=False):
                if after is None:
                    continue
                if grad is not None:
                    _receive(received[after], after, place, grad)
                waiting[after] -= 1
                if not waiting[after]:
                    heapq.heappush(ready, (-_sequence(after), next(order), after))
            del node, edges, grads
            after = grad = None


def _dependencies(root: Any) -> dict[Any, int]:
    """How many nodes hand a gradient to each."""
    found: dict[Any, int] = {root: 0}
    left = [root]
    while left:
        for after, _ in left.pop().next_functions:
            if after is None:
                continue
            if after not in found:
                found[after] = 0
                left.append(after)
            found[after] += 1
    return found


def _sequence(node: Any) -> int:
    return 2**62 if hasattr(node, "variable") else node._sequence_nr()


def _receive(grads: dict[int, Tensor], node: Any, place: int, grad: Tensor) -> None:
    """As the engine validates and sums what a node is given."""
    wanted = node.variable if hasattr(node, "variable") else node._input_metadata[place]
    if tuple(grad.shape) != tuple(wanted.shape):
        grad = grad.sum_to_size(tuple(wanted.shape))
    if grad.dtype != wanted.dtype:
        grad = grad.to(wanted.dtype)
    grads[place] = grads[place] + grad if place in grads else grad


def _run(node: Any, given: dict[int, Tensor], keep: bool) -> tuple[Tensor | None, ...]:
    if hasattr(node, "variable"):
        leaf, (grad,) = node.variable, given.values()
        if not keep:
            return ()
        leaf.grad = grad.detach() if leaf.grad is None else leaf.grad.add_(grad)
        return ()
    metadata = node._input_metadata
    grads = [given.get(place) for place in range(len(metadata))]
    if isinstance(node, BackwardCFunction):
        if getattr(node, "materialize_grads", True):
            grads = [
                torch.zeros(tuple(m.shape), dtype=m.dtype, device=m.device) if g is None else g
                for g, m in zip(grads, metadata, strict=True)
            ]
        out = node.apply(*grads)
    else:
        out = node(*grads)
    return out if isinstance(out, tuple) else (out,)
