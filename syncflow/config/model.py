"""The towers, how a model samples, and a whole model: config.json of its folder."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, StrictBool, create_model, field_validator, model_validator

from syncflow import sampling
from syncflow.clip import AUDIO_HOP, FPS, SAMPLE_RATE, SECONDS, ClipSpec
from syncflow.config.encoders import (
    AudioVAEConfig,
    BytesTextConfig,
    EncodecVAEConfig,
    OpenSoraVAEConfig,
    T5TextConfig,
    TextEncoderConfig,
    VideoVAEConfig,
)
from syncflow.config.schema import Config
from syncflow.config.units import (
    Channels,
    Count,
    CountOrNone,
    Deviation,
    FramesPerSecond,
    Heads,
    Hertz,
    Latent,
    Layers,
    Patch,
    Pixels,
    Ratio,
    Seconds,
    Tokens,
    TurnsPerSecond,
)
from syncflow.ranges import Real, Whole

#: Of model folders; goes up when older versions could not read, or would misread, a new one.
FORMAT = 1


def _check_heads(hidden_size: int, num_heads: int) -> None:
    if hidden_size % num_heads:
        raise ValueError(
            f"hidden_size {hidden_size} is not divisible by num_heads {num_heads} "
            "(the paper's 1142 is a misprint of 1152 = 16 x 72)"
        )
    if hidden_size // num_heads % 2:
        raise ValueError(
            f"head dim {hidden_size // num_heads} is odd; rotary positions rotate pairs"
        )


class VideoTowerConfig(Config):
    """STDiT3 of Open-Sora v1.2; the defaults are XL/2 (paper section 3.2).

    ``compat``: "opensora-1.2" gives the original's output for clean frames, defect included.
    """

    hidden_size: Channels = 1152
    depth: Layers = 28
    num_heads: Heads = 16
    in_channels: Channels = 4
    patch_size: tuple[Patch, Patch, Patch] = (1, 2, 2)
    mlp_ratio: Ratio = 4.0
    caption_channels: Channels = 4096
    model_max_length: Tokens = 300
    qk_norm: StrictBool = True
    pred_sigma: StrictBool = True
    input_sq_size: Pixels = 512
    compat: Literal["opensora-1.2"] | None = None

    @model_validator(mode="after")
    def _check(self) -> VideoTowerConfig:
        _check_heads(self.hidden_size, self.num_heads)
        if self.hidden_size % 4:
            raise ValueError(
                f"hidden_size {self.hidden_size} must be divisible by 4 (2-D positions)"
            )
        return self


class AdaptorConfig(Config):
    """Modality adaptor of every layer (paper section 3.2, figure 2).

    ``axis``: "full" attends over T*S tokens (the literal reading), "temporal" over T after pooling
    space, "none" is the ablation without an adaptor.
    """

    axis: Literal["full", "temporal", "none"] = "full"
    num_heads: Heads = 16


class AudioTowerConfig(Config):
    """Audio tower beside the video tower, the same depth (paper section 3.2).

    ``condition``: "video" is the paper's, "text" its text-to-audio ablation, "both" adds the text.
    ``align``: "rope" gives audio queries and video keys one clock in seconds, whose fastest pair
    turns ``rope_frequency`` times a second. ``upsampler_patches``: 0, or the number S of patches of
    a frame, which adds a learned upsampling of the first video features to the audio's rate.
    """

    hidden_size: Channels = 1152
    num_heads: Heads = 16
    in_channels: Channels = 128
    mlp_ratio: Ratio = 4.0
    condition: Literal["video", "text", "both"] = "video"
    align: Literal["rope", "none"] = "rope"
    rope_frequency: TurnsPerSecond = 8.0
    rope_theta: Annotated[float, Real(1, 1e9)] = 1000.0
    norm_init: Annotated[float, Real(0, 1000)] = 1.0
    upsampler_patches: CountOrNone = 0
    upsampler_width: Channels = 256

    @model_validator(mode="after")
    def _check(self) -> AudioTowerConfig:
        _check_heads(self.hidden_size, self.num_heads)
        return self


class DDiTConfig(Config):
    """The dual diffusion transformer.

    ``event_bins``: in how many parts a latent frame is told when things touch, where that is said
    (``EventEmbedder``); 0 is the paper's model, which is told nothing of it.
    """

    video: VideoTowerConfig = VideoTowerConfig()
    adaptor: AdaptorConfig = AdaptorConfig()
    audio: AudioTowerConfig = AudioTowerConfig()
    event_bins: Annotated[int, Whole(0, 1024, "bins")] = 0

    @model_validator(mode="after")
    def _check(self) -> DDiTConfig:
        if self.video.patch_size[0] != 1:
            raise ValueError(
                f"video.patch_size {list(self.video.patch_size)} joins latent frames; the audio "
                "tower takes its times from single ones, so the first number must be 1"
            )
        return self


def _sampling_field(option: sampling.Option) -> tuple[object, object]:
    """Type and field of pydantic's for an option of sampling."""
    kind: Any = Literal[option.choices] if option.choices else None
    kind = kind or Annotated[option.kind, option.range]
    field = Field(option.default, description=option.help)
    return (kind | None if option.default is None else kind), field


if TYPE_CHECKING:

    class _Sampling(Config):
        def __getattr__(self, name: str) -> Any: ...

else:
    _Sampling = create_model(
        "_Sampling",
        __base__=Config,
        **{name: _sampling_field(option) for name, option in sampling.OPTIONS.items()},
    )


