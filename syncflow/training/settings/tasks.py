"""Schemas of the training configs (configs/**/*.json): what to train, on what, how long."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from syncflow.clip import FPS
from syncflow.config import (
    AudioVAEConfig,
    BytesTextConfig,
    Config,
    DDiTConfig,
    EncodecVAEConfig,
    SamplingConfig,
    VideoVAEConfig,
)
from syncflow.training.settings.loop import LoopConfig
from syncflow.training.settings.losses import AdversarialConfig, AlignmentConfig, PerceptualConfig


class TextTask(Config):
    """Pre-trains the byte-level text encoder to name what a caption says."""

    task: Literal["text"]
    out: str
    model: BytesTextConfig
    levels: list[int]
    loop: LoopConfig


class VAETask(Config):
    """What both VAEs' training has.

    ``data`` and ``validation`` are folders of impacts shards, or of any recordings. ``init`` starts
    from another run's weights; ``freeze_encoder`` trains the decoder alone, on latents with
    ``latent_noise`` (in standard deviations) added, as a sampler's latents have. Every
    ``samples_every`` steps (0: never) a few reconstructions are written, originals beside them.
    """

    out: str
    data: str
    validation: str
    init: str | None = None
    freeze_encoder: bool = False
    latent_noise: float = 0.0
    adversarial: AdversarialConfig | None = None
    samples_every: int = Field(0, ge=0)
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
    seconds: float = 1.0
    kl_weight: float = 1e-4
    reconstruction: Literal["spectral", "mel"] = "spectral"
    band_weight: float = 0.0
    wave_weight: float = 0.3
    windows: list[Annotated[int, Field(ge=16)]] = Field([2048, 1024, 512, 256, 128], min_length=1)
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

    ``reconstruction`` "moving" weighs moving pixels ``moving_weight`` more, for the small VAE; "l1"
    is the plain distance. ``perceptual`` adds LPIPS of every frame. ``fps``, ``height`` and
    ``width`` are for folders of recordings; shards have their own.
    """

    task: Literal["video_vae"]
    model: VideoVAEConfig
    frames: int = 16
    kl_weight: float = 3e-4
    reconstruction: Literal["moving", "l1"] = "moving"
    moving_weight: float = 8.0
    perceptual: PerceptualConfig | None = None
    fps: float = Field(FPS, gt=0, le=1000, allow_inf_nan=False)
    height: int = Field(256, gt=0, multiple_of=16)
    width: int = Field(256, gt=0, multiple_of=16)


class LatentsTask(Config):
    """Encodes a data set with trained VAEs and text encoder, so that flow training runs neither."""

    task: Literal["latents"]
    out: str
    data: str
    video_vae: str
    audio_vae: str
    text_encoder: str
    batch_size: int = 16


class FeaturesTask(Config):
    """What a frozen audio encoder hears in the clips of a folder of latents, for ``alignment``.

    ``audio_vae`` is a trained run or a model folder, ``encoder`` the folder of a transformers model
    that reads waveforms (wav2vec2, HuBERT, WavLM).
    """

    task: Literal["features"]
    out: str
    latents: str
    audio_vae: str
    encoder: str


class LoraConfig(Config):
    """Low-rank additions to the linear layers of ``towers``; nothing else is trained."""

    rank: int = Field(16, gt=0)
    alpha: float = Field(16.0, gt=0)
    towers: Literal["video", "audio", "both"] = "both"


class SamplesConfig(Config):
    """Clips made now and then from the first captions of the validation set.

    ``video_vae`` and ``audio_vae`` are trained runs or model folders; they are loaded only while a
    clip is made.
    """

    every: int = Field(gt=0)
    video_vae: str
    audio_vae: str
    clips: int = Field(2, gt=0)
    sampling: SamplingConfig = SamplingConfig()


class BucketConfig(Config):
    """One of several folders of latents; its own size and duration. A folder's name alone is one.

    ``weight``: how often its clips come, where 1 is as often as anybody's. ``batch_size``: in place
    of the loop's.
    """

    data: str
    weight: float = Field(1.0, gt=0)
    batch_size: int | None = Field(None, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"data": value} if isinstance(value, str) else value


_Data = Annotated[
    Annotated[str, Tag("folder")]
    | Annotated[list[BucketConfig], Field(min_length=1), Tag("folders")],
    Discriminator(lambda value: "folders" if isinstance(value, list) else "folder"),
]


