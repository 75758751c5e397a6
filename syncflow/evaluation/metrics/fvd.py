"""FVD: Fréchet distance of I3D features of generated and real pictures (Unterthiner et al., 2018).

The network is a TorchScript file: ``i3d_torchscript.pt`` (the Kinetics-400 I3D that StyleGAN-V and
most papers since use; it resizes and rescales by itself), or any module that takes float
[B,3,T,224,224] in [-1, 1]. Frames are the clip's own, all of them: FVDs of 16 and of 32 frames are
different metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from syncflow.clip import Clip
from syncflow.evaluation.metrics import metric
from syncflow.evaluation.metrics.frechet import Statistics, between
from syncflow.evaluation.metrics.metric import Metric, Pair, Result
from syncflow.evaluation.metrics.networks import loading

NAME = "I3D (i3d_torchscript.pt)"
SIZE = 224
#: I3D halves time three times and then needs two frames.
FEWEST = 10
_FLAGS = ("rescale", "resize", "return_features")


class FVD(Metric):
    """``FVD`` over the pictures of the pairs; lower is better.

    ``fps``: the rate at which frames are taken (default: the clips' own). ``reference``: statistics
    of the real set made before. ``replicas``: bootstrap draws of the interval.
    ``allow_torchscript``: ``weights`` are a program, which runs only where this says so.
    """

    def __init__(
        self,
        weights: str | Path,
        reference: Statistics | None = None,
        fps: float | None = None,
        replicas: int = 40,
        device: str = "cpu",
        *,
        allow_torchscript: bool = False,
    ) -> None:
        self.network = loading.script(weights, NAME, allow_torchscript).to(device)
        self.device, self.fps = device, fps
        takes = loading.parameters(self.network)
        self.flags = {name: True for name in _FLAGS} if takes >= set(_FLAGS) else None
        by = "the network" if self.flags else "bilinear, short side and centre"
        self.facts = {
            "network": "I3D, TorchScript",
            "weights": loading.digest(weights),
            "preprocessing": f"{SIZE} x {SIZE} by {by}, [-1, 1]",
        }
        self.replicas, self.fixed = replicas, reference is not None
        self.generated: Statistics | None = None
        self.real = reference

    def update(self, pairs: Sequence[Pair]) -> None:
        made = [metric.picture(pair.generated, self.fps) for pair in pairs]
        self.generated = self._add(self.generated, pairs[0].generated, made, 0)
        if not self.fixed:
            true = [pair.truth("FVD") for pair in pairs]
            frames = [metric.picture(clip, self.fps) for clip in true]
            self.real = self._add(self.real, true[0], frames, 1)

    def _add(
        self, statistics: Statistics | None, clip: Clip, videos: list[Tensor], seed: int
    ) -> Statistics:
        # Rates and lengths are facts, so that sets which differ in them are refused.
        facts = self.facts | {"frames": f"{len(videos[0])} at {self.fps or clip.fps:g} fps"}
        if statistics is None:
            statistics = Statistics(facts, self.replicas, seed)
        if any(len(video) != len(videos[0]) for video in videos) or statistics.facts != facts:
            lengths = sorted({len(video) for video in videos})
            raise ValueError(
                f"FVD needs clips of one length and rate: {lengths} frames after "
                f"{statistics.facts['frames']}"
            )
        if len(videos[0]) < FEWEST:
            raise ValueError(f"FVD needs at least {FEWEST} frames a clip, got {len(videos[0])}")
        statistics.update([self._features(video)[None] for video in videos])
        return statistics

    @torch.inference_mode()
    def _features(self, video_FCHW: Tensor) -> Tensor:
        if self.flags:
            video = video_FCHW.float().transpose(0, 1)[None]
            features = self.network(video.to(self.device), **self.flags)
        else:
            video = metric.resized(video_FCHW, SIZE).transpose(0, 1)[None] / 127.5 - 1
            features = self.network(video.to(self.device))
        if features.ndim != 2 or len(features) != 1:
            shape = list(features.shape)
            raise ValueError(f"the I3D file must give features [1, D] for a clip, it gave {shape}")
        return features[0]

    def results(self) -> list[Result]:
        if self.generated is None or self.real is None:
            raise ValueError("no clips to measure")
        value = between(self.generated, self.real)
        return [Result("FVD", value, "lower", self.generated.clips, self.generated.facts)]
