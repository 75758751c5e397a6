"""FAD: Fréchet distance of VGGish embeddings of generated and real sound (Kilgour et al., 2019).

Every choice that moves it is fixed here and said in its facts: 16 kHz mono in [-1, 1] with its
loudness as it is, examples of 0.96 s one after another, embeddings before the last ReLU and without
whitening.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from syncflow.evaluation.metrics import metric
from syncflow.evaluation.metrics.frechet import Statistics, between
from syncflow.evaluation.metrics.metric import Metric, Pair, Result
from syncflow.evaluation.metrics.networks import loading, vggish


class FAD(Metric):
    """``FAD`` over the sounds of the pairs; lower is better.

    Args:
        weights: VGGish in its published layout.
        reference: statistics of the real set made before, instead of the pairs' real clips.
        hop_seconds: from one example to the next.
        replicas: bootstrap draws of the interval.
    """

    def __init__(
        self,
        weights: str | Path,
        reference: Statistics | None = None,
        hop_seconds: float = 0.96,
        replicas: int = 100,
        device: str = "cpu",
    ) -> None:
        self.network, self.device = vggish.load(weights).to(device), device
        self.hop_seconds = hop_seconds
        self.facts = {
            "network": "VGGish",
            "weights": loading.digest(weights),
            "sample_rate": f"{vggish.RATE} Hz mono, loudness as it is",
            "preprocessing": f"log-mel {vggish.BANDS} bands, examples of 0.96 s every "
            f"{hop_seconds:g} s",
            "features": "128, before the last ReLU, no whitening",
        }
        self.generated = Statistics(self.facts, replicas)
        self.fixed = reference is not None
        self.real = reference or Statistics(self.facts, replicas, seed=1)

    def update(self, pairs: Sequence[Pair]) -> None:
        self.generated.update([self._features(pair.generated) for pair in pairs])
        if not self.fixed:
            self.real.update([self._features(pair.truth("FAD")) for pair in pairs])

    @torch.inference_mode()
    def _features(self, clip: metric.Clip) -> Tensor:
        examples = vggish.examples(metric.sound(clip, vggish.RATE), self.hop_seconds)
        return self.network(examples.to(self.device))

    def results(self) -> list[Result]:
        facts = self.facts | {
            "examples": f"{self.generated.samples} generated, {self.real.samples} real"
        }
        value = between(self.generated, self.real)
        return [Result("FAD", value, "lower", self.generated.clips, facts)]
