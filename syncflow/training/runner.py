"""Runs what a training config asks for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from syncflow.config import Config, find
from syncflow.training import settings
from syncflow.training.distributed.groups import Group
from syncflow.training.settings import TrainConfig
from syncflow.training.tasks.task import Task

# What several processes can train together.
_SHARED = (settings.FlowTask, settings.AudioVAETask, settings.VideoVAETask)


def read(path: Path) -> settings.AnyTask:
    """The task of a config file; ValueError or FileNotFoundError name what is wrong."""
    path = find(path)
    if not path.exists():
        raise FileNotFoundError(f"no config file {path}")
    try:
        data = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    return TrainConfig.parse({"run": data}, str(path)).run


def run(
    path: Path, device: str | None = None, progress: bool = True, group: Group | None = None
) -> None:
    """Runs one task, or each of a recipe in order. Finished tasks are skipped, others resume.

    Raises:
        ValueError, FileNotFoundError: name what is wrong with the config or what it names.
        SystemExit: code 0, when SIGTERM stopped it; what it had done is saved.
    """
    group = group or Group(device=torch.device(device or "cpu"))
    path = find(path)
    config = read(path)
    if isinstance(config, settings.RecipeTask):
        for step in config.steps:  # a mistake in the last one is told before the first runs
            _check(path.parent / step, (path.resolve(),))
        for step in config.steps:
            if group.leads:
                print(f"{path.name}: {step}", flush=True)
            run(path.parent / step, progress=progress, group=group)
        return
    if group.world > 1 and not isinstance(config, _SHARED):
        raise ValueError(
            f"{path}: task {config.task!r} runs in one process, and there are {group.world}; "
            "start it without a launcher"
        )
    _RUNNERS[type(config)](config, group, progress)


def _check(path: Path, within: tuple[Path, ...]) -> None:
    """Reads a step, and the steps of a recipe among them; ``within``: the recipes around it."""
    config = read(path)
    if find(path).resolve() in within:
        raise ValueError(f"recipe {path} has itself among its steps")
    if isinstance(config, settings.RecipeTask):
        for step in config.steps:
            _check(path.parent / step, (*within, find(path).resolve()))


def _render(config: settings.RenderTask, group: Group, progress: bool) -> None:
    from syncflow.data import impacts_dataset

    impacts_dataset.write_dataset(
        config.out,
        config.clips,
        config.seed,
        config.level,
        config.split,
        config.height,
        config.width,
        container="shards",
        progress=progress,
    )


def _fit(config: settings.TrainedTask, group: Group, progress: bool) -> None:
    from syncflow.training import loop

    if config.loop.randomness == "sample" and not isinstance(config, _SHARED):
        raise ValueError(f"loop.randomness 'sample' is not for the task {config.task!r}")
    if config.loop.sequence_parallel > 1 and not isinstance(config, settings.FlowTask):
        raise ValueError(f"loop.sequence_parallel is for flow tasks, not for {config.task!r}")
    group = group.of_neighbours(config.loop.sequence_parallel)
    torch.manual_seed(config.loop.seed)
    task = _training(config, group)
    text = config.model_dump_json()
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    loop.fit(
        task,
        config.loop,
        config.out,
        progress,
        metadata={"config": text, "config_hash": digest, **task.provenance},
        group=group,
    )


def _training(config: settings.TrainedTask, group: Group) -> Task:
    if isinstance(config, settings.TextTask):
        from syncflow.training.tasks.text import TextTraining

        return TextTraining(config, str(group.device))
    if isinstance(config, settings.FlowTask):
        from syncflow.training.tasks.flow import FlowTraining

        return FlowTraining(config, group=group)
    if isinstance(config, settings.VideoVAETask):
        from syncflow.training.tasks.video_vae import VideoVAETraining

        return VideoVAETraining(config, group=group)
    from syncflow.training.tasks.audio_vae import AudioVAETraining

    return AudioVAETraining(config, group=group)


def _latents(config: settings.LatentsTask, group: Group, progress: bool) -> None:
    from syncflow.data import latents
    from syncflow.data.shards import ClipShards
    from syncflow.training.tasks import export

    latents.encode(
        ClipShards(config.data),
        export.load_part(config.video_vae, "video_vae"),
        export.load_part(config.audio_vae, "audio_vae"),
        export.load_part(config.text_encoder, "text_encoder"),
        config.out,
        config.batch_size,
        progress,
        group.device,
    )


def _features(config: settings.FeaturesTask, group: Group, progress: bool) -> None:
    from syncflow.training.tasks import alignment, export

    codec = export.load_part(config.audio_vae, "audio_vae")
    alignment.make_features(config, codec, group.device)


def _export(config: settings.ExportTask, group: Group, progress: bool) -> None:
    from syncflow.training.tasks import export

    export.export(config)


_RUNNERS: dict[type[Config], Callable[[Any, Group, bool], None]] = {
    settings.RenderTask: _render,
    settings.TextTask: _fit,
    settings.AudioVAETask: _fit,
    settings.VideoVAETask: _fit,
    settings.FlowTask: _fit,
    settings.LatentsTask: _latents,
    settings.FeaturesTask: _features,
    settings.ExportTask: _export,
}
