"""Sound of any rate and channel layout -> mono float32 [M]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.filter import Graph

    from syncflow.data.film.pyav import Sound


def alike(a: Sound, b: Sound) -> bool:
    """Whether two frames can go through one resampler."""
    return (a.sample_rate, a.layout.name, a.format.name) == (
        b.sample_rate,
        b.layout.name,
        b.format.name,
    )


def mono(frames: list[Sound], sample_rate: int) -> np.ndarray:
    """Consecutive frames, all ``alike``, as float32 [M].

    Stereo is the mean of its channels. More than two are mixed by their places as FFmpeg's
    ``-ac 1`` does it (centre 1, left and right 0.71, surrounds 0.5, no low-frequency channel),
    divided by the sum of the weights, so that nothing clips. Where the places have no weights, it
    is the mean of all.
    """
    if not frames:
        return np.zeros(0, np.float32)
    for index, frame in enumerate(frames):
        frame.pts = None if index else 0
    graph = _graph(frames[0], sample_rate)
    out = []
    for each in [*frames, None]:
        graph.push(each)
        # Arrays are made of one or two channels only: with eight, PyAV 18.1 reads past the last.
        out += [part.to_ndarray().mean(0) for part in _pulled(graph)]
    return np.concatenate(out) if out else np.zeros(0, np.float32)


def _graph(first: Sound, sample_rate: int) -> Graph:
    """Frames like ``first`` -> planar float of one channel, or of the two of a stereo sound."""
    import av

    count = first.layout.nb_channels
    if count <= 2:
        # Its own mix to mono would be another rounding; the mean is exact.
        return _linked(first, [("aresample", {}), _planar(sample_rate, first.layout.name)])
    try:
        mix = ("aresample", {"rematrix_maxval": "1.0"})
        return _linked(first, [mix, _planar(sample_rate, "mono")])
    except av.FFmpegError:  # places of which FFmpeg's matrix has no weights
        spherical = first.layout.name.startswith("ambisonic")  # its first channel is the whole
        weights = ["c0"] if spherical else [f"{1 / count:.9f}*c{index}" for index in range(count)]
        own = ("pan", f"mono|c0={'+'.join(weights)}")
        return _linked(first, [own, ("aresample", {}), _planar(sample_rate, "mono")])


def _planar(sample_rate: int, layout: str) -> tuple[str, dict[str, str]]:
    formats = {"sample_rates": f"{sample_rate}", "sample_fmts": "fltp", "channel_layouts": layout}
    return "aformat", formats


def _linked(first: Sound, filters: Sequence[tuple[str, str | dict[str, str]]]) -> Graph:
    from av.filter import Graph

    graph = Graph()
    shape = {
        "sample_rate": f"{first.sample_rate}",
        "sample_fmt": first.format.name,
        "channel_layout": first.layout.name,
        "time_base": f"{first.time_base}",
    }
    nodes = [graph.add("abuffer", **shape)]
    for name, options in filters:
        known = {"args": options} if isinstance(options, str) else options
        nodes.append(graph.add(name, **known))
    graph.link_nodes(*nodes, graph.add("abuffersink")).configure()
    return graph


def _pulled(graph: Graph) -> list[AudioFrame]:
    import av

    out = []
    while True:
        try:
            out.append(cast("AudioFrame", graph.pull()))
        except (av.BlockingIOError, av.EOFError):
            return out