class FlowTask(Config):
    """One stage of rectified-flow training of the d-DiT (paper section 3.2).

    ``train``: which towers learn ("video", "audio" with the adaptors, or both; the paper's stages
    1, 2, 3). Picture and sound of a sample have one time, as in the paper, except in two shares of
    the samples: ``clean_video``, where the picture is finished (t_video = 1) and the sound at any
    time, which is what one-pass video-to-audio and the cascade schedule sample from (default: all
    in stage 2, 0.35 in stage 3; 0 is the paper's); and ``decoupled``, where both times are drawn.
    ``conditioned``: share of samples whose first or last frames are given (``frame_mask``), for
    image-to-video and extension. ``clean_noise``: noise added to clean video latents, in standard
    deviations. ``null_caption``: which part of the learned null caption stands in for a dropped one
    (``SamplingConfig``). ``draws``: audio noises per video pass. ``coupling`` pairs noise and data
    within the batch of all processes, each draw by itself; "c2ot" weighs captions so that a
    ``condition_share`` of all pairs stays open to it (``flow.conditional_cost``).

    ``loss_weighting``: the mean errors of both velocities are added ("equal"), or together they are
    the mean over all numbers, as in the paper, where a modality with more of them counts for more.

    ``time_kind``, ``time_mean``, ``time_std`` and ``time_shift`` say where training times fall
    (``flow.sample_times``): "uniform" is the paper's; a mean below 0 or a shift above 1 moves
    logit-normal times towards noise. ``uniform_share`` of logit-normal times are uniform all the
    same. ``init``: a finished run, a checkpoint or a model folder to start from; ``init_video``:
    the video tower alone from there, and the statistics that its latents had. ``statistics``: all
    other latents are normalised by those of the data, or by those that ``init`` was trained with,
    which is right where its weights are to be kept.
    ``data`` and ``validation`` may be lists of folders, each of one size and duration; with
    ``alignment`` there is one.
    """

    task: Literal["flow"]
    out: str
    data: _Data
    validation: str | list[str] = Field(min_length=1)
    model: DDiTConfig
    init: str | None = None
    init_video: str | None = None
    train: Literal["video", "audio", "both"]
    text_dropout: float = Field(0.1, ge=0, le=1)
    time_kind: Literal["uniform", "logit_normal"] = "logit_normal"
    time_mean: float = 0.0
    time_std: float = Field(1.0, gt=0)
    time_shift: float = Field(1.0, gt=0)
    uniform_share: float = Field(0.2, ge=0, le=1)
    clean_video: float | None = Field(None, ge=0, le=1)
    clean_noise: float = Field(0.05, ge=0)
    null_caption: Literal["full", "prompt"] = "prompt"
    decoupled: float = Field(0.0, ge=0, le=1)
    conditioned: float = Field(0.0, ge=0, le=1)
    draws: int = Field(1, gt=0)
    coupling: Literal["none", "ot", "c2ot"] = "none"
    condition_share: float = Field(0.02, gt=0, le=1)
    loss_weighting: Literal["paper", "equal"] = "equal"
    statistics: Literal["data", "init"] = "data"
    lora: LoraConfig | None = None
    alignment: AlignmentConfig | None = None
    samples: SamplesConfig | None = None
    loop: LoopConfig

    @model_validator(mode="after")
    def _check_weighting(self) -> FlowTask:
        if self.loss_weighting == "paper" and self.train != "both":
            raise ValueError(
                f'loss_weighting "paper" is between two modalities, and train {self.train!r} has '
                'one; leave it out, or train "both"'
            )
        return self

    @model_validator(mode="after")
    def _check_alignment(self) -> FlowTask:
        if self.alignment and self.train == "video":
            raise ValueError('alignment is of an audio layer, and train is "video"; leave it out')
        if self.alignment and not isinstance(self.data, str):
            raise ValueError("alignment needs data to be one folder, whose features there are")
        if self.alignment and self.lora:
            raise ValueError("alignment trains a head, and lora its matrices alone; choose one")
        return self

    @property
    def clean_share(self) -> float:
        """Share of the samples with a finished picture."""
        if self.train == "video":
            return 0.0
        if self.clean_video is not None:
            return self.clean_video
        return 1.0 if self.train == "audio" else 0.35


class RenderTask(Config):
    """Renders impacts clips into shards."""

    task: Literal["render"]
    out: str
    clips: int
    seed: int = 0
    level: int = 1
    split: Literal["train", "val", "test"] = "train"
    height: int = 64
    width: int = 64


class ExportTask(Config):
    """Puts trained parts together into a model folder that ``syncflow.load`` reads."""

    task: Literal["export"]
    out: str
    name: str
    latents: str
    video_vae: str
    audio_vae: str
    text_encoder: str
    ddit: str
    sampling: SamplingConfig
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"


class RecipeTask(Config):
    """Runs other configs in order; what is finished is skipped, what was cut off resumes."""

    task: Literal["recipe"]
    steps: list[str]


#: The tasks that train a module.
TrainedTask = TextTask | AudioVAETask | VideoVAETask | FlowTask
AnyTask = Annotated[
    TextTask
    | AudioVAETask
    | VideoVAETask
    | LatentsTask
    | FeaturesTask
    | FlowTask
    | RenderTask
    | ExportTask
    | RecipeTask,
    Field(discriminator="task"),
]


class TrainConfig(Config):
    """Any training config, told apart by its ``task``."""

    run: AnyTask
