"""Schemas of the training configs (configs/**/*.json): what to train, on what, how long."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from syncflow.config import (
    AudioVAEConfig,
    Config,
    DDiTConfig,
    SamplingConfig,
    TextEncoderConfig,
    VideoVAEConfig,
)


class LoopConfig(Config):
    """The loop that every task shares.

    The learning rate warms up over ``warmup`` steps, stays, and falls to zero over the last
    ``decay`` share. ``optimizer`` "muon" trains the matrices inside the network with Muon and the
    rest with AdamW. ``ema`` 0 keeps no average.
    """

    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    lr: float = 1e-3
    warmup: int = 50
    decay: float = Field(0.4, ge=0, le=1)
    weight_decay: float = 0.01
    clip: float = 1.0
    optimizer: Literal["adamw", "muon"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.98)
    ema: float = 0.998
    precision: Literal["bf16", "fp32"] = "bf16"
    accumulate: int = Field(1, gt=0)
    seed: int = 0
    threads: int | None = None
    checkpoint_minutes: float = 2.0
    log_every: int = 20
    validate_every: int = 500
    max_nonfinite: int = 20


class TextTask(Config):
    """Pre-trains the byte-level text encoder to name what a caption says."""

    task: Literal["text"]
    out: str
    model: TextEncoderConfig
    levels: list[int]
    loop: LoopConfig


class AudioVAETask(Config):
    """Trains the audio VAE on crops of ``seconds``.

    ``band_weight`` weighs the energy of frequency bands, ``wave_weight`` the waveform itself, whose
    phases an encoder of magnitudes cannot know: where it counts much, the sound comes out too
    quiet. ``init``, ``freeze_encoder`` and
    ``latent_noise`` are as in ``VideoVAETask``.
    """

    task: Literal["audio_vae"]
    out: str
    data: str
    validation: str
    model: AudioVAEConfig
    seconds: float = 1.0
    kl_weight: float = 1e-4
    band_weight: float = 0.0
    wave_weight: float = 0.3
    init: str | None = None
    freeze_encoder: bool = False
    latent_noise: float = 0.0
    loop: LoopConfig


class VideoVAETask(Config):
    """Trains the video VAE on crops of ``frames``.

    ``moving_weight`` is how much more a moving pixel counts. ``init`` starts from another run's
    weights; ``freeze_encoder`` trains the decoder alone, on latents with ``latent_noise`` (in
    standard deviations) added, as a sampler's latents have.
    """

    task: Literal["video_vae"]
    out: str
    data: str
    validation: str
    model: VideoVAEConfig
    frames: int = 16
    kl_weight: float = 3e-4
    moving_weight: float = 8.0
    init: str | None = None
    freeze_encoder: bool = False
    latent_noise: float = 0.0
    loop: LoopConfig


class LatentsTask(Config):
    """Encodes a data set with trained VAEs and text encoder, so that flow training runs neither."""

    task: Literal["latents"]
    out: str
    data: str
    video_vae: str
    audio_vae: str
    text_encoder: str
    batch_size: int = 16


class FlowTask(Config):
    """One stage of rectified-flow training of the d-DiT (paper section 3.2).

    ``train``: which towers learn ("video", "audio" with the adaptors, or both; the paper's stages
    1, 2, 3). ``clean_video``: share of samples whose audio is trained on clean video (t_video = 1)
    where both towers learn; where only the audio does, all are. ``clean_noise``: noise added to
    clean video latents, in standard deviations. ``draws``: audio noises per video pass.
    ``coupling`` pairs noise and data within the batch. ``time_kind``, ``time_mean``, ``time_std``
    and ``time_shift`` say where training times fall (``flow.sample_times``): "uniform" is the
    paper's; a mean below 0 or a shift above 1 moves logit-normal times towards noise.
    ``uniform_share`` of logit-normal times are uniform all the same.
    """

    task: Literal["flow"]
    out: str
    data: str
    validation: str
    model: DDiTConfig
    init: str | None = None
    train: Literal["video", "audio", "both"]
    text_dropout: float = Field(0.1, ge=0, le=1)
    time_kind: Literal["uniform", "logit_normal"] = "logit_normal"
    time_mean: float = 0.0
    time_std: float = Field(1.0, gt=0)
    time_shift: float = Field(1.0, gt=0)
    uniform_share: float = Field(0.2, ge=0, le=1)
    clean_video: float = 0.35
    clean_noise: float = 0.05
    draws: int = Field(1, gt=0)
    coupling: Literal["none", "ot", "c2ot"] = "none"
    loop: LoopConfig


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


AnyTask = Annotated[
    TextTask | AudioVAETask | VideoVAETask | LatentsTask | FlowTask | RenderTask | ExportTask
    | RecipeTask,
    Field(discriminator="task"),
]


class TrainConfig(Config):
    """Any training config, told apart by its ``task``."""

    run: AnyTask