class SamplingConfig(_Sampling):
    """Sampling defaults of a model folder: the options of ``sampling.OPTIONS``, whose defaults are
    the paper's (section 4), and what cannot be asked for by the call.

    ``null_caption``: what guidance leads away from, all of the learned null caption ("full"), or as
    many of its tokens as the prompt has ("prompt": Open-Sora's way, and what a model needs whose
    captions were dropped so in training).
    """

    null_caption: Literal["full", "prompt"] = "full"


class GeometryConfig(Config):
    """Geometry of the clips that a model was trained on."""

    seconds: Seconds = SECONDS
    fps: FramesPerSecond = FPS
    height: Pixels = ClipSpec.height
    width: Pixels = ClipSpec.width
    sample_rate: Hertz = SAMPLE_RATE

    @property
    def spec(self) -> ClipSpec:
        return ClipSpec(**self.model_dump())


#: Seconds from a clip's start.
Moment = Annotated[float, Real(0, 3600, "s")]
Rhythm = Annotated[list[Moment], Field(min_length=1)]


class VocabularyConfig(Config):
    """What a small model knows of English, for who writes its prompts.

    ``summary``: half a sentence; ``words``: words and phrases, by what they say; ``examples``:
    prompts.
    """

    summary: str
    words: dict[str, list[str]]
    examples: list[str] = Field(min_length=1)


class RhythmsConfig(Config):
    """When things touch in some training clips of one sort, of which captions have one of ``words``
    and say at least ``counts`` numbers of contacts ("once and twice" are two)."""

    words: list[str] = []
    counts: Count = 1
    times: list[Rhythm] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> RhythmsConfig:
        if not self.words and self.counts < 2:
            raise ValueError("rhythms_of must say of which captions: words, or counts of 2 or more")
        return self


class ModelConfig(Config):
    """config.json of a model folder: everything that ``syncflow.load`` needs beside the weights.

    ``given_frames``: how the video tower sees latent frames of a clip that goes on or is drawn anew
    in part, with a time of their own ("clean", for towers trained with frame masks) or as noisy as
    the rest ("noised"). ``format``: of the folder; a folder without one is of the first.
    ``vocabulary``: None = English at large. ``rhythms``: when things touch in some training clips,
    seconds from their start; one of them is asked of a clip for which nobody says when
    (``generation.events.planned``). None: the video tower decides by itself. ``rhythms_of``: in
    place of those for captions of one sort, the first that fits.
    """

    format: Count = FORMAT
    name: str = "syncflow-xl"
    geometry: GeometryConfig = GeometryConfig()
    ddit: DDiTConfig = DDiTConfig()
    video_vae: VideoVAEConfig = OpenSoraVAEConfig()
    audio_vae: AudioVAEConfig = EncodecVAEConfig()
    text_encoder: TextEncoderConfig = T5TextConfig()
    sampling: SamplingConfig = SamplingConfig()
    given_frames: Literal["clean", "noised"] = "clean"
    vocabulary: VocabularyConfig | None = None
    rhythms: list[Rhythm] | None = None
    rhythms_of: list[RhythmsConfig] | None = None
    latent_mean_video: list[Latent] | None = None
    latent_std_video: list[Deviation] | None = None
    latent_mean_audio: list[Latent] | None = None
    latent_std_audio: list[Deviation] | None = None

    @field_validator("format")
    @classmethod
    def _known(cls, number: int) -> int:
        if number != FORMAT:
            raise ValueError(
                f"a model folder of format {number}, and this syncflow reads {FORMAT}: "
                "install a version that knows it"
            )
        return number

    @model_validator(mode="after")
    def _check(self) -> ModelConfig:
        """The parts must fit each other: what does not would only show as noise or a late error."""
        video, audio = self.ddit.video.in_channels, self.ddit.audio.in_channels
        pairs: list[tuple[str, int, str, Config]] = [
            ("ddit.video.in_channels", video, "video_vae.latent_channels", self.video_vae),
            ("ddit.audio.in_channels", audio, "audio_vae.latent_channels", self.audio_vae),
            (
                "geometry.sample_rate",
                self.geometry.sample_rate,
                "audio_vae.sample_rate",
                self.audio_vae,
            ),
        ]
        if isinstance(self.text_encoder, BytesTextConfig):
            width = self.ddit.video.caption_channels
            pairs.append(
                ("ddit.video.caption_channels", width, "text_encoder.d_model", self.text_encoder)
            )
        for name, ours, other, part in pairs:
            theirs = getattr(part, other.partition(".")[2])
            if ours != theirs:
                raise ValueError(f"{name} {ours} does not fit {other} {theirs}")
        if isinstance(self.audio_vae, EncodecVAEConfig):
            hop = math.prod(self.audio_vae.upsampling_ratios)
            if hop != AUDIO_HOP:
                raise ValueError(
                    f"audio_vae.upsampling_ratios have the product {hop}, but a latent lasts "
                    f"{AUDIO_HOP} samples"
                )
        if (self.rhythms or self.rhythms_of) and not self.ddit.event_bins:
            raise ValueError("rhythms are asked times, and ddit.event_bins is 0: it takes none")
        for kind, channels in (("video", video), ("audio", audio)):
            for statistic in ("mean", "std"):
                values = getattr(self, f"latent_{statistic}_{kind}")
                if values is not None and len(values) != channels:
                    name = f"latent_{statistic}_{kind}"
                    raise ValueError(f"{name} has {len(values)} values for {channels} channels")
        return self
