"""Diffusers' words for what ``generate`` takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from syncflow.clip import Clip
from syncflow.ranges import SEED

OutputType = Literal["pil", "np", "pt"]
OUTPUT_TYPES = ("pil", "np", "pt")


class Output(NamedTuple):
    """What a pipeline gives: ``frames`` of each clip (PIL images; float [F,H,W,3] in [0,1]; or a
    tensor [F,3,H,W] so), ``audio`` of each, float32 [1, M] (one channel), and the clips themselves,
    with their rates and ``save``."""

    frames: list[object]
    audio: list[Tensor]
    clips: list[Clip]


def own(
    steps: int | None,
    guidance: float | None,
    generator: torch.Generator | None,
    options: Mapping[str, object],
    prompt: str | list[str],
) -> dict[str, object]:
    """Options in ``generate``'s own words.

    Raises:
        ValueError: one is said in both.
    """
    found = merged(options, steps=steps, guidance=guidance, seed=generator)
    if "seed" not in options:
        found["seed"] = seed(generator, 1 if isinstance(prompt, str) else len(prompt))
    return found


def merged(options: Mapping[str, object], **given: object) -> dict[str, object]:
    """``options`` and what else is ``given``, by ``generate``'s names; None is not given.

    Raises:
        ValueError: one is in both.
    """
    said = {name: value for name, value in given.items() if value is not None}
    for name in said:
        if name in options:
            raise ValueError(f"{name} is said twice, in two kinds of words: leave one out")
    return {**options, **said}


def output(made: Clip | list[Clip], output_type: str) -> Output:
    """Clips as diffusers hands them over.

    Raises:
        ValueError: an ``output_type`` that there is not.
    """
    clips = made if isinstance(made, list) else [made]
    return Output(
        [frames(clip.video, output_type) for clip in clips],
        [clip.audio[None] for clip in clips],
        clips,
    )


def check(output_type: str) -> None:
    """Raises ValueError for an ``output_type`` that there is not."""
    if output_type not in OUTPUT_TYPES:
        known = ", ".join(OUTPUT_TYPES)
        raise ValueError(f"unknown output_type {output_type!r}; known are {known}")


def frames(video_FCHW: Tensor, output_type: str) -> object:
    """uint8 pictures as PIL images, or in [0, 1] as an array or a tensor."""
    check(output_type)
    if output_type == "pil":
        from PIL import Image

        return [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in video_FCHW]
    scaled = video_FCHW.float() / 255
    return scaled if output_type == "pt" else np.ascontiguousarray(scaled.permute(0, 2, 3, 1))


def seed(generator: torch.Generator | None, prompts: int = 1) -> int:
    """The seed that a generator stands for: its own if nothing was drawn from it yet, so that
    ``torch.Generator().manual_seed(7)`` is ``seed=7``, else one that is drawn. It moves on, and a
    second call with the same generator gives other clips. None is a new seed.

    Raises:
        ValueError: it is no generator.
    """
    if generator is None:
        return int(torch.randint(2**53, ()))
    if not isinstance(generator, torch.Generator):
        raise ValueError(
            f"generator must be a torch.Generator, got {type(generator).__name__}; with several "
            "prompts the second uses the next seed, and so on"
        )
    start = generator.initial_seed()
    fresh = torch.Generator(generator.device).manual_seed(start)
    unused = torch.equal(fresh.get_state(), generator.get_state())
    drawn = int(torch.randint(2**53, (), generator=generator, device=generator.device))
    return start if unused and SEED.holds(start + prompts) else drawn
