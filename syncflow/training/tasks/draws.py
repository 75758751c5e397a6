"""All that a pass draws: dropped captions, times, and noise paired with the data.

Nothing of it depends on the network, so it can be made on the CPU while the step before runs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from syncflow import flow
from syncflow.training.distributed.groups import Group
from syncflow.training.settings import FlowTask
from syncflow.training.tasks import randomness, timesteps
from syncflow.training.tasks.randomness import Source
from syncflow.training.tasks.timesteps import Clocks

Tensors = TypeVar("Tensors", "Draws", Clocks)


@dataclass(frozen=True)
class Draws:
    """Of B clips: ``drop_B``, whose caption is dropped; the flow times; the noise ``x_0`` of the
    videos and ``over_given``, that is added to what is given of them, both [B, C, T, H, W]; the
    noise ``y_0`` [B*K, A, D] of the sounds and their times ``t_N`` [B*K], where sound is trained.
    ``tell_B``: who is told when things touch, where anybody is.
    ``seconds`` that the pairing of noise and data took.
    """

    drop_B: Tensor
    clocks: Clocks
    x_0: Tensor
    over_given: Tensor
    y_0: Tensor | None = None
    t_N: Tensor | None = None
    tell_B: Tensor | None = None
    seconds: float = 0.0

    def to(self, device: torch.device) -> Draws:
        """The same with its tensors on a device."""
        return _moved(self, device)


def draw(
    config: FlowTask, batch: Mapping[str, Tensor], source: Source, coupling: Coupling
) -> Draws:
    """The draws of a batch, on the CPU. The order is fixed: a setting that is off draws nothing,
    and the other numbers stay what they are."""
    x_1 = batch["video"]
    drop_B = randomness.uniform(len(x_1), source) < config.text_dropout
    clocks = timesteps.draw(config, x_1.shape, source)
    caption = None
    if config.coupling == "c2ot":
        caption = captions(batch["text"], batch["mask"], drop_B)
    begun = coupling.seconds
    x_0 = coupling.paired(randomness.normal(x_1.shape, source), x_1, caption)
    over_given = randomness.normal(x_1.shape, source)
    y_0 = t_N = None
    if config.train != "video":
        y_1, K = batch["audio"], config.draws
        y_0 = randomness.normal((len(y_1) * K, *y_1.shape[1:]), source)
        y_0 = coupling.paired_draws(y_0, y_1, caption)
        t_N = timesteps.audio_times(config, clocks, source)
    tell_B = None
    if config.events:
        # Without its caption nothing is said of a clip: the null caption is one.
        tell_B = (randomness.uniform(len(x_1), source) < config.events) & ~drop_B
    seconds = coupling.seconds - begun
    return Draws(drop_B, clocks, x_0, over_given, y_0, t_N, tell_B, seconds)


def captions(text_BLE: Tensor, mask_BL: Tensor, drop_B: Tensor) -> Tensor:
    """[B, E]: the mean of a caption's tokens, however far the batch pads it; one and the same for
    all that are dropped."""
    mask_BL1 = mask_BL[..., None].float().cpu()
    mean_BE = (text_BLE.float().cpu() * mask_BL1).sum(1) / mask_BL1.sum(1).clamp(min=1)
    return torch.where(drop_B[:, None], torch.ones_like(mean_BE), mean_BE)


class Coupling:
    """Pairs noise with data within the batch of all processes (``flow.couple``), on the CPU.

    Each process works out its rows of the costs and all solve the same problem. ``seconds`` counts
    all of it.
    """

    def __init__(self, config: FlowTask, group: Group) -> None:
        self.kind, self.share = config.coupling, config.condition_share
        self.group = group if self.kind == "none" else group.aside()
        self.seconds = 0.0

    def alone(self) -> Coupling:
        """The same, of what this process has by itself."""
        out = copy(self)
        out.group = Group()
        return out

    def paired(self, x_0: Tensor, x_1: Tensor, caption: Tensor | None) -> Tensor:
        """[B, ...]: for each of this process's data a noise, of whichever process."""
        if self.kind == "none":
            return x_0
        begun = time.perf_counter()
        everyones = self.group.gather(x_0)
        # A clip that is not finite is for the step to leave out; the pairing must not stumble.
        cost = self.group.gather(flow.transport_cost(everyones, x_1.cpu().nan_to_num()))
        if caption is not None:
            cost = flow.conditional_cost(cost, self.group.gather(caption), share=self.share)
        order = flow.assign(cost)
        out = everyones[order[self.group.rows(len(everyones))]]
        self.seconds += time.perf_counter() - begun
        return out

    def paired_draws(self, y_0: Tensor, y_1: Tensor, caption: Tensor | None) -> Tensor:
        """[B*K, ...] for data [B, ...]: draw k of all clips by itself. As one problem, K draws
        would take K^2 times as long, and longer than the step."""
        if self.kind == "none":
            return y_0
        draws = y_0.unflatten(0, (len(y_1), -1)).unbind(1)
        return torch.stack([self.paired(y, y_1, caption) for y in draws], dim=1).flatten(0, 1)


def _moved(value: Tensors, device: torch.device) -> Tensors:
    """A dataclass with its tensors on a device."""
    out: dict[str, Any] = {}
    for each in fields(value):
        found = getattr(value, each.name)
        if isinstance(found, Tensor):
            out[each.name] = found.to(device, non_blocking=True)
        elif isinstance(found, Clocks):
            out[each.name] = _moved(found, device)
    return replace(value, **out)
