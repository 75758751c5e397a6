"""VAEs and text encoders: one schema for each kind, told apart by ``kind``.

Where ``kind`` is left out the first of a family is meant: the paper's. A number that belongs to
another kind is refused, unless it is that kind's default: configs were once written with all.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field, StrictBool, Tag, model_validator

from syncflow.clip import SAMPLE_RATE
from syncflow.config.schema import Config
from syncflow.config.units import (
    Channels,
    Count,
    CountOrNone,
    Deviation,
    Groups,
    Heads,
    Hertz,
    Latent,
    Layers,
    Multiplier,
    Tokens,
)


class _Kind(Config):
    """One kind of a family; ``_others`` are the rest of it, ``_idle`` keys that were once stated
    for this kind too and did nothing."""

    _others: ClassVar[tuple[type[Config], ...]] = ()
    _idle: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _leave_out_defaults_of_others(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        foreign: dict[str, list[object]] = {}
        for other in cls._others:
            for name, field in other.model_fields.items():
                default = field.get_default(call_default_factory=True)
                plain = default.model_dump() if isinstance(default, Config) else default
                foreign.setdefault(name, []).append(plain)
        return {
            name: value
            for name, value in data.items()
            if name in cls.model_fields
            or (name not in cls._idle and value not in foreign.get(name, []))
        }


class SpatialVAEConfig(Config):
    """Of diffusers' ``AutoencoderKL``, which sees single frames; the released model's."""

    block_out_channels: list[Channels] = Field([128, 256, 512, 512], min_length=1, max_length=16)
    layers_per_block: Layers = 2
    norm_num_groups: Groups = 32
    latent_channels: Channels = 4
    scaling_factor: Deviation = 0.18215


class TemporalVAEConfig(Config):
    """Of the causal VAE over the frames' latents (``models/temporal_vae``); the released one's."""

    filters: Channels = 128
    num_res_blocks: Layers = 4
    channel_multipliers: list[Multiplier] = Field([1, 2, 2, 4], min_length=1, max_length=16)
    temporal_downsample: list[StrictBool] = Field([False, True, True], max_length=16)
    num_groups: Groups = 32
    latent_embed_dim: Channels = 4
    embed_dim: Channels = 4


class OpenSoraVAEConfig(_Kind):
    """Per-frame AutoencoderKL and causal temporal VAE, in the layout of OpenSora-VAE-v1.2."""

    kind: Literal["opensora"] = "opensora"
    latent_channels: Channels = 4
    spatial: SpatialVAEConfig = SpatialVAEConfig()
    temporal: TemporalVAEConfig = TemporalVAEConfig()
    shift: list[Latent] = [-0.10, 0.34, 0.27, 0.98]
    scale: list[Deviation] = [3.85, 2.32, 2.33, 3.06]

    @model_validator(mode="after")
    def _check(self) -> OpenSoraVAEConfig:
        if self.latent_channels != self.temporal.embed_dim:
            raise ValueError(
                f"latent_channels {self.latent_channels} is not temporal.embed_dim "
                f"{self.temporal.embed_dim}"
            )
        return self


class PatchVAEConfig(_Kind):
    """The small video VAE that trains on two CPU cores; ``width`` channels at half the stride,
    ``depth`` residual blocks."""

    kind: Literal["patch"] = "patch"
    latent_channels: Channels = 4
    width: Channels = 64
    depth: Layers = 2


class EncodecVAEConfig(_Kind):
    """Encodec's encoder and decoder without the quantizer, with a KL term. ``sample_rate`` Hz; a
    latent lasts as many samples as the product of ``upsampling_ratios``."""

    kind: Literal["encodec"] = "encodec"
    sample_rate: Hertz = SAMPLE_RATE
    latent_channels: Channels = 128
    num_filters: Channels = 32
    upsampling_ratios: list[Multiplier] = Field([8, 6, 5, 4], min_length=1, max_length=16)
    num_residual_layers: Layers = 1
    num_lstm_layers: CountOrNone = 2
    norm: Literal["weight_norm", "time_group_norm"] = "weight_norm"
    causal: StrictBool = False


class SpectralVAEConfig(_Kind):
    """Fixed spectral analysis and synthesis around a small learned core; ``sample_rate`` Hz."""

    kind: Literal["spectral"] = "spectral"
    sample_rate: Hertz = SAMPLE_RATE
    latent_channels: Channels = 128
    width: Channels = 384
    depth: Layers = 4
    oscillators: Count = 192


class _T5Sizes(_Kind):
    """``max_length``: tokens that T5 reads (sub-words or bytes). The rest as T5 names it."""

    max_length: Tokens = 300
    d_model: Channels = 4096
    d_kv: Channels = 64
    d_ff: Channels = 10240
    num_layers: Layers = 24
    num_heads: Heads = 64


class T5TextConfig(_T5Sizes):
    """A T5 encoder by folder or hub id, ``revision`` being the hub's. ``precision``: of its weights
    in memory; "int8" keeps those of its linear layers in 8 bits. ``clean_caption``: as Open-Sora
    does."""

    kind: Literal["t5"] = "t5"
    name_or_path: str = "DeepFloyd/t5-v1_1-xxl"
    revision: str | None = None
    precision: Literal["float32", "bfloat16", "int8"] = "bfloat16"
    clean_caption: StrictBool = True


class BytesTextConfig(_T5Sizes):
    """A byte-level T5 described here, needing no vocabulary file; ``pool`` "word" averages the
    bytes of each word, ``casefold`` reads them without regard to upper and lower case. In the first
    ``word_layers`` layers bytes attend to those of their own word alone, so that a word is known
    before its company is."""

    _idle: ClassVar[frozenset[str]] = frozenset({"clean_caption"})

    kind: Literal["bytes"] = "bytes"
    pool: Literal["none", "word"] = "none"
    casefold: StrictBool = False
    word_layers: CountOrNone = 0

    @model_validator(mode="after")
    def _check_word_layers(self) -> BytesTextConfig:
        if self.word_layers > self.num_layers:
            raise ValueError(
                f"word_layers is {self.word_layers}, but there are {self.num_layers} layers"
            )
        return self


OpenSoraVAEConfig._others = (PatchVAEConfig,)
PatchVAEConfig._others = (OpenSoraVAEConfig,)
EncodecVAEConfig._others = (SpectralVAEConfig,)
SpectralVAEConfig._others = (EncodecVAEConfig,)
T5TextConfig._others = (BytesTextConfig,)
BytesTextConfig._others = (T5TextConfig,)


def _told_by_kind(default: str) -> Discriminator:
    def kind(value: object) -> Hashable:
        if isinstance(value, dict):
            return value.get("kind", default)
        return getattr(value, "kind", default)  # what is no object at all is told by the schema

    return Discriminator(kind)


VideoVAEConfig = Annotated[
    Annotated[OpenSoraVAEConfig, Tag("opensora")] | Annotated[PatchVAEConfig, Tag("patch")],
    _told_by_kind("opensora"),
]
AudioVAEConfig = Annotated[
    Annotated[EncodecVAEConfig, Tag("encodec")] | Annotated[SpectralVAEConfig, Tag("spectral")],
    _told_by_kind("encodec"),
]
TextEncoderConfig = Annotated[
    Annotated[T5TextConfig, Tag("t5")] | Annotated[BytesTextConfig, Tag("bytes")],
    _told_by_kind("t5"),
]
