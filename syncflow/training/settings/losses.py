"""Schemas of the losses that have networks of their own."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from syncflow.config import Config

_Beta = Annotated[float, Field(ge=0, lt=1)]


class AdversarialConfig(Config):
    """A discriminator that is trained to tell reconstructions from originals, against the VAE.

    From step ``start`` on, the losses on the output are balanced as in Encodec: each has the share
    of the gradient that its weight says, where reconstruction has 1. ``weight`` is of the
    discriminator's verdict, ``feature_weight`` of the distance of its features. ``filters``:
    channels of its layers. It learns in ``update_share`` of the steps, by AdamW with ``lr`` and
    ``betas``; its ``lr`` warms up and decays as the loop's does.
    """

    start: int = Field(0, ge=0)
    weight: float = Field(2.0, ge=0, allow_inf_nan=False)
    feature_weight: float = Field(2.0, ge=0, allow_inf_nan=False)
    filters: int = Field(32, ge=4, multiple_of=4)
    lr: float = Field(3e-4, gt=0, le=1, allow_inf_nan=False)
    betas: tuple[_Beta, _Beta] = (0.5, 0.9)
    update_share: float = Field(1.0, gt=0, le=1, allow_inf_nan=False)


class PerceptualConfig(Config):
    """LPIPS: ``backbone`` is a file with torchvision's VGG16, ``heads`` one with LPIPS's own
    weights (without: all channels count the same). ``weight`` beside reconstruction, which has 1.
    """

    backbone: str
    heads: str | None = None
    weight: float = Field(1.0, gt=0, allow_inf_nan=False)


class AlignmentConfig(Config):
    """Representation alignment: the tokens after audio layer ``layer`` (from 1) are to show,
    through a small head, what a frozen audio encoder hears. ``features`` is a folder that a task
    "features" made of the same latents; ``weight`` beside the losses of the velocities."""

    features: str
    layer: int = Field(4, ge=1)
    weight: float = Field(0.5, gt=0, allow_inf_nan=False)
