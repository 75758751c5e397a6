"""Runs what a training config asks for."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch

from syncflow.config import Config
from syncflow.training import settings
from syncflow.training.settings import TrainConfig


def read(path: Path) -> Config:
    """The task of a config file; ValueError or FileNotFoundError name what is wrong."""
    if not path.exists():
        raise FileNotFoundError(f"no config file {path}")
    try:
        data = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    return TrainConfig.parse({"run": data}, str(path)).run


def run(path: Path, device: str = "cpu", progress: bool = True) -> None:
    """Runs one task, or each of a recipe in order. Finished tasks are skipped, others resume."""
    config = read(path)
    if isinstance(config, settings.RecipeTask):
        for step in config.steps:
            print(f"{path.name}: {step}")
            run(path.parent / step, device, progress)
        return
    _RUNNERS[type(config)](config, device, progress)


def _render(config: settings.RenderTask, device: str, progress: bool) -> None:
    from syncflow.data import impacts

    impacts.write_dataset(
        config.out, config.clips, config.seed, config.level, config.split, config.height,
        config.width, container="shards", progress=progress,
    )


def _fit(config: settings.AnyTask, device: str, progress: bool) -> None:
    from syncflow.training import loop

    torch.manual_seed(config.loop.seed)
    task = _training(config, device)
    digest = hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:16]
    loop.fit(
        task, config.loop, config.out, progress, device,
        {"config": config.model_dump_json(), "config_hash": digest},
    )


def _training(config: settings.AnyTask, device: str) -> object:
    if isinstance(config, settings.TextTask):
        from syncflow.training.text import TextTraining

        return TextTraining(config, device)
    if isinstance(config, settings.FlowTask):
        from syncflow.training.flow import FlowTraining

        return FlowTraining(config, device)
    from syncflow.training import vae

    if isinstance(config, settings.VideoVAETask):
        return vae.VideoVAETraining(config, device)
    return vae.AudioVAETraining(config, device)


def _latents(config: settings.LatentsTask, device: str, progress: bool) -> None:
    from syncflow.data import latents
    from syncflow.data.shards import ClipShards
    from syncflow.training import export

    latents.encode(
        ClipShards(config.data),
        *(
            export.load_part(getattr(config, part), part)
            for part in ("video_vae", "audio_vae", "text_encoder")
        ),
        config.out, config.batch_size, progress, device,
    )


def _export(config: settings.ExportTask, device: str, progress: bool) -> None:
    from syncflow.training import export

    export.export(config)


_RUNNERS = {
    settings.RenderTask: _render,
    settings.TextTask: _fit,
    settings.AudioVAETask: _fit,
    settings.VideoVAETask: _fit,
    settings.FlowTask: _fit,
    settings.LatentsTask: _latents,
    settings.ExportTask: _export,
}
