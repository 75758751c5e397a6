"""Runs what a training config asks for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch

from syncflow.config import Config, find_config, schema
from syncflow.training import preflight, settings
from syncflow.training.distributed.groups import Group
from syncflow.training.settings import TrainConfig
from syncflow.training.tasks.task import Task

# What several processes can train together.
_SHARED = (settings.FlowTask, settings.AudioVAETask, settings.VideoVAETask)


def read(path: Path) -> settings.AnyTask:
    """The task of a config file; ValueError or FileNotFoundError name what is wrong."""
    path = find_config(path)
    return TrainConfig.parse({"run": schema.read(path)}, str(path)).run


def run(
    path: Path, device: str | None = None, progress: bool = True, group: Group | None = None
) -> None:
    """Runs one task, or each of a recipe in order. Finished tasks are skipped, others resume.

    Raises:
        ValueError, FileNotFoundError: name what is wrong with the config or what it names.
        SystemExit: code 0, when SIGTERM stopped it; what it had done is saved.
    """
    group = group or Group(device=torch.device(device or "cpu"))
    path = find_config(path)
    steps = _steps(path, ())
    for file, config in steps:  # a mistake in the last one is told before the first runs
        _check_alone(file, config, group)
    if len(steps) > 1 or steps[0][0] != path:
        preflight.check(steps)
    for file, config in steps:
        if group.leads and file != path:
            print(f"{path.name}: {file.name}", flush=True)
        _RUNNERS[type(config)](config, group, progress)


def _steps(path: Path, within: tuple[Path, ...]) -> list[preflight.Step]:
    """A config, or the steps of a recipe and of the recipes among them, in order; ``within``: the
    recipes around it. A step lies beside its recipe, or is named as the command line names it."""
    config = read(path)
    if not isinstance(config, settings.RecipeTask):
        return [(path, config)]
    if path.resolve() in within:
        raise ValueError(f"recipe {path} has itself among its steps")
    out = []
    for step in config.steps:
        beside = path.parent / step
        file = beside if beside.exists() else find_config(step)
        if not file.exists():
            raise FileNotFoundError(f"no config file {step} (a step of {path})")
        out += _steps(file, (*within, path.resolve()))
    return out


def _check_alone(file: Path, config: settings.AnyTask, group: Group) -> None:
    """Raises ValueError where a task cannot run in these processes, or as its loop says."""
    if group.world > 1 and not isinstance(config, _SHARED):
        raise ValueError(
            f"{file}: task {config.task!r} runs in one process, and there are {group.world}; "
            "start it without a launcher"
        )
    if not isinstance(config, settings.TrainedTask):
        return
    if config.loop.randomness != "batch" and not isinstance(config, _SHARED):
        raise ValueError(
            f"{file}: loop.randomness {config.loop.randomness!r} is not for the task "
            f"{config.task!r}"
        )
    if config.loop.sequence_parallel > 1 and not isinstance(config, settings.FlowTask):
        raise ValueError(
            f"{file}: loop.sequence_parallel is for flow tasks, not for {config.task!r}"
        )


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
        materials=config.materials,
        container="shards",
        progress=progress,
    )


def _fit(config: settings.TrainedTask, group: Group, progress: bool) -> None:
    from syncflow.training import loop

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
        config.unknown_words,
    )


def _made_latents(config: settings.MadeLatentsTask, group: Group, progress: bool) -> None:
    from syncflow.training.tasks import made_latents

    made_latents.make(config, group.device, progress)


def _features(config: settings.FeaturesTask, group: Group, progress: bool) -> None:
    from syncflow.training.tasks import alignment, export

    codec = export.load_part(config.audio_vae, "audio_vae")
    alignment.make_features(config, codec, group.device)


def _export(config: settings.ExportTask, group: Group, progress: bool) -> None:
    from syncflow.training.tasks import export

    export.export(config)


_RUNNERS: dict[type[Config], Callable[..., None]] = {
    settings.RenderTask: _render,
    settings.TextTask: _fit,
    settings.AudioVAETask: _fit,
    settings.VideoVAETask: _fit,
    settings.FlowTask: _fit,
    settings.LatentsTask: _latents,
    settings.MadeLatentsTask: _made_latents,
    settings.FeaturesTask: _features,
    settings.ExportTask: _export,
}
