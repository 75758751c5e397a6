"""Distances by the package's own probes: what FAD, FVD and KL are in spirit, with no download.

The probes know the synthetic world only, so the numbers compare systems of that world with each
other and with nothing else. They are never called FAD, FVD or KL.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from syncflow.clip import Clip
from syncflow.evaluation.metrics.frechet import Statistics, between
from syncflow.evaluation.metrics.metric import Mean, Metric, Pair, Result
from syncflow.evaluation.probes import looks, materials
from syncflow.evaluation.probes.probe import Probe


def read(probe: Probe, features: Tensor) -> tuple[Tensor, Tensor]:
    """What a probe's last layer takes [1, D], and the logits [1, labels] it gives."""
    last = [module for module in probe.network.modules() if isinstance(module, nn.Linear)][-1]
    seen: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        with torch.no_grad():
            logits = probe.network(features[None])
    finally:
        hook.remove()
    return seen[0], logits


class ProbeDistance(Metric):
    """``FD (name probe)``, lower is better; with ``classes`` also ``KL (name probe)``."""

    def __init__(
        self,
        name: str,
        probe: Probe,
        features: Callable[[Clip], Tensor],
        classes: bool,
        what: dict[str, str],
        replicas: int = 100,
    ) -> None:
        self.name, self.probe, self.features = name, probe, features
        self.kl = Mean() if classes else None
        self.facts = {
            "network": f"the {name} probe, trained on the synthetic world",
            "weights": str(probe.facts.get("fingerprint", "")),
            "accuracy": f"{probe.accuracy:.3f} on its validation clips",
            **what,
        }
        self.generated = Statistics(self.facts, replicas)
        self.real = Statistics(self.facts, replicas, seed=1)

    def update(self, pairs: Sequence[Pair]) -> None:
        made = [read(self.probe, self.features(pair.generated)) for pair in pairs]
        true = [read(self.probe, self.features(pair.truth(self.name))) for pair in pairs]
        self.generated.update([hidden for hidden, _ in made])
        self.real.update([hidden for hidden, _ in true])
        if self.kl is None:
            return
        for (_, ours), (_, theirs) in zip(made, true, strict=True):
            ours, theirs = (F.log_softmax(x[0].double(), -1) for x in (ours, theirs))
            self.kl.add(max(0.0, float((theirs.exp() * (theirs - ours)).sum())))

    def results(self) -> list[Result]:
        value, clips = between(self.generated, self.real), self.generated.clips
        found = [Result(f"FD ({self.name} probe)", value, "lower", clips, self.facts)]
        if self.kl is not None:
            facts = self.facts | {"definition": "KL(real || generated), nats, mean over pairs"}
            name = f"KL ({self.name} probe)"
            found.append(Result(name, self.kl.value(), "lower", clips, facts))
        return found


def by_material(probe: Probe) -> ProbeDistance:
    """Of sounds."""

    def features(clip: Clip) -> Tensor:
        if clip.sample_rate != materials.RATE:
            raise ValueError(
                f"the material probe hears {materials.RATE} Hz, got {clip.sample_rate}"
            )
        return materials.features(clip.audio)

    rate = f"{materials.RATE} Hz mono"
    what = {"sample_rate": rate, "preprocessing": "log-mel, loudness removed"}
    return ProbeDistance("material", probe, features, True, what)


def by_colour(probe: Probe) -> ProbeDistance:
    """Of pictures."""
    look = isinstance(probe.network, looks.LookNet)
    said = "four frames" if look else "colour histogram of the foreground, all frames"
    what = {"preprocessing": said}
    return ProbeDistance("colour", probe, lambda clip: looks.read(probe, clip.video), False, what)
