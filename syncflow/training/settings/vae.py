"""Schemas of the training of the VAEs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictBool, model_validator

from syncflow.clip import FPS
from syncflow.config import AudioVAEConfig, Config, EncodecVAEConfig, VideoVAEConfig
from syncflow.config.units import (
    Every,
    Frames,
    FramesPerSecond,
    Pixels,
    Seconds,
    Weight,
    multiple_of,
)
from syncflow.ranges import Real, Whole
from syncflow.training.settings.folders import FolderConfig, OneOrSeveral
from syncflow.training.settings.loop import LoopConfig
from syncflow.training.settings.losses import AdversarialConfig, PerceptualConfig

_Window = Annotated[int, Whole(16, 1_048_576, "samples")]
_Side = Annotated[Pixels, multiple_of(16)]


class ClipsConfig(FolderConfig):
    """One of several folders of clips.

    ``share``: of the samples, relative to the other folders'. ``kinds``: how much more often clips
    of a kind of event come, {"strike": 3}; 1 where nothing is said. ``made``: latents of these
    clips as a sampler makes them (``MadeLatentsTask``), which the decoder of pictures sees in place
    of the encoder's.
    """

    share: Annotated[float, Real(0, 1e6, above=True)] = 1.0
    kinds: dict[str, Weight] = {}
    made: str | None = None


class VAETask(Config):
    """What both VAEs' training has.

    ``data`` and ``validation`` are folders of impacts shards, or of any recordings; ``data`` may be
    several folders of shards, whose clips are then drawn by their shares. ``init`` starts from
    another run's weights; ``freeze_encoder`` trains the decoder alone, on latents with
    ``latent_noise`` (in standard deviations) added, as a sampler's latents have. Every
    ``samples_every`` steps (0: never) a few reconstructions are written, originals beside them.
    """

    out: str
    data: OneOrSeveral[ClipsConfig]
    validation: str
    init: str | None = None
    freeze_encoder: StrictBool = False
    latent_noise: Annotated[float, Real(0, 100, "standard deviations")] = 0.0
    kl_weight: Weight
    adversarial: AdversarialConfig | None = None
    samples_every: Every = 0
    loop: LoopConfig


class AudioVAETask(VAETask):
    """Trains the audio VAE on crops of ``seconds``.

    ``reconstruction`` "spectral" compares magnitudes and weighs them, for the small VAE;
    ``band_weight`` then adds the energy of frequency bands. "mel" is Encodec's: mel spectra at
    several scales. ``wave_weight`` weighs the waveform itself (with "spectral" relative to its
    size), whose phases an encoder of magnitudes cannot know: where it counts much, the sound comes
    out too quiet. ``windows``: samples of the discriminator's spectra. ``init_encodec``: a file,
    folder or hub id of a published Encodec, whose encoder and decoder it starts from.
    """

    task: Literal["audio_vae"]
    model: AudioVAEConfig
    seconds: Seconds = 1.0
    kl_weight: Weight = 1e-4
    reconstruction: Literal["spectral", "mel"] = "spectral"
    band_weight: Weight = 0.0
    wave_weight: Weight = 0.3
    level_weight: Weight = 0.0
    windows: list[_Window] = Field([2048, 1024, 512, 256, 128], min_length=1)
    init_encodec: str | None = None

    @model_validator(mode="after")
    def _check_start_and_crops(self) -> AudioVAETask:
        if self.init_encodec and self.init:
            raise ValueError("init and init_encodec both say what to start from; leave one out")
        if self.init_encodec and not isinstance(self.model, EncodecVAEConfig):
            raise ValueError(f'init_encodec is for model.kind "encodec", not {self.model.kind!r}')
        if self.reconstruction == "mel" and self.band_weight:
            raise ValueError('band_weight is of reconstruction "spectral"; "mel" has its own bands')
        samples = self.seconds * self.model.sample_rate
        if self.adversarial and samples < max(self.windows):
            raise ValueError(
                f"windows has {max(self.windows)} samples, and a crop of {self.seconds} s only "
                f"{samples:.0f}; make seconds longer or the windows shorter"
            )
        return self


class VideoVAETask(VAETask):
    """Trains the video VAE on crops of ``frames``.

    A frame whose ``made`` latents are ``made_distance`` (mean square, in squared deviations of the
    latents) from its encoded ones counts half, a nearer one more: what has moved away no longer
    shows the pixels.

    ``reconstruction`` "moving" weighs moving pixels ``moving_weight`` more, for the small VAE; "l1"
    is the plain distance. ``perceptual`` adds LPIPS of every frame. ``fps``, ``height`` and
    ``width`` are for folders of recordings; shards have their own.
    """

    task: Literal["video_vae"]
    made_distance: Annotated[float, Real(0, 1e6, above=True)] = 0.05
    model: VideoVAEConfig
    frames: Frames = 16
    kl_weight: Weight = 3e-4
    reconstruction: Literal["moving", "l1"] = "moving"
    moving_weight: Weight = 8.0
    perceptual: PerceptualConfig | None = None
    fps: FramesPerSecond = FPS
    height: _Side = 256
    width: _Side = 256
