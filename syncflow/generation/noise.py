"""The noise that clips start from, and what of it is drawn anew on the way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from syncflow import flow

#: One per prompt: a prompt's noise does not depend on what else is in the batch.
Generators = list[torch.Generator]


def generators(seeds: Iterable[int]) -> Generators:
    """One of each seed, on the CPU: the same noise on every device."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def start(
    sources: Generators,
    video_shape: Sequence[int],
    audio_shape: Sequence[int],
    device: torch.device,
    takes: int = 1,
) -> tuple[Tensor, Tensor]:
    """x_0: video [P, *video_shape] and audio [P * takes, *audio_shape].

    More takes leave the first one's noise, and what the picture draws later, as they are.
    """
    video, audio = [], []
    for source in sources:
        video.append(torch.randn(tuple(video_shape), generator=source))
        audio.append(torch.randn(tuple(audio_shape), generator=source))
        apart = source.clone_state()
        audio += [torch.randn(tuple(audio_shape), generator=apart) for _ in range(takes - 1)]
    return torch.stack(video).to(device), torch.stack(audio).to(device)


def fresh(sources: Generators) -> flow.Noise:
    """``flow.integrate``'s noise, a row for each prompt from its own generator."""

    def draw(part: int, like: Tensor) -> Tensor:
        rows = [torch.randn(like.shape[1:], generator=source) for source in sources]
        return torch.stack(rows).to(like)

    return draw
