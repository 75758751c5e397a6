"""Small classifiers that read one attribute back from a clip, trained on rendered clips.

A probe is trained on the training split only, in about a minute on one core, and kept with its
settings, a fingerprint of the world it learned and its accuracy on validation clips, so that a
report can say how far it may be trusted.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from syncflow.model_io import tensors


@dataclass(frozen=True)
class ProbeSettings:
    """``levels`` of the world; ``clips`` of each to learn from and ``held`` validation clips to
    judge by; ``epochs``, ``batch``, ``rate`` (AdamW, one cycle); ``seed``."""

    levels: tuple[int, ...] = (1,)
    clips: int = 1200
    held: int = 200
    epochs: int = 6
    batch: int = 32
    rate: float = 3e-3
    seed: int = 0


class Probe:
    """A trained network, its ``labels`` and ``facts`` (settings, accuracy)."""

    def __init__(
        self, network: nn.Module, labels: Sequence[str], facts: Mapping[str, float | str]
    ) -> None:
        self.network, self.labels, self.facts = network.eval(), tuple(labels), facts

    @property
    def accuracy(self) -> float:
        """Share right on the validation clips it was judged by."""
        return cast(float, self.facts["accuracy"])

    @torch.no_grad()
    def predict(self, features: Sequence[Tensor]) -> list[str]:
        """The likeliest label of every feature tensor."""
        if not len(features):
            return []
        logits = torch.cat([self.network(part) for part in torch.stack(list(features)).split(64)])
        return [self.labels[i] for i in logits.argmax(1)]


def fingerprint(settings: ProbeSettings, modules: Sequence[ModuleType], *more: object) -> str:
    """Names a probe: a hash of its settings, of the code in ``modules`` that it is learned and read
    by (and of this module), and of everything else that it depends on."""
    code = [inspect.getsource(module) for module in (sys.modules[__name__], *modules)]
    text = json.dumps([asdict(settings), code, *more], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def train(
    network: nn.Module,
    features: Tensor,
    targets: Tensor,
    settings: ProbeSettings,
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
) -> nn.Module:
    """Cross-entropy on ``features`` [N,...] and ``targets`` int [N]; the network, trained."""
    generator = torch.Generator().manual_seed(settings.seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=0.01)
    steps = settings.epochs * -(-len(features) // settings.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.rate, total_steps=steps)
    network.train()
    for _ in range(settings.epochs):
        for rows in torch.randperm(len(features), generator=generator).split(settings.batch):
            batch = features[rows]
            if augment is not None:
                batch = augment(batch, generator)
            loss = F.cross_entropy(network(batch), targets[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def learned(
    cache: str | Path | None,
    name: str,
    labels: Sequence[str],
    settings: ProbeSettings,
    network: Callable[[int], nn.Module],
    examples: Callable[[str, int, Sequence[int]], tuple[list[Tensor], list[str]]],
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
) -> Probe:
    """The probe ``name`` from ``cache``, or one that learns from training clips and is judged by
    validation clips: ``examples(split, clips, levels)`` gives features and labels."""

    def learn() -> tuple[nn.Module, Mapping[str, float | str]]:
        inputs, names = examples("train", settings.clips, settings.levels)
        targets = torch.tensor([labels.index(n) for n in names])
        torch.manual_seed(settings.seed)
        trained = train(network(len(labels)), torch.stack(inputs), targets, settings, augment)
        inputs, names = examples("val", settings.held, settings.levels)
        guesses = Probe(trained, labels, {}).predict(inputs)
        right = sum(a == b for a, b in zip(guesses, names, strict=True)) / len(names)
        return trained, {"accuracy": right, "fingerprint": name}

    return _cached(cache, name, lambda: network(len(labels)), learn, labels)


def _cached(
    cache: str | Path | None,
    name: str,
    network: Callable[[], nn.Module],
    learn: Callable[[], tuple[nn.Module, Mapping[str, float | str]]],
    labels: Sequence[str],
) -> Probe:
    """The probe ``name`` (which holds its fingerprint) from folder ``cache``, learned if not there.

    ``network`` builds the untrained network, ``learn`` returns the trained one and its facts.
    """
    from safetensors import safe_open

    path = Path(cache) / f"{name}.safetensors" if cache is not None else None
    if path is not None and path.is_file():
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["facts"])
            module = network()
            module.load_state_dict({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
        return Probe(module, labels, facts)
    module, facts = learn()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors.save(path, module.state_dict(), {"facts": json.dumps(facts)})
    return Probe(module, labels, facts)
