"""How the functions of a step are run: as they are, compiled, or replayed as CUDA graphs.

A step of a large model is over a thousand small launches, which take a GPU's host longer than the
GPU. A graph replays them all with one call: the function is run once on buffers that stay where
they are, and from then on new numbers are copied into those buffers.
"""

from __future__ import annotations

import dataclasses
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar, TypeVarTuple, cast

import torch
from torch import Tensor

from syncflow.ops import native
from syncflow.ops.kept import held_tables

if TYPE_CHECKING:
    from torch.cuda import _POOL_HANDLE


Tree = TypeVar("Tree")
Trees = TypeVarTuple("Trees")
Outputs = tuple[Tensor, ...]
#: A function of a step: (its tensors, what stays over steps, numbers that choose) -> tensors.
Function = Callable[..., Outputs]

#: Graphs kept at once; they share one pool of memory. The cascade with a guidance interval needs
#: five: picture and sound, each with and without the null captions, and the decoder.
MOST_GRAPHS = 8


class Fixed(Generic[*Trees]):
    """What stays the same over the steps of a call: captions, contexts, masks. Copied into a
    graph's own buffers once, and known again by identity."""

    def __init__(self, *trees: *Trees) -> None:
        self.trees: tuple[*Trees] = trees
        self.signature = signature(trees)
        # A graph remembers this and not the tensors, which may be freed with the call.
        self.token = object()


class Steps:
    """Runs functions of a step.

    Args:
        graph: as CUDA graphs where the tensors are on a GPU: the first call of every shape runs
            the function and captures it, the others replay it.
        compiled: through ``torch.compile``.
    """

    def __init__(self, graph: bool = False, compiled: bool = False) -> None:
        self.graph, self.compiled = graph, compiled
        self._graphs: OrderedDict[tuple[Hashable, ...], _Graph | None] = OrderedDict()
        self._functions: dict[Function, Function] = {}
        self._pool: _POOL_HANDLE | None = None
        # Buffers are shared by the calls of all threads.
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Forgets all graphs: the weights moved."""
        with self._lock:
            self._graphs.clear()
            self._functions.clear()
            self._pool = None

    def __call__(
        self,
        function: Function,
        tensors: tuple[Tensor, ...],
        fixed: Fixed[*Trees],
        *choices: Hashable,
    ) -> Outputs:
        """``function(*tensors, *fixed.trees, *choices)``; the results are the caller's own."""
        function = self._compiled(function)
        on_gpu = all(t.is_cuda for t in tensors)
        if not (self.graph and on_gpu) or torch.is_grad_enabled():
            return function(*tensors, *fixed.trees, *choices)
        key = graph_key(function, tensors, fixed, choices)
        with self._lock, torch.cuda.device(tensors[0].device):
            if key not in self._graphs:
                self._capture(key, function, tensors, fixed, choices)
            graph = self._graphs[key]
            self._graphs.move_to_end(key)
            if graph is None:
                return function(*tensors, *fixed.trees, *choices)
            return graph.replay(tensors, fixed)

    def _compiled(self, function: Function) -> Function:
        if not self.compiled:
            return function
        if function not in self._functions:
            self._functions[function] = torch.compile(function, dynamic=False)
        return self._functions[function]

    def _capture(
        self,
        key: tuple[Hashable, ...],
        function: Function,
        tensors: tuple[Tensor, ...],
        fixed: Fixed[*Trees],
        choices: tuple[Hashable, ...],
    ) -> None:
        while len(self._graphs) >= MOST_GRAPHS:
            self._graphs.popitem(last=False)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        try:
            self._graphs[key] = _Graph(function, tensors, fixed, choices, self._pool)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            warnings.warn(f"a step runs without a CUDA graph: {reason}", stacklevel=4)
            torch.cuda.synchronize()
            self._graphs[key] = None


def graph_key(
    function: Function,
    tensors: tuple[Tensor, ...],
    fixed: Fixed[*Trees],
    choices: tuple[Hashable, ...],
) -> tuple[Hashable, ...]:
    """What a graph is good for: sizes, choices, and which operators run as kernels now."""
    autocast = torch.is_autocast_enabled("cuda")
    return function, choices, signature(tensors), fixed.signature, native.in_use(), autocast


class _Graph:
    """A captured function with its buffers."""

    def __init__(
        self,
        function: Function,
        tensors: tuple[Tensor, ...],
        fixed: Fixed[*Trees],
        choices: tuple[Hashable, ...],
        pool: _POOL_HANDLE,
    ) -> None:
        self.tensors = tuple(t.clone() for t in tensors)
        self.trees = map_tensors(lambda t: t.clone(), fixed.trees)
        self.token = fixed.token
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        # Once as it is, for what is made at first use: tables, workspaces, plans of libraries.
        with torch.cuda.stream(stream):
            function(*self.tensors, *self.trees, *choices)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        # It reads tables where they lie, and must hold what others may drop.
        with held_tables() as self.tables, torch.cuda.graph(self.graph, pool=pool):
            self.outputs = function(*self.tensors, *self.trees, *choices)

    def replay(self, tensors: tuple[Tensor, ...], fixed: Fixed[*Trees]) -> Outputs:
        for buffer, tensor in zip(self.tensors, tensors, strict=True):
            buffer.copy_(tensor)
        if self.token is not fixed.token:
            pairs = zip(leaves(self.trees), leaves(fixed.trees), strict=True)
            for buffer, tensor in pairs:
                buffer.copy_(tensor)
            self.token = fixed.token
        self.graph.replay()
        return tuple(t.clone() for t in self.outputs)


def map_tensors(function: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """The tree of tuples, lists and dataclasses with ``function`` applied to every tensor."""
    if isinstance(tree, Tensor):
        return cast(Tree, function(tree))
    if isinstance(tree, (tuple, list)):
        return cast(Tree, type(tree)(map_tensors(function, item) for item in tree))
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        names = [field.name for field in dataclasses.fields(tree)]
        changes = {name: map_tensors(function, getattr(tree, name)) for name in names}
        return dataclasses.replace(tree, **changes)
    return tree


def leaves(tree: object) -> Iterator[Tensor]:
    """The tensors of such a tree, in ``map_tensors``'s order."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for item in tree:
            yield from leaves(item)
    elif dataclasses.is_dataclass(tree):
        for field in dataclasses.fields(tree):
            yield from leaves(getattr(tree, field.name))


def signature(tree: object) -> Hashable:
    """What a graph is captured for: sizes and types of tensors, and everything else itself."""
    if isinstance(tree, Tensor):
        return (tree.shape, tree.dtype, tree.device)
    if isinstance(tree, (tuple, list)):
        return tuple(map(signature, tree))
    if dataclasses.is_dataclass(tree) and any(True for _ in leaves(tree)):
        return tuple(signature(getattr(tree, field.name)) for field in dataclasses.fields(tree))
    return tree
