"""Schemas of the training configs (configs/**/*.json): what to train, on what, how long."""

from syncflow.training.settings.loop import LoopConfig
from syncflow.training.settings.tasks import (
    AnyTask,
    AudioVAETask,
    BucketConfig,
    ClipsConfig,
    ExportTask,
    FlowTask,
    LatentsTask,
    LoraConfig,
    MadeLatentsTask,
    RecipeTask,
    RenderTask,
    SamplesConfig,
    TextTask,
    TrainConfig,
    TrainedTask,
    VAETask,
    VideoVAETask,
)

__all__ = [
    "AnyTask",
    "AudioVAETask",
    "BucketConfig",
    "ClipsConfig",
    "ExportTask",
    "FlowTask",
    "LatentsTask",
    "LoopConfig",
    "LoraConfig",
    "MadeLatentsTask",
    "RecipeTask",
    "RenderTask",
    "SamplesConfig",
    "TextTask",
    "TrainConfig",
    "TrainedTask",
    "VAETask",
    "VideoVAETask",
]
