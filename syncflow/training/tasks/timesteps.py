"""Flow times of a batch: picture and sound each have a clock, and frames may be given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from syncflow.training.settings import FlowTask
from syncflow.training.tasks import randomness
from syncflow.training.tasks.randomness import Source

_STRETCHES = 5  # of flow time, in which the losses are told apart


@dataclass(frozen=True)
class Clocks:
    """Flow times of a batch: of the videos [B], which of them are clean, the time that a sound not
    apart from its video has, which are apart, and, where they are given, those of the draws [B*K].
    """

    video_B: Tensor
    clean_B: Tensor
    joint_B: Tensor
    apart_B: Tensor
    frame_mask_BT: Tensor | None = None
    audio_N: Tensor | None = None


def times(config: FlowTask, size: int, source: Source) -> Tensor:
    """[size] training times as the config has them."""
    return randomness.times(
        size,
        source,
        kind=config.time_kind,
        uniform_share=config.uniform_share,
        mean=config.time_mean,
        std=config.time_std,
        shift=config.time_shift,
    )


def draw(config: FlowTask, shape: Sequence[int], source: Source) -> Clocks:
    """Times of a batch of videos of that shape, [B, C, T, ...]."""
    size = shape[0]
    t_B = times(config, size, source)
    clean = randomness.uniform(size, source) < config.clean_share
    t_video = torch.where(clean, torch.ones_like(t_B), t_B)
    # A setting that is off draws nothing: with it or without, the other numbers stay.
    apart = clean
    if config.decoupled:
        apart = clean | (randomness.uniform(size, source) < config.decoupled)
    mask = _frame_mask(config, shape, clean, source) if config.conditioned else None
    return Clocks(t_video, clean, t_B, apart, mask)


def audio_times(config: FlowTask, clocks: Clocks, source: Source) -> Tensor:
    """[B*K]: the video's time, or one of each draw's own where the two are apart."""
    if clocks.audio_N is not None:
        return clocks.audio_N
    repeats = config.draws
    t_N = clocks.joint_B.repeat_interleave(repeats)
    if repeats == 1 and not config.decoupled:
        return t_N
    own_N = times(config, len(t_N), source).to(t_N.device)
    return torch.where(clocks.apart_B.repeat_interleave(repeats), own_N, t_N)


def _frame_mask(config: FlowTask, shape: Sequence[int], clean: Tensor, source: Source) -> Tensor:
    """[B, T], False = given: in a share of the samples a run of 1 to T - 1 first frames or, in
    every fourth of them, last ones."""
    B, _, T = shape[:3]
    chosen, length, side = (randomness.uniform(B, source) for _ in range(3))
    given = 1 + (length * (T - 1)).long().clamp(max=max(0, T - 2))
    place = torch.arange(T, device=clean.device).expand(B, T)
    place = torch.where((side < 0.25)[:, None], T - 1 - place, place)
    hidden = (chosen < config.conditioned) & ~clean & (T > 1)
    return ~(hidden[:, None] & (place < given[:, None]))


def by_time(loss_N: Tensor, t_N: Tensor, counted_N: Tensor | None = None) -> Tensor:
    """[2, stretches]: sum and number of the losses in each stretch of flow time."""
    ones = torch.ones_like(t_N) if counted_N is None else counted_N.float()
    stretch = (t_N * _STRETCHES).long().clamp(max=_STRETCHES - 1)
    out = torch.zeros(2, _STRETCHES, device=loss_N.device)
    return out.index_add(1, stretch, torch.stack([loss_N.detach() * ones, ones]))
