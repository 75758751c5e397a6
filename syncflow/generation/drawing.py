"""From captions and a start to finished latents: one call of the solver, and what it shows.

At every step the velocity says where the state is heading: x + (1 - t) v. A linear map makes
pictures and loudness of that (``models.preview_map``), in a fraction of the time of the decoders.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from syncflow import flow
from syncflow.clip import ClipSpec
from syncflow.config import SamplingConfig
from syncflow.generation.arguments import function, texts
from syncflow.generation.first_block import CachedVelocity
from syncflow.generation.model import Model
from syncflow.generation.remarks.preview import Preview, Show
from syncflow.generation.request import Request
from syncflow.generation.sampler import Captions, GuidedVelocity, Progress, advance
from syncflow.generation.steps import Steps
from syncflow.models import preview_map
from syncflow.models.ddit import DDiT
from syncflow.models.preview_map import PreviewMap
from syncflow.noise_steps import Held
from syncflow.ranges import Whole
from syncflow.sampling import SamplingOptions

#: Steps from one preview to the next, unless the call says otherwise.
EVERY = 5
_STEPS = Whole(1, 10**6)


@dataclass(frozen=True)
class Wish:
    """Who is shown previews, and at which steps: every ``every``-th and the last."""

    show: Show
    every: int
    map: PreviewMap


@dataclass(frozen=True)
class Wishes:
    """What all that one call draws has in common: sampling options as they were given, texts to
    lead away from, who is told of steps and who is shown them."""

    sampling: SamplingOptions
    negative_prompt: str | None = None
    negative_audio_prompt: str | None = None
    callback: flow.Callback | None = None
    progress: bool = True
    preview: Wish | None = None

    def __post_init__(self) -> None:
        """Raises ValueError where a text is none, or who is told of steps cannot be called."""
        texts(
            negative_prompt=self.negative_prompt, negative_audio_prompt=self.negative_audio_prompt
        )
        function("callback", "each step", self.callback)

    def remark(self, settings: SamplingConfig) -> None:
        """Warns of a text that nothing is led away from, since guidance is off in the call or,
        where that says nothing, in the model's ``settings``."""
        asked = settings.model_copy(
            update={name: value for name, value in self.sampling.items() if value is not None}
        )
        of_sound = asked.guidance if asked.audio_guidance is None else asked.audio_guidance
        both, sound = self.negative_prompt or "", self.negative_audio_prompt or ""
        for name, text, weights in (
            ("negative_prompt", both, (asked.guidance, of_sound)),
            ("negative_audio_prompt", sound, (of_sound,)),
        ):
            if text.strip() and all(weight == 1 for weight in weights):
                option = "guidance" if len(weights) > 1 else "audio_guidance"
                line = f"{name} does nothing at {option} 1: give {option}, 1.5 say"
                warnings.warn(line, stacklevel=3)


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
    watch: Watch | None = None,
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
    make: Callable[..., GuidedVelocity] = GuidedVelocity
    if sampling.cache != "off":
        make = partial(CachedVelocity, towers=sampling.cache, threshold=sampling.cache_threshold)
    velocity: flow.Velocity = make(
        model,
        captions,
        asked.guidance,
        asked.audio_guidance,
        start.frame_mask,
        start.video_velocity,
        steps,
        (sampling.guidance_start, sampling.guidance_end),
    )
    if watch is not None:
        velocity = watch.over(velocity)
    with Progress(asked.path, progress) as bar:
        x_video, x_audio = flow.integrate(
            velocity,
            (start.video, start.audio),
            asked.path,
            sampling.solver,
            _after_step(bar, callback, watch),
            advance,
            (0.0 if start.still else sampling.eta, 0.0),
            fresh,
            start.held,
            sampling.eta_start,
        )
    if not (x_video.isfinite().all() and x_audio.isfinite().all()):
        raise ValueError(
            "sampling left the numbers that can be told: lower guidance, eta or shift, or load the "
            "model with dtype float32"
        )
    return x_video, x_audio


def _after_step(
    bar: Progress, callback: flow.Callback | None, watch: Watch | None
) -> Callable[..., None]:
    def after(step: int, x: flow.State, t: tuple[float, ...]) -> None:
        bar.update(step)
        if callback is not None:
            callback(step, x, t)
        if watch is not None:
            watch.after(step, x, t)

    return after


def wish(model: Model, show: Show | None, every: int) -> Wish | None:
    """What a call asks for, None where nothing.

    Raises:
        ValueError: ``model`` has no preview map, or one for other latents; ``every`` is no number
            of steps.
    """
    every = _STEPS.check("preview_every", every)
    function("preview", "each preview", show)
    if show is None:
        return None
    config = model.config
    needed = config.video_vae.latent_channels, config.audio_vae.latent_channels
    found = model.preview_map()
    if found.channels != needed:
        raise ValueError(
            f"the preview map is of latents with {found.channels[0]} and {found.channels[1]} "
            f"channels, the model's have {needed[0]} and {needed[1]}"
        )
    return Wish(show, every, found.to(model.device))


class Watch:
    """Shows one call of the solver: keeps the last velocity of picture and sound.

    Args:
        wish: of the call.
        model: whose latents they are.
        spec: the geometry that is drawn.
        steps: of the whole path.
    """

    def __init__(self, wish: Wish, model: Model, spec: ClipSpec, steps: int) -> None:
        self.wish, self.codecs, self.spec, self.steps = wish, model.codecs, spec, steps
        self._last: list[tuple[Tensor, float, Tensor | flow.Guided] | None] = [None, None]
        self._finished: tuple[Tensor, Tensor] | None = None

    def over(self, velocity: flow.Velocity) -> flow.Velocity:
        """The same velocity, looked at."""

        def seen(
            x: flow.State, t: tuple[float, ...], moving: tuple[bool, ...]
        ) -> Sequence[Tensor | flow.Guided | None]:
            found = velocity(x, t, moving)
            for part, v in enumerate(found):
                if v is not None:
                    self._last[part] = (x[part], t[part], v)
            return found

        return seen

    def after(self, step: int, x: flow.State, t: tuple[float, ...]) -> None:
        """Shows the state after a step, if it is the step's turn."""
        if step % self.wish.every and step != self.steps:
            return
        latent, video = self._video(x[0], t[0])
        sound, envelope = self._heading(1, x[1], t[1]), None
        if sound is not None:
            envelope = self.wish.map.envelope(self.codecs.audio.denormalize(sound)).cpu()
        rate = preview_map.rate(self.spec.sample_rate)
        shown = Preview(
            step, self.steps, video, envelope, self.spec.fps, rate, latents=(latent, sound)
        )
        self.wish.show(shown)

    def _video(self, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """Latent and pictures; of a picture that is finished, once."""
        if self._finished is not None:
            return self._finished
        latent = self._heading(0, x, t)
        assert latent is not None  # a picture stands still at its end alone
        raw = self.codecs.video.denormalize(latent)
        found = latent, self.wish.map.video(raw, self.spec.num_frames).cpu()
        self._finished = found if t == 1 else None
        return found

    def _heading(self, part: int, x: Tensor, t: float) -> Tensor | None:
        """Where the state of picture (0) or sound (1) goes; None before it has begun."""
        if t == 1:
            return x
        last = self._last[part]
        if last is None:
            return None
        x_before, t_before, v = last
        return flow.advance(x_before, v, 1 - t_before)


def watch(wish: Wish | None, model: Model, spec: ClipSpec, path: Tensor) -> Watch | None:
    """What shows a call of the solver along ``path``, None where nobody looks."""
    return None if wish is None else Watch(wish, model, spec, len(path) - 1)
