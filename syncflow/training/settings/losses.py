"""Schemas of the losses that have networks of their own."""

from __future__ import annotations

from typing import Annotated

from pydantic import model_validator

from syncflow.config import Config
from syncflow.config.units import Decay, Layers, Share, Weight, multiple_of
from syncflow.ranges import Real, Whole

_Rate = Annotated[float, Real(0, 1, above=True)]
_Counts = Annotated[float, Real(0, 1e6, above=True)]


class AdversarialConfig(Config):
    """A discriminator that is trained to tell reconstructions from originals, against the VAE.

    From step ``start`` on, the losses on the output are balanced as in Encodec: each has the share
    of the gradient that its weight says, where reconstruction has 1. ``weight`` is of the
    discriminator's verdict, ``feature_weight`` of the distance of its features. ``filters``:
    channels of its layers. It learns in ``update_share`` of the steps, by AdamW with ``lr`` and
    ``betas``; its ``lr`` warms up and decays as the loop's does.
    """

    start: Annotated[int, Whole(0, 10**9, "steps")] = 0
    weight: Weight = 2.0
    feature_weight: Weight = 2.0
    filters: Annotated[int, Whole(4, 8192, "channels"), multiple_of(4)] = 32
    lr: _Rate = 3e-4
    betas: tuple[Decay, Decay] = (0.5, 0.9)
    update_share: _Rate = 1.0


class PerceptualConfig(Config):
    """LPIPS: ``backbone`` is a file with torchvision's VGG16, ``heads`` one with LPIPS's own
    weights (without: all channels count the same). ``weight`` beside reconstruction, which has 1.
    """

    backbone: str
    heads: str | None = None
    weight: _Counts = 1.0


class AlignmentConfig(Config):
    """Representation alignment: the tokens after audio layer ``layer`` (from 1) are to show,
    through a small head, what a frozen audio encoder hears. ``features`` is a folder that a task
    "features" made of the same latents; ``weight`` beside the losses of the velocities."""

    features: str
    layer: Layers = 4
    weight: _Counts = 0.5


class DistillationConfig(Config):
    """Guidance distilled into the video tower: it learns the velocity that ``teacher`` (a finished
    run, a checkpoint or a model folder; None: the weights that training starts from) has with
    ``guidance`` between the flow times ``guidance_start`` and ``guidance_end``, and outside
    without. ``data``: how much of what the caption's own velocity is to be comes from the clips
    instead of from the teacher; guidance is added to it all the same.
    """

    teacher: str | None = None
    guidance: Annotated[float, Real(0, 1000)]
    guidance_start: Share = 0.0
    guidance_end: Share = 1.0
    data: Share = 0.0

    @model_validator(mode="after")
    def _check_interval(self) -> DistillationConfig:
        if self.guidance_start >= self.guidance_end:
            raise ValueError(
                f"guidance_start {self.guidance_start:g} must be below guidance_end "
                f"{self.guidance_end:g}, or nothing is guided"
            )
        return self
