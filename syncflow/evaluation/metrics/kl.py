"""KL: how far the classes heard in a generated sound are from those in its real one.

``KL(p_real || p_generated)`` in nats, of the softmax over a classifier's logits, a mean over pairs
(Kreuk et al., 2022). The paper takes VGGish's classes (section 4). VGGish was released up to its
embedding, so its classifier is that network and a linear layer whose file must be given; Cnn14 of
PANNs, a folder or hub id of a transformers audio classifier (such as AST), and a TorchScript file
(such as PaSST, exported) are the alternatives. KLs of different classifiers are different metrics:
the classifier is part of the name wherever it is not VGGish.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from syncflow.clip import Clip
from syncflow.evaluation.metrics import metric
from syncflow.evaluation.metrics.metric import Mean, Metric, Pair, Result
from syncflow.evaluation.metrics.networks import cnn14, loading, vggish
from syncflow.published import NO_CODE, without_code

HEAD = "VGGish classification layer (weight [classes, 128], bias [classes])"


@dataclass(frozen=True)
class Classifier:
    """``logits``: mono audio [M] at ``rate`` Hz in [-1, 1] -> [classes]."""

    name: str
    rate: int
    logits: Callable[[Tensor], Tensor]
    facts: dict[str, str]


def by_vggish(weights: str | Path, head: str | Path, device: str = "cpu") -> Classifier:
    """VGGish and a linear layer over its embedding (after the ReLU, as released), examples
    averaged."""
    network = vggish.load(weights).to(device)
    layer = loading.read(head, HEAD)
    loading.need(layer, ("weight", "bias"), head, HEAD)
    if layer["weight"].ndim != 2 or layer["bias"].shape != layer["weight"].shape[:1]:
        shapes = [list(layer[key].shape) for key in ("weight", "bias")]
        raise ValueError(f"'{head}' is not a {HEAD}: its shapes are {shapes}")
    linear = torch.nn.Linear(*layer["weight"].shape[::-1])
    loading.fill(linear, {key: layer[key] for key in ("weight", "bias")}, head, HEAD).to(device)

    def logits(audio_M: Tensor) -> Tensor:
        embeddings = network(vggish.examples(audio_M).to(device)).relu()
        return linear(embeddings).mean(0)

    facts = {
        "network": "VGGish and a linear layer",
        "weights": loading.digest(weights),
        "head": loading.digest(head),
        "windows": "logits of 0.96 s examples averaged",
    }
    return Classifier("VGGish", vggish.RATE, logits, facts)


def by_panns(weights: str | Path, device: str = "cpu") -> Classifier:
    """Cnn14 of PANNs."""
    network = cnn14.load(weights).to(device)
    facts = {"network": "PANNs Cnn14", "weights": loading.digest(weights), "windows": "whole clip"}
    return Classifier(
        "PANNs", network.rate, lambda audio_M: network(audio_M[None].to(device))[0], facts
    )


def by_transformers(folder: str, device: str = "cpu") -> Classifier:
    """An audio classifier of transformers, by folder or hub id."""
    from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

    try:
        with without_code(folder):
            extractor = AutoFeatureExtractor.from_pretrained(folder, **NO_CODE)
            network = AutoModelForAudioClassification.from_pretrained(folder, **NO_CODE)
            network = network.eval().to(device)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FileNotFoundError(f"no audio classifier at '{folder}': {reason}") from error
    rate = extractor.sampling_rate

    def logits(audio_M: Tensor) -> Tensor:
        inputs = extractor(audio_M.numpy(), sampling_rate=rate, return_tensors="pt")
        return network(**{key: value.to(device) for key, value in inputs.items()}).logits[0]

    facts = {"network": type(network).__name__, "weights": str(folder), "windows": "whole clip"}
    return Classifier(type(network).__name__, rate, logits, facts)


class KL(Metric):
    """``KL`` (VGGish) or ``KL (classifier)``; lower is better."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier, self.mean = classifier, Mean()
        self.name = "KL" if classifier.name == "VGGish" else f"KL ({classifier.name})"

    @torch.inference_mode()
    def update(self, pairs: Sequence[Pair]) -> None:
        for pair in pairs:
            true = self._log_share(pair.truth("KL"))
            made = self._log_share(pair.generated)
            # Of equal shares rounding may leave a little less than nothing.
            self.mean.add(max(0.0, float((true.exp() * (true - made)).sum())))

    def _log_share(self, clip: Clip) -> Tensor:
        logits = self.classifier.logits(metric.sound(clip, self.classifier.rate))
        if logits.ndim != 1:
            raise ValueError(f"the classifier must give [classes] for a clip, got {logits.shape}")
        return F.log_softmax(logits.double().cpu(), -1)

    def results(self) -> list[Result]:
        facts = self.classifier.facts | {
            "sample_rate": f"{self.classifier.rate} Hz mono",
            "definition": "KL(real || generated), softmax, nats, mean over pairs",
        }
        return [Result(self.name, self.mean.value(), "lower", self.mean.count, facts)]
