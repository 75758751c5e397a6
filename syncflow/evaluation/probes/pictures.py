"""What the probes of pictures share: rendered clips to learn from, and how those are varied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from syncflow.evaluation.probes import wear


def check(video_F3HW: Tensor) -> None:
    """Raises ValueError for what is no ``uint8 [F,3,H,W]``."""
    if video_F3HW.dtype != torch.uint8 or video_F3HW.ndim != 4 or video_F3HW.shape[1] != 3:
        raise ValueError(
            f"video must be uint8 [F,3,H,W], got {video_F3HW.dtype} {list(video_F3HW.shape)}"
        )


def examples(
    read: Callable[[Tensor], Tensor],
    attribute: Literal["colour", "kind"],
    split: str,
    clips: int,
    levels: Sequence[int],
) -> tuple[list[Tensor], list[str]]:
    """What ``read`` makes of the first ``clips`` pictures of each level, and their ``attribute``;
    in training, half are worn. Two things have one kind and no one colour."""
    from syncflow import impacts

    inputs, labels = [], []
    for level in levels:
        for index, seed in enumerate(impacts.SEEDS[split][:clips]):
            scene = impacts.sample_scene(seed, level, split)
            if attribute == "colour" and "second" in scene.attributes:
                continue
            video = torch.from_numpy(impacts.render(scene, 64, 64))
            if split == "train":
                video = wear.picture(video, 0.5 * (index % 2), seed)
            inputs.append(read(video))
            labels.append(scene.attributes[attribute])
    return inputs, labels


def names(
    attribute: Literal["colour", "kind"], levels: Sequence[int]
) -> tuple[list[str], list[float]]:
    """The attribute's values in a world, and what tells that world from one that is drawn
    otherwise: the brightness of its first pictures."""
    from syncflow import impacts

    labels = [str(value) for value in impacts.attribute_values(max(levels))[attribute]]
    seen = [
        round(float(impacts.render(impacts.sample_scene(seed, level), 32, 32).mean()), 4)
        for level in levels
        for seed in range(4)
    ]
    return labels, seen


def in_other_light(clips: Tensor, generator: torch.Generator, amount: float) -> Tensor:
    """Mirrored, brighter, darker: no more of a strike and no less, and of the same colour.

    Args:
        clips: [B, ..., W].
        amount: standard deviation of the brightness, as a share.
    """
    shape = (len(clips), *[1] * (clips.ndim - 1))
    mirrored = torch.rand(shape, generator=generator) < 0.5
    light = 1 + amount * torch.randn(shape, generator=generator)
    return torch.where(mirrored, clips.flip(-1), clips).float() * light
