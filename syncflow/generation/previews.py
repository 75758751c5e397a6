"""What a clip is going to be, shown while it is drawn.

At every step the velocity says where the state is heading: x + (1 - t) v. A linear map makes
pictures and loudness of that (``models.preview_map``), in a fraction of the time of the decoders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from syncflow import flow
from syncflow.clip import ClipSpec
from syncflow.generation.model import Model
from syncflow.generation.remarks.preview import Preview, Show
from syncflow.models import preview_map
from syncflow.models.preview_map import PreviewMap

#: Steps from one preview to the next, unless the call says otherwise.
EVERY = 5


@dataclass(frozen=True)
class Wish:
    """Who is shown previews, and at which steps: every ``every``-th and the last."""

    show: Show
    every: int
    map: PreviewMap


def wish(model: Model, show: Show | None, every: int) -> Wish | None:
    """What a call asks for, None where nothing.

    Raises:
        ValueError: ``model`` has no preview map, or one for other latents.
    """
    if show is None:
        return None
    if not callable(show):
        raise ValueError(f"preview is a function that is given each preview, got {show!r}")
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
