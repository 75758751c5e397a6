"""Validation of flow training: the same clips, times and noise every time, whoever counts them.

A pass takes as many clips as a pass of training, so what can be trained can be validated. The clips
are shared out among the processes. Noise and posterior draws belong to a clip, and ``audio_other``
pairs a clip with its neighbour, so that neither the size of a pass nor the number of processes
changes a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from syncflow.models.audio_tower import AudioContext
from syncflow.models.ddit import Condition, DDiT
from syncflow.training.datasets.buckets import Bucket, stacked
from syncflow.training.distributed.groups import Group
from syncflow.training.settings import FlowTask
from syncflow.training.tasks import draws, randomness
from syncflow.training.tasks.randomness import SampleGenerators
from syncflow.training.tasks.timesteps import Clocks

CLIPS = 128
TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
_APART = 1 << 40  # numbers of clips that no run of training reaches
_READ = 16  # clips read at once where all are needed


class Validated(Protocol):
    """What is asked of ``flow.FlowTraining``."""

    module: DDiT
    device: torch.device
    config: FlowTask
    group: Group
    coupling: draws.Coupling
    trains_audio: bool

    def _on_device(self, values: dict[str, Tensor], bucket: Bucket) -> Mapping[str, Tensor]: ...

    def _picture(
        self, x_1: Tensor, when: Clocks, x_0: Tensor, over_given: Tensor, condition: Condition
    ) -> tuple[Tensor, list[Tensor]]: ...

    def _sound(
        self, y_1: Tensor, y_0: Tensor, t_N: Tensor, context: AudioContext, condition: Condition
    ) -> Tensor: ...


def validate(task: Validated, bucket: Bucket) -> dict[str, float]:
    """Mean losses over clips and times, each with its standard error over clips (``_se``):
    ``video``, and of a sound with its video at the same time (``audio_same``), with the clean video
    (``audio_clean``) and with the clean video of another clip (``audio_other``)."""
    total = min(CLIPS, len(bucket.latents))
    total -= total % 2 if total > 1 else 0
    names = ["video", *(("audio_same", "audio_clean", "audio_other") if task.trains_audio else ())]
    found = torch.zeros(len(names), total, dtype=torch.float64, device=task.device)
    noise = _Noise(task, bucket, total)
    for rows, counts in _passes(task, total):
        losses = _pass(task, bucket, rows, noise)
        if counts:
            found[:, rows] = torch.stack([losses[name] for name in names]).double()
    found = task.group.sum(found) / task.group.sequence
    means: dict[str, float] = {}
    for name, clip_N in zip(names, found, strict=True):
        means[name] = clip_N.mean().item()
        means[f"{name}_se"] = (clip_N.std() / total**0.5).item()
    return means


def _passes(task: Validated, total: int) -> list[tuple[np.ndarray, bool]]:
    """The clips of each pass of this process, neighbours together, and whether they count.

    All processes have as many passes, since they share weights in them: who has fewer clips goes
    through some again.
    """
    group = task.group
    size = max(1, task.config.loop.batch_size // group.replicas // 2)  # pairs in a pass
    pairs = np.arange(-(-total // 2))
    shares = np.array_split(pairs, group.replicas)
    own = shares[group.rank // group.sequence]
    most = -(-len(shares[0]) // size)  # the first is the largest
    parts = [(own[first : first + size], True) for first in range(0, len(own), size)]
    parts += [(pairs[:1], False)] * (most - len(parts))

    def clips(of: np.ndarray) -> np.ndarray:
        both = np.stack([2 * of, 2 * of + 1], axis=1).reshape(-1)
        return both[both < total]

    return [(clips(of), counts) for of, counts in parts]


def _pass(task: Validated, bucket: Bucket, rows: np.ndarray, noise: _Noise) -> dict[str, Tensor]:
    """Losses [B] of some clips, means over the times."""
    model, device, K = task.module, task.device, task.config.draws
    batch = task._on_device(_clips(bucket, rows), bucket)
    x_1, y_1 = batch["video"], batch["audio"]
    condition = model.prepare(batch["text"], batch["mask"], bucket.spec)
    over_given = randomness.normal(x_1.shape, _generators(len(TIMES), rows)).to(device)
    count = len(rows)
    still = torch.ones(count, dtype=torch.bool, device=device)
    sums: dict[str, Tensor] = {}
    contexts = {}
    if task.trains_audio:  # a clean video is at no time: one pass for all
        ones = torch.ones(count, device=device)
        _, features = task._picture(
            x_1, Clocks(ones, still, ones, still), x_1, over_given, condition
        )
        other = torch.tensor([min(i ^ 1, count - 1) for i in range(count)], device=device)
        contexts["audio_clean"] = model.audio_context(features, condition)
        features = [feature[other] for feature in features]
        contexts["audio_other"] = model.audio_context(features, condition)
        del features
    for index, time in enumerate(TIMES):
        t_B = torch.full((count,), time, device=device)
        x_0, y_0 = noise.of(index, rows, x_1, y_1)
        x_0, y_0 = x_0.to(device), None if y_0 is None else y_0.to(device)
        video, features = task._picture(
            x_1, Clocks(t_B, ~still, t_B, ~still), x_0, over_given, condition
        )
        losses = {"video": video}
        if y_0 is not None:
            t_N = t_B.repeat_interleave(K)
            for name, context in contexts.items():
                losses[name] = task._sound(y_1, y_0, t_N, context, condition)
            context = model.audio_context(features, condition)
            losses["audio_same"] = task._sound(y_1, y_0, t_N, context, condition)
            del context
        del features
        for name, loss in losses.items():
            loss_B = loss.unflatten(0, (count, -1)).mean(1) / len(TIMES)
            sums[name] = sums[name] + loss_B if name in sums else loss_B
    return sums


class _Noise:
    """The noise of every clip at every time, paired with the clips as in training: over all clips
    of the validation set, so all are read where there is a coupling."""

    def __init__(self, task: Validated, bucket: Bucket, total: int) -> None:
        self.task, self.paired = task, []
        if task.config.coupling == "none":
            return
        rows = np.arange(total)
        parts = [_clips(bucket, rows[at : at + _READ]) for at in range(0, total, _READ)]
        x_1, y_1 = (torch.cat([part[kind] for part in parts]) for kind in ("video", "audio"))
        caption = None
        if task.config.coupling == "c2ot":
            kept = torch.zeros(_READ, dtype=torch.bool)
            caption = torch.cat(
                [draws.captions(p["text"], p["mask"], kept[: len(p["text"])]) for p in parts]
            )
        coupling = task.coupling.alone()
        for index in range(len(TIMES)):
            x_0, y_0 = self._drawn(index, rows, x_1, y_1)
            x_0 = coupling.paired(x_0, x_1, caption)
            y_0 = y_0 if y_0 is None else coupling.paired_draws(y_0, y_1, caption)
            self.paired.append((x_0, y_0))

    def of(
        self, index: int, rows: np.ndarray, x_1: Tensor, y_1: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Of the ``index``-th time: video [B, ...] and sounds [B*K, ...], on the CPU."""
        if not self.paired:
            return self._drawn(index, rows, x_1, y_1)
        x_0, y_0 = self.paired[index]
        if y_0 is None:
            return x_0[rows], None
        return x_0[rows], y_0.unflatten(0, (len(x_0), -1))[rows].flatten(0, 1)

    def _drawn(
        self, index: int, rows: np.ndarray, x_1: Tensor, y_1: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        source = _generators(index, rows)
        x_0 = randomness.normal((len(rows), *x_1.shape[1:]), source)
        if not self.task.trains_audio:
            return x_0, None
        shape = (len(rows) * self.task.config.draws, *y_1.shape[1:])
        return x_0, randomness.normal(shape, source)


def _generators(seed: int, rows: np.ndarray) -> SampleGenerators:
    return SampleGenerators(seed, _APART + rows)


def _clips(bucket: Bucket, rows: np.ndarray) -> dict[str, Tensor]:
    """Clips of the set, the same draws of their posteriors every time."""
    each = [
        bucket.latents.batch(np.array([row]), randomness.data_rng(0, _APART + int(row)))
        for row in rows
    ]
    return stacked(each)
