"""Trained runs -> modules, and -> the model folder that ``syncflow.load`` reads."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from syncflow import model_folder
from syncflow.config import Config, GeometryConfig, ModelConfig
from syncflow.data.latents import Latents
from syncflow.models.ddit import DDiT
from syncflow.models.text_encoder import TextEncoder
from syncflow.models.vae import build_audio_vae, build_video_vae
from syncflow.training import checkpoint, settings

_BUILDERS = {
    "text": TextEncoder,
    "audio_vae": build_audio_vae,
    "video_vae": build_video_vae,
    "flow": DDiT,
}


def run_config(run: str | Path) -> settings.AnyTask:
    """The config that a finished run was trained with.

    Raises:
        FileNotFoundError: the run is not finished.
    """
    path = Path(run) / checkpoint.FINAL
    if not path.exists():
        raise FileNotFoundError(f"{run} is not finished (no {checkpoint.FINAL}); train it first")
    config = json.loads(checkpoint.metadata(path)["config"])
    return settings.TrainConfig.parse({"run": config}, str(path)).run


def load_part(run: str | Path, part: str = "ddit") -> nn.Module:
    """The trained module of a finished run, or a model folder's ``part``; in evaluation mode."""
    if (Path(run) / model_folder.CONFIG).exists():
        return model_folder.load(Path(run))[1][part]
    config = run_config(run)
    module = _BUILDERS[config.task](config.model)
    weights = checkpoint.load_weights(run)
    if config.task == "text":  # the attribute head was only there to train the encoder
        weights = _below(weights, "encoder.")
    module.load_state_dict(weights)
    return module.eval().requires_grad_(False)


def _part_config(run: str | Path, part: str) -> Config:
    """The config of a run's module, or of a model folder's ``part``."""
    path = Path(run) / model_folder.CONFIG
    if path.exists():
        return getattr(ModelConfig.load(path), part)
    return run_config(run).model


def _below(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def export(config: settings.ExportTask) -> Path:
    """Writes config.json and one safetensors file per part."""
    out = Path(config.out)
    runs = {
        "video_vae": config.video_vae, "audio_vae": config.audio_vae,
        "text_encoder": config.text_encoder, "ddit": config.ddit,
    }
    models: dict[str, Config] = {name: _part_config(run, name) for name, run in runs.items()}
    latents = Latents(config.latents)
    stats = latents.manifest["statistics"]
    model = ModelConfig(
        name=config.name,
        geometry=GeometryConfig(**latents.manifest["geometry"]),
        **models,
        sampling=config.sampling,
        latent_mean_video=stats["video_mean"], latent_std_video=stats["video_std"],
        latent_mean_audio=stats["audio_mean"], latent_std_audio=stats["audio_std"],
    )
    dtype = getattr(torch, config.dtype)
    parts: dict[str, nn.Module | None] = {
        name: load_part(run, name).to(dtype) for name, run in runs.items()
    }
    return model_folder.save(out, model, parts)
