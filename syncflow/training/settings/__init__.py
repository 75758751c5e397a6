"""Schemas of the training configs (configs/**/*.json): what to train, on what, how long."""

from syncflow.training.settings.loop import LoopConfig
from syncflow.training.settings.losses import (
    AdversarialConfig,
    AlignmentConfig,
    PerceptualConfig,
)
from syncflow.training.settings.tasks import (
    AnyTask,
    AudioVAETask,
    BucketConfig,
    ExportTask,
    FeaturesTask,
    FlowTask,
    LatentsTask,
    LoraConfig,
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
    "AdversarialConfig",
    "AlignmentConfig",
    "AnyTask",
    "AudioVAETask",
    "BucketConfig",
    "ExportTask",
    "FeaturesTask",
    "FlowTask",
    "LatentsTask",
    "LoopConfig",
    "LoraConfig",
    "PerceptualConfig",
    "RecipeTask",
    "RenderTask",
    "SamplesConfig",
    "TextTask",
    "TrainConfig",
    "TrainedTask",
    "VAETask",
    "VideoVAETask",
]
