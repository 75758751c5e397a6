"""Pre-training of the byte-level text encoder: it learns to read before a tower learns to draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor

from syncflow import impacts
from syncflow.impacts import unknown_words
from syncflow.models.text.encoder import TextEncoder, TextPretrainer
from syncflow.training.settings import TextTask
from syncflow.training.tasks.randomness import Source
from syncflow.training.tasks.task import Task

_NOT_MENTIONED = -100
_VALIDATION_CAPTIONS = 512


class TextTraining(Task[tuple[list[str], Tensor]]):
    """Captions of fresh scenes against the attributes that they mention."""

    module: TextPretrainer

    def __init__(self, config: TextTask, device: str = "cpu") -> None:
        self.config, self.device = config, device
        self.labels = impacts.attribute_values(max(config.levels))
        encoder = TextEncoder(config.model)
        self.module = TextPretrainer(encoder, {k: len(v) for k, v in self.labels.items()})

    def batch(self, index: int) -> tuple[list[str], Tensor]:
        size = self.config.loop.batch_size
        seeds = impacts.SEEDS["train"][index * size : (index + 1) * size]
        return self._captions(seeds, self.config.unknown_words)

    def loss(
        self, batch: tuple[list[str], Tensor], source: Source
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        texts, labels = batch
        loss, accuracy = self.module.loss(texts, labels.to(self.device))
        return loss, {f"{name}_accuracy": value for name, value in accuracy.items()}

    def validate(self, module: torch.nn.Module) -> dict[str, float]:
        reader = cast(TextPretrainer, module)
        known = self._captions(impacts.SEEDS["val"][:_VALIDATION_CAPTIONS])
        loss, accuracy = reader.loss(*known)
        return {"loss": float(loss), **accuracy}

    def _captions(self, seeds: range, unknown: float = 0.0) -> tuple[list[str], Tensor]:
        texts, rows = [], []
        for seed in seeds:
            level = self.config.levels[seed % len(self.config.levels)]
            split = impacts.world.split_of(seed)
            scene = impacts.sample_scene(seed, level, split)
            caption, mentioned = unknown_words.put_in_some(
                scene.caption, scene.attributes, unknown, seed
            )
            texts.append(caption)
            values: Mapping[str, object] = {**scene.attributes}
            rows.append([self._label(name, values, mentioned) for name in self.labels])
        return texts, torch.tensor(rows)

    def _label(self, name: str, values: Mapping[str, object], mentioned: Sequence[str]) -> int:
        if name not in mentioned or values[name] not in self.labels[name]:
            return _NOT_MENTIONED
        return self.labels[name].index(cast("str | int", values[name]))
