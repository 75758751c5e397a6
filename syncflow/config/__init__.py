"""Strict schemas of every config file: an unknown key is an error naming the nearest right one."""

from syncflow.config.encoders import (
    AudioVAEConfig,
    BytesTextConfig,
    EncodecVAEConfig,
    OpenSoraVAEConfig,
    PatchVAEConfig,
    SpatialVAEConfig,
    SpectralVAEConfig,
    T5TextConfig,
    TemporalVAEConfig,
    TextEncoderConfig,
    VideoVAEConfig,
)
from syncflow.config.model import (
    FORMAT,
    AdaptorConfig,
    AudioTowerConfig,
    DDiTConfig,
    GeometryConfig,
    ModelConfig,
    RhythmsConfig,
    SamplingConfig,
    VideoTowerConfig,
    VocabularyConfig,
)
from syncflow.config.paths import SHIPPED, find, find_config
from syncflow.config.schema import Config

__all__ = [
    "AdaptorConfig",
    "AudioTowerConfig",
    "AudioVAEConfig",
    "BytesTextConfig",
    "Config",
    "DDiTConfig",
    "EncodecVAEConfig",
    "FORMAT",
    "GeometryConfig",
    "ModelConfig",
    "OpenSoraVAEConfig",
    "PatchVAEConfig",
    "SHIPPED",
    "RhythmsConfig",
    "SamplingConfig",
    "SpatialVAEConfig",
    "SpectralVAEConfig",
    "T5TextConfig",
    "TemporalVAEConfig",
    "TextEncoderConfig",
    "VideoTowerConfig",
    "VideoVAEConfig",
    "VocabularyConfig",
    "find",
    "find_config",
]
