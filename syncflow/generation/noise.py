"""The noise that clips start from, and what of it is drawn anew on the way."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from syncflow import flow
from syncflow.ranges import SEED


class Generator:
    """Standard normal numbers of a seed, on the CPU: the same ones for every device.

    All bits of the seed count. PyTorch's generator on the CPU reads 32 of them, so that longer
    seeds draw from NumPy's Mersenne Twister, whose numbers stay the same with every version.
    """

    def __init__(self, seed: int) -> None:
        self._short = self._long = None
        if seed < 2**32:
            self._short = torch.Generator().manual_seed(seed)
        else:
            self._long = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed)))

    def normal(self, shape: Sequence[int]) -> Tensor:
        """The next numbers, float32."""
        if self._long is None:
            return torch.randn(tuple(shape), generator=self._short)
        return torch.from_numpy(self._long.standard_normal(tuple(shape)).astype(np.float32))

    def apart(self) -> Generator:
        """Another one that goes on from here and leaves this one as it is."""
        other = copy.copy(self)
        if self._short is not None:
            other._short = self._short.clone_state()
        else:
            other._long = copy.deepcopy(self._long)
        return other


#: One per prompt: a prompt's noise does not depend on what else is in the batch.
Generators = list[Generator]


def generators(seeds: Iterable[int]) -> Generators:
    """One of each seed.

    Raises:
        ValueError: a seed is no whole number, negative, or of more than 63 bits.
    """
    return [Generator(SEED.check("seed", seed)) for seed in seeds]


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
        video.append(source.normal(video_shape))
        audio.append(source.normal(audio_shape))
        apart = source.apart()
        audio += [apart.normal(audio_shape) for _ in range(takes - 1)]
    return torch.stack(video).to(device), torch.stack(audio).to(device)


def fresh(sources: Generators) -> flow.Noise:
    """``flow.integrate``'s noise, a row for each prompt from its own generator."""

    def draw(part: int, like: Tensor) -> Tensor:
        return torch.stack([source.normal(like.shape[1:]) for source in sources]).to(like)

    return draw
