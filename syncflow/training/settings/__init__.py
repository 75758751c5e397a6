"""Schemas of the training configs (configs/**/*.json): what to train, on what, how long."""

from syncflow.training.settings.export import BlendConfig, ExportTask, RhythmsTask
from syncflow.training.settings.loop import LoopConfig
from syncflow.training.settings.losses import (
    AdversarialConfig,
    AlignmentConfig,
    DistillationConfig,
    PerceptualConfig,
)
from syncflow.training.settings.tasks import (
    AnyTask,
    BucketConfig,
    FeaturesTask,
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
)
from syncflow.training.settings.vae import AudioVAETask, ClipsConfig, VAETask, VideoVAETask

__all__ = [
    "AdversarialConfig",
    "AlignmentConfig",
    "AnyTask",
    "AudioVAETask",
    "BlendConfig",
    "BucketConfig",
    "ClipsConfig",
    "DistillationConfig",
    "ExportTask",
    "FeaturesTask",
    "FlowTask",
    "LatentsTask",
    "LoopConfig",
    "LoraConfig",
    "MadeLatentsTask",
    "PerceptualConfig",
    "RecipeTask",
    "RenderTask",
    "RhythmsTask",
    "SamplesConfig",
    "TextTask",
    "TrainConfig",
    "TrainedTask",
    "VAETask",
    "VideoVAETask",
]
