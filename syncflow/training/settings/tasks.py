"""Schemas of the training configs (configs/**/*.json): what to train, on what, how long."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from syncflow.config import BytesTextConfig, Config, DDiTConfig, SamplingConfig
from syncflow.config.units import Batch, Between, Clips, Every, Pixels, Seconds, Seed, Share
from syncflow.impacts import LEVELS
from syncflow.ranges import Real, Whole
from syncflow.training.settings.export import ExportTask
from syncflow.training.settings.folders import FolderConfig, OneOrSeveral
from syncflow.training.settings.loop import LoopConfig
from syncflow.training.settings.losses import AlignmentConfig, DistillationConfig
from syncflow.training.settings.vae import AudioVAETask, VideoVAETask

Level = Annotated[int, Whole(min(LEVELS), max(LEVELS))]


class TextTask(Config):
    """Pre-trains the byte-level text encoder to name what a caption says.

    ``unknown_words``: share of the training captions in which made-up words stand for some, so that
    no attribute is read by the company of another (syncflow.impacts.unknown_words).
    """

    task: Literal["text"]
    out: str
    model: BytesTextConfig
    levels: list[Level] = Field(min_length=1)
    unknown_words: Share = 0.0
    loop: LoopConfig


class LatentsTask(Config):
    """Encodes a data set with trained VAEs and text encoder, so that flow training runs neither.

    ``unknown_words``: share of the captions in which made-up words stand for some, as in
    ``TextTask``: the model then sees each attribute without the others' words too.
    """

    task: Literal["latents"]
    out: str
    data: str
    video_vae: str
    audio_vae: str
    text_encoder: str
    unknown_words: Share = 0.0
    batch_size: Batch = 16


class MadeLatentsTask(Config):
    """Latents of clips as a model's tower makes them, for the video decoder to train on.

    The latents of the first ``clips`` of ``data`` (None = all) are noised to a flow time between
    ``start`` and denoised again with the clip's caption, as the model samples: near the clip's own,
    whose pixels are known, and with the faults that a sampler leaves. A batch has one time.
    """

    task: Literal["made_latents"]
    out: str
    data: str
    model: str
    clips: Clips | None = None
    start: tuple[Between, Between] = (0.3, 0.8)
    seed: Seed = 0
    batch_size: Batch = 32

    @model_validator(mode="after")
    def _check_start(self) -> MadeLatentsTask:
        if self.start[0] > self.start[1]:
            raise ValueError(f"start {list(self.start)} must not fall")
        return self


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

    rank: Annotated[int, Whole(1, 65_536)] = 16
    alpha: Annotated[float, Real(0, 1e6, above=True)] = 16.0
    towers: Literal["video", "audio", "both"] = "both"


class SamplesConfig(Config):
    """Clips made now and then from the first captions of the validation set.

    ``every`` steps, 0 = never. ``video_vae`` and ``audio_vae`` are trained runs or model folders;
    they are loaded only while a clip is made.
    """

    every: Every
    video_vae: str
    audio_vae: str
    clips: Annotated[int, Whole(1, 1000, "clips")] = 2
    sampling: SamplingConfig = SamplingConfig()


class BucketConfig(FolderConfig):
    """One of several folders of latents; its own size and duration.

    ``weight``: how often its clips come, where 1 is as often as anybody's. ``batch_size``: in place
    of the loop's.
    """

    weight: Annotated[float, Real(0, 1e6, above=True)] = 1.0
    batch_size: Batch | None = None


class CacheConfig(Config):
    """Copies of latents that lie in an object store: the ``folder`` for them (None: syncflow's
    cache), and how many ``gib`` of them are kept."""

    folder: Annotated[str, Field(min_length=1)] | None = None
    gib: Annotated[float, Real(0, 1e9, "GiB", above=True)] | None = None

    def place(self) -> tuple[Path | None, float | None]:
        """Both, the folder as a path."""
        return (None if self.folder is None else Path(self.folder)), self.gib


class FlowTask(Config):
    """One stage of rectified-flow training of the d-DiT (paper section 3.2).

    ``train``: which towers learn ("video", "audio" with the adaptors, or both; the paper's stages
    1, 2, 3). Picture and sound of a sample have one time, as in the paper, except in two shares of
    the samples: ``clean_video``, where the picture is finished (t_video = 1) and the sound at any
    time, which is what one-pass video-to-audio and the cascade schedule sample from (default: all
    in stage 2, 0.35 in stage 3; 0 is the paper's); and ``decoupled``, where both times are drawn.
    ``events``: share of samples that are told when things touch (``model.event_bins``).
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
    the video tower alone from there, with what tells it of times, and the statistics that its
    latents had. ``statistics``: all other latents are normalised by those of the data, or by
    those that ``init`` was trained with, which is right where its weights are to be kept.
    ``data`` and ``validation`` may be lists of folders, each of one size and duration; with
    ``alignment`` there is one. They may be URLs of an object store, whose shards are copied to
    ``cache``. ``shuffle_shards``: an epoch goes through so many shards at a time and mixes their
    clips; 0 = it mixes all. ``window`` s of every clip, which is longer, are seen, from another
    place every time.
    """

    task: Literal["flow"]
    out: str
    data: OneOrSeveral[BucketConfig]
    validation: str | list[str] = Field(min_length=1)
    model: DDiTConfig
    init: str | None = None
    init_video: str | None = None
    train: Literal["video", "audio", "both"]
    text_dropout: Share = 0.1
    time_kind: Literal["uniform", "logit_normal"] = "logit_normal"
    time_mean: Annotated[float, Real(-100, 100)] = 0.0
    time_std: Annotated[float, Real(0, 100, above=True)] = 1.0
    time_shift: Annotated[float, Real(0, 1000, above=True)] = 1.0
    uniform_share: Share = 0.2
    clean_video: Share | None = None
    clean_noise: Annotated[float, Real(0, 100, "standard deviations")] = 0.05
    null_caption: Literal["full", "prompt"] = "prompt"
    decoupled: Share = 0.0
    conditioned: Share = 0.0
    events: Share = 0.0
    draws: Annotated[int, Whole(1, 1024, "draws")] = 1
    coupling: Literal["none", "ot", "c2ot"] = "none"
    condition_share: Annotated[float, Real(0, 1, above=True)] = 0.02
    loss_weighting: Literal["paper", "equal"] = "equal"
    statistics: Literal["data", "init"] = "data"
    lora: LoraConfig | None = None
    alignment: AlignmentConfig | None = None
    distillation: DistillationConfig | None = None
    samples: SamplesConfig | None = None
    cache: CacheConfig = CacheConfig()
    shuffle_shards: Annotated[int, Whole(0, 1_000_000, "shards")] = 0
    window: Seconds | None = None
    loop: LoopConfig

    @model_validator(mode="after")
    def _check_lora(self) -> FlowTask:
        towers = self.lora.towers if self.lora else self.train
        if self.train != "both" and towers != self.train:
            raise ValueError(
                f"lora.towers is {towers!r}, and train {self.train!r} teaches the {self.train} "
                f"tower alone: set lora.towers to {self.train!r}"
            )
        return self

    @model_validator(mode="after")
    def _check_events(self) -> FlowTask:
        if self.events and self.window:
            raise ValueError(
                "events are times in whole clips, and window takes parts; leave one out"
            )
        if self.events and not self.model.event_bins:
            raise ValueError(
                f"events is {self.events:g}, but model.event_bins is 0: say in how many parts a "
                "latent frame is told of them, such as 8"
            )
        return self

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
        if self.alignment and self.window:
            raise ValueError("alignment has features of whole clips, and window takes parts")
        if self.alignment and self.lora:
            raise ValueError("alignment trains a head, and lora its matrices alone; choose one")
        return self

    @model_validator(mode="after")
    def _check_distillation(self) -> FlowTask:
        if self.distillation is None:
            return self
        if self.train != "video":
            raise ValueError(
                f"distillation teaches the picture alone, and train is {self.train!r}; set it to "
                '"video"'
            )
        if self.distillation.teacher is None and not (self.init or self.init_video):
            raise ValueError("distillation needs a teacher, or weights to start from (init)")
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
    """Renders impacts clips into shards.

    ``materials``: those of the level, or "all": level 1's balls of any material of the world but
    drums, so that training sees a colour on more of them (``impacts.of_any_material``).
    """

    task: Literal["render"]
    out: str
    clips: Clips
    seed: Seed = 0
    level: Level = 1
    split: Literal["train", "val", "test"] = "train"
    materials: Literal["level", "all"] = "level"
    height: Pixels = 64
    width: Pixels = 64


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
    | MadeLatentsTask
    | FeaturesTask
    | FlowTask
    | RenderTask
    | ExportTask
    | RecipeTask,
    Field(discriminator="task"),
]


class TrainConfig(Config):
    """A training config, told apart by its ``task``."""

    run: AnyTask
