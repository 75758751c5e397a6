"""What tasks read and write: looked at for all steps of a recipe before the first of them runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from syncflow.config import find
from syncflow.data import recordings
from syncflow.data.latent_sources import is_finished, is_remote
from syncflow.data.manifest import MANIFEST
from syncflow.model_io import model_folder
from syncflow.training import settings
from syncflow.training.checkpoints import checkpoint, weights
from syncflow.training.tasks.alignment import FEATURES

Step = tuple[Path, settings.AnyTask]


@dataclass(frozen=True)
class _Input:
    """``key`` of a config names ``path``, which is made by one of ``tasks``."""

    key: str
    path: str
    tasks: tuple[str, ...]


_CLIPS, _LATENTS = ("render",), ("latents",)
_MADE, _FEATURES = ("made_latents",), ("features",)
_SOUNDS, _FILMS = ("render", "sound"), ("render", "picture")
_RENDERED = "a folder of rendered clips (dataset.json and metadata.jsonl)"
_WORDS = {
    _CLIPS: _RENDERED,
    _SOUNDS: f"{_RENDERED} or of recordings with sound",
    _FILMS: f"{_RENDERED} or of films",
    _LATENTS: f"a finished folder of latents ({MANIFEST})",
    _MADE: f"a finished folder of made latents ({MANIFEST})",
    _FEATURES: f"a finished folder of features ({FEATURES})",
}
#: What is in a folder that one of these tasks has finished.
_MARKS = {_LATENTS: MANIFEST, _MADE: MANIFEST, _FEATURES: FEATURES}
_PARTS = {"video_vae": "video_vae", "audio_vae": "audio_vae", "text_encoder": "text"}


def check(steps: Sequence[Step]) -> None:
    """Raises ValueError for the first step that reads what is not there and no step before it
    makes, or that cannot write where it should; the message has config, key and path."""
    made: dict[Path, str] = {}
    for file, config in steps:
        for wanted in _inputs(config):
            _check_input(file, wanted, made)
        if isinstance(config, settings.RecipeTask):
            continue
        if isinstance(config, settings.RenderTask):
            _check_render(file, config)
        out = _absolute(config.out)
        _check_out(file, out)
        made[out] = config.task


_CLIP_FILES = ("dataset.json", "metadata.jsonl")


def _inputs(config: settings.AnyTask) -> Iterator[_Input]:
    if isinstance(config, settings.AudioVAETask | settings.VideoVAETask):
        raw = _SOUNDS if isinstance(config, settings.AudioVAETask) else _FILMS
        if isinstance(config.data, str):
            yield _Input("data", config.data, raw)
        else:
            for folder in config.data:
                yield _Input("data", folder.data, _CLIPS)
                if folder.made is not None:
                    yield _Input("data.made", folder.made, _MADE)
        yield _Input("validation", config.validation, raw)
        if config.init:
            yield _Input("init", config.init, (config.task,))
    elif isinstance(config, settings.LatentsTask):
        yield _Input("data", config.data, _CLIPS)
    elif isinstance(config, settings.MadeLatentsTask):
        yield _Input("data", config.data, _CLIPS)
        yield _Input("model", config.model, ("export",))
    elif isinstance(config, settings.FeaturesTask):
        yield _Input("latents", config.latents, _LATENTS)
        yield _Input("audio_vae", config.audio_vae, ("audio_vae",))
    elif isinstance(config, settings.ExportTask):
        yield _Input("latents", config.latents, _LATENTS)
        yield _Input("ddit", config.ddit, ("flow",))
    elif isinstance(config, settings.FlowTask):
        data = [config.data] if isinstance(config.data, str) else [b.data for b in config.data]
        seen = config.validation
        validation = [seen] if isinstance(seen, str) else seen
        yield from (_Input("data", path, _LATENTS) for path in data)
        yield from (_Input("validation", path, _LATENTS) for path in validation)
        for key in ("init", "init_video"):
            if getattr(config, key):
                yield _Input(key, getattr(config, key), ("flow",))
        if config.distillation is not None and config.distillation.teacher is not None:
            yield _Input("distillation.teacher", config.distillation.teacher, (config.task,))
        if config.alignment is not None:
            yield _Input("alignment.features", config.alignment.features, _FEATURES)
        if config.samples is not None and config.samples.every:
            for key in ("video_vae", "audio_vae"):
                yield _Input(f"samples.{key}", getattr(config.samples, key), (key,))
    if isinstance(config, settings.LatentsTask | settings.ExportTask):
        for key, task in _PARTS.items():
            yield _Input(key, getattr(config, key), (task,))


def _check_input(file: Path, wanted: _Input, made: dict[Path, str]) -> None:
    if wanted.tasks == _LATENTS and is_remote(wanted.path):
        if not is_finished(wanted.path):
            raise ValueError(f"{file}: {wanted.key}: no finished latents in {wanted.path}")
        return
    path = find(wanted.path)
    whole = _absolute(path)
    task = next((made[folder] for folder in (whole, *whole.parents) if folder in made), None)
    if task is None and path.exists():
        task = _task_of(path, wanted.tasks)
    expected = _WORDS.get(wanted.tasks, f"a run of task {wanted.tasks[0]!r} or a model folder")
    if task is None:
        state = "is not that" if path.exists() else "is not there, and no step before makes it"
        raise ValueError(f"{file}: {wanted.key} must be {expected}; '{wanted.path}' {state}")
    if task not in (*wanted.tasks, "export"):
        raise ValueError(
            f"{file}: {wanted.key} must be {expected}; '{wanted.path}' is of task {task!r}"
        )


def _task_of(path: Path, tasks: tuple[str, ...]) -> str | None:
    """The task that made what is there, or None where it is none of what is wanted."""
    if "render" in tasks:
        if all((path / n).exists() for n in _CLIP_FILES):
            return "render"
        for part in tasks[1:]:
            if recordings.named(path, cast(recordings.Part, part)):
                return part
        return None
    if tasks in _MARKS:
        return tasks[0] if (path / _MARKS[tasks]).exists() else None
    if (path / model_folder.CONFIG).exists():
        return "export"
    if path.suffix == ".safetensors":
        return tasks[0]
    if not ((path / weights.FINAL).exists() or (path / checkpoint.MANIFEST).exists()):
        return None
    text = weights.about(path).get("config")
    return str(json.loads(text).get("task")) if text else tasks[0]


def _check_render(file: Path, config: settings.RenderTask) -> None:
    from syncflow.data import impacts_dataset

    try:
        impacts_dataset.planned("shards", **config.model_dump(exclude={"task", "out"}))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _check_out(file: Path, out: Path) -> None:
    there = next(folder for folder in (out, *out.parents) if folder.exists())
    if not there.is_dir():
        raise ValueError(f"{file}: out is '{out}', and '{there}' is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{file}: out is '{out}', and nothing can be written to '{there}'")


def _absolute(path: str | Path) -> Path:
    return Path(os.path.abspath(path))
