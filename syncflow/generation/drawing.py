"""From captions and a start to finished latents: one call of the solver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from syncflow import flow
from syncflow.generation import previews
from syncflow.generation.first_block import CachedVelocity
from syncflow.generation.request import Request
from syncflow.generation.sampler import Captions, GuidedVelocity, Progress, advance
from syncflow.generation.steps import Steps
from syncflow.models.ddit import DDiT
from syncflow.noise_steps import Held
from syncflow.sampling import SamplingOptions


@dataclass(frozen=True)
class Wishes:
    """What all that one call draws has in common: sampling options as they were given, texts to
    lead away from, who is told of steps and who is shown them."""

    sampling: SamplingOptions
    negative_prompt: str | None = None
    negative_audio_prompt: str | None = None
    callback: flow.Callback | None = None
    progress: bool = True
    preview: previews.Wish | None = None


@dataclass(frozen=True)
class Start:
    """What sampling starts from and what of it is given.

    Attributes:
        video, audio: the state, [P, C, T, h, w] and [P * takes, A, D]: noise, or data where a
            modality stands still or is given.
        frame_mask: [P, T], False = a latent frame that is data already and that the tower is told
            is clean.
        video_velocity: the known velocity of a given video, for the paper's video-to-audio.
        held: what of each modality is put back after every step.
        still: the picture does not move, so no noise is drawn for it.
    """

    video: Tensor
    audio: Tensor
    frame_mask: Tensor | None = None
    video_velocity: Tensor | None = None
    held: tuple[Held | None, Held | None] = (None, None)
    still: bool = False


def draw(
    model: DDiT,
    steps: Steps,
    captions: Captions,
    start: Start,
    asked: Request,
    fresh: flow.Noise,
    callback: flow.Callback | None = None,
    progress: bool = True,
    watch: previews.Watch | None = None,
) -> tuple[Tensor, Tensor]:
    """The end of the path: latents of picture and sound.

    Args:
        asked: path, guidance and solver.
        fresh: noise that is drawn anew on the way.
        callback: after every step, as in ``flow.integrate``.
        watch: shows how far it is.

    Raises:
        ValueError: the numbers left the range that they can have.
    """
    sampling = asked.sampling
    given: tuple[Any, ...] = (
        model, captions, asked.guidance, asked.audio_guidance, start.frame_mask,
        start.video_velocity, steps, (sampling.guidance_start, sampling.guidance_end),
    )  # fmt: skip
    velocity: flow.Velocity = GuidedVelocity(*given)
    if sampling.cache != "off":
        velocity = CachedVelocity(*given, towers=sampling.cache, threshold=sampling.cache_threshold)
    if watch is not None:
        velocity = watch.over(velocity)
    with Progress(asked.path, progress) as bar:
        x_video, x_audio = flow.integrate(
            velocity, (start.video, start.audio), asked.path, sampling.solver,
            _after_step(bar, callback, watch), advance, (0.0 if start.still else sampling.eta, 0.0),
            fresh, start.held,
        )  # fmt: skip
    if not (x_video.isfinite().all() and x_audio.isfinite().all()):
        raise ValueError(
            "sampling left the numbers that can be told: lower guidance, eta or shift, or load the "
            "model with dtype float32"
        )
    return x_video, x_audio


def _after_step(
    bar: Progress, callback: flow.Callback | None, watch: previews.Watch | None
) -> Callable[..., None]:
    def after(step: int, x: flow.State, t: tuple[float, ...]) -> None:
        bar.update(step)
        if callback is not None:
            callback(step, x, t)
        if watch is not None:
            watch.after(step, x, t)

    return after
