"""Interlaced pictures -> whole ones, as a player shows them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from av.filter import Graph
    from av.video.stream import VideoStream

    from syncflow.data.film.pyav import Picture


#: One picture per frame, from both of its fields; frames that are whole already pass as they are.
_FILTER = ("bwdif", "mode=send_frame:parity=auto:deint=interlaced")


def progressive(frames: Iterator[Picture]) -> Iterator[Picture]:
    """The same pictures at the same times; nothing is touched before the first interlaced one."""
    graph, shape = None, None
    for frame in frames:
        if graph is None and not frame.interlaced_frame:
            yield frame
            continue
        now = (frame.width, frame.height, frame.format.name)
        if graph is not None and now != shape:  # a filter takes one size
            yield from _pulled(graph, None)
            graph = None
        if graph is None:
            graph, shape = _graph(frame), now
        yield from _pulled(graph, frame)
    if graph is not None:
        yield from _pulled(graph, None)


def _graph(first: Picture) -> Graph:
    from av.filter import Graph

    graph = Graph()
    source = graph.add_buffer(template=cast("VideoStream", first), time_base=first.time_base)
    graph.link_nodes(source, graph.add(*_FILTER), graph.add("buffersink")).configure()
    return graph


def _pulled(graph: Graph, frame: Picture | None) -> Iterator[Picture]:
    import av

    graph.push(frame)
    while True:
        try:
            yield cast("Picture", graph.pull())
        except (av.BlockingIOError, av.EOFError):
            return
