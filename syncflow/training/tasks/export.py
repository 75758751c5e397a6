"""Trained runs -> modules, and -> the model folder that ``syncflow.load`` reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, cast, overload

import numpy as np
import torch
from torch import nn

from syncflow.config import (
    Config,
    GeometryConfig,
    ModelConfig,
    RhythmsConfig,
    SpectralVAEConfig,
    find,
)
from syncflow.data.latents import Latents
from syncflow.generation import events
from syncflow.model_io import model_card, model_folder
from syncflow.models.codec import AudioCodec, VideoCodec
from syncflow.models.ddit import DDiT
from syncflow.models.spectral_vae import SpectralAudioVAE
from syncflow.models.text.encoder import TextEncoder
from syncflow.models.vae import build_audio_vae, build_video_vae
from syncflow.training import settings
from syncflow.training.checkpoints import weights

_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "text": TextEncoder,
    "audio_vae": build_audio_vae,
    "video_vae": build_video_vae,
    "flow": DDiT,
}

#: The task that trains a part.
_TASKS = {"video_vae": "video_vae", "audio_vae": "audio_vae", "text_encoder": "text"}


def run_config(run: str | Path) -> settings.TrainedTask:
    """The config of a finished run, or of a checkpoint of one (``runs/x/checkpoints/00001200``).

    Raises:
        FileNotFoundError: the run is not finished.
    """
    text = weights.about(run).get("config")
    if not text:
        raise FileNotFoundError(f"{run} is not finished (no {weights.FINAL}); train it first")
    config = settings.TrainConfig.parse({"run": json.loads(text)}, str(run)).run
    if not isinstance(config, settings.TrainedTask):
        raise ValueError(f"{run} is a run of task {config.task!r}, which trains nothing")
    return config


def flow_config(run: str | Path) -> settings.FlowTask:
    """The config of a run that trained a d-DiT."""
    config = run_config(run)
    if not isinstance(config, settings.FlowTask):
        raise ValueError(f"{run} is a run of task {config.task!r}, not of a d-DiT")
    return config


@overload
def load_part(run: str | Path, part: Literal["ddit"] = "ddit") -> DDiT: ...


@overload
def load_part(run: str | Path, part: Literal["video_vae"]) -> VideoCodec: ...


@overload
def load_part(run: str | Path, part: Literal["audio_vae"]) -> AudioCodec: ...


@overload
def load_part(run: str | Path, part: Literal["text_encoder"]) -> TextEncoder: ...


@overload
def load_part(run: str | Path, part: str) -> nn.Module | None: ...


def load_part(run: str | Path, part: str = "ddit") -> nn.Module | None:
    """The trained module of a finished run, of a checkpoint, or a model folder's ``part``; in
    evaluation mode."""
    run = find(run)
    if (run / model_folder.CONFIG).exists():
        parts = cast("dict[str, nn.Module | None]", model_folder.load(run)[1])
        return parts[part]
    config = run_config(run)
    module = _BUILDERS[config.task](config.model)
    values = weights.load(run)
    if config.task == "text":  # the attribute head was only there to train the encoder
        values = weights.below(values, "encoder.")
    weights.fill(module, values, str(run))
    return module.eval().requires_grad_(False)


def latents_of(run: str | Path) -> str:
    """The folder of latents that a d-DiT was trained on, the first of several."""
    data = flow_config(run).data
    return data if isinstance(data, str) else data[0].data


def part_config(run: str | Path, part: str) -> Config:
    """The config of a run's module, or of a model folder's ``part``.

    Raises:
        FileNotFoundError: there is none, or the run is not finished.
        ValueError: the run trained something else.
    """
    path = find(run) / model_folder.CONFIG
    if path.exists():
        return getattr(ModelConfig.load(path), part)
    if part == "ddit":
        return flow_config(run).model
    config = run_config(run)
    if config.task != _TASKS[part]:
        raise ValueError(f"{run} is a run of task {config.task!r}, which makes no {part}")
    return config.model


def _check_latents(run: str | Path, latents: Latents) -> None:
    """The latents must be of the encoders that the d-DiT's training data were made with.

    Raises:
        ValueError: they are of others.
    """
    if (find(run) / model_folder.CONFIG).exists():
        return
    flow_config(run)  # says so where the run trained something else
    expected = json.loads(weights.about(run)["encoders"])
    if latents.manifest["encoders"] != expected:
        raise ValueError(
            f"the latents have other encoders than the data that {run} was trained on; name that "
            f"data's folder ({latents_of(run)})"
        )


def _check_null_caption(config: settings.ExportTask) -> None:
    """Guidance must lead away from what stood in for dropped captions."""
    path = find(config.ddit) / model_folder.CONFIG
    if path.exists():
        trained = ModelConfig.load(path).sampling.null_caption
    else:
        trained = flow_config(config.ddit).null_caption
    if config.sampling.null_caption != trained:
        raise ValueError(
            f"sampling.null_caption is {config.sampling.null_caption!r}, but {config.ddit} was "
            f"trained with {trained!r}; say so in the export's sampling"
        )


@torch.no_grad()
def _blend(ddit: DDiT, blend: settings.BlendConfig) -> None:
    """Averages another's weights in; what it does not have stays.

    Raises:
        ValueError: weights of one name and another shape, or none of one name.
    """
    other = load_part(blend.ddit).state_dict()
    mine = ddit.state_dict()
    shared = mine.keys() & other.keys()
    if not shared or any(mine[key].shape != other[key].shape for key in shared):
        raise ValueError(f"blend: {blend.ddit} is of another shape than this export's ddit")
    for key in shared:  # views of the module's own
        mine[key].lerp_(other[key].float(), blend.share)


def _rhythms(latents: Latents, rows: Sequence[int]) -> list[list[float]]:
    """When things touch in these clips."""
    times = latents.contacts(np.array(rows)).double() if rows else ()
    return [[round(t, 3) for t in row[~row.isnan()].tolist()] for row in times]


def rhythms_of(sort: settings.RhythmsTask) -> RhythmsConfig:
    """When things touch in clips of captions of one sort.

    Raises:
        ValueError: no caption is.
    """
    latents = Latents(sort.latents)
    rows = [
        row
        for row in range(len(latents))
        if events.is_of(str(latents.record(row)["caption"]), sort.words, sort.counts)
    ]
    if not rows:
        wanted = f"one of {sort.words}" if sort.words else f"{sort.counts} numbers"
        raise ValueError(f"rhythms_of: no caption in {sort.latents} has {wanted}")
    times = _rhythms(latents, rows[: sort.clips])
    return RhythmsConfig(words=sort.words, counts=sort.counts, times=times)


def export(config: settings.ExportTask) -> Path:
    """Writes config.json and one safetensors file per part.

    Raises:
        ValueError: the latents do not belong to the d-DiT's training data.
    """
    out = Path(config.out)
    runs = {
        "video_vae": config.video_vae,
        "audio_vae": config.audio_vae,
        "text_encoder": config.text_encoder,
        "ddit": config.ddit,
    }
    models: dict[str, Config] = {name: part_config(run, name) for name, run in runs.items()}
    if config.audio_gain_db and not isinstance(models["audio_vae"], SpectralVAEConfig):
        raise ValueError(
            f"audio_gain_db is {config.audio_gain_db:g}, and {config.audio_vae} is no spectral "
            "audio VAE; leave it out"
        )
    latents = Latents(config.latents)
    _check_latents(config.ddit, latents)
    _check_null_caption(config)
    stats = weights.statistics(config.ddit) or latents.manifest["statistics"]
    geometry = dict(latents.manifest["geometry"])
    if not (find(config.ddit) / model_folder.CONFIG).exists():
        # What the run saw of every clip.
        geometry["seconds"] = flow_config(config.ddit).window or geometry["seconds"]
    model = ModelConfig(
        name=config.name,
        rhythms=_rhythms(latents, range(min(config.rhythms, len(latents)))) or None,
        rhythms_of=[rhythms_of(sort) for sort in config.rhythms_of] or None,
        geometry=GeometryConfig(**geometry),
        **models,
        sampling=config.sampling,
        latent_mean_video=stats["video_mean"],
        latent_std_video=stats["video_std"],
        latent_mean_audio=stats["audio_mean"],
        latent_std_audio=stats["audio_std"],
    )
    dtype = getattr(torch, config.dtype)
    parts: dict[str, nn.Module | None] = {}
    for name, run in runs.items():
        part = load_part(run, name)  # None: a T5, which is no part of a folder's weights
        if isinstance(part, SpectralAudioVAE):
            part.raise_level(config.audio_gain_db)
        if isinstance(part, DDiT) and config.blend:
            _blend(part.float(), config.blend)
        parts[name] = part if part is None else part.to(dtype)
    if parts["text_encoder"] is not None:
        return model_folder.save(out, model, parts)
    # A T5 that lies in its folder goes along; the card there is of another model.
    source = find(config.text_encoder)
    return model_folder.save(out, model, parts, source, model_card.plain(model))
