"""Made-up latents, for measuring the speed and memory of training without any data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from syncflow import durable
from syncflow.clip import ClipSpec
from syncflow.data.latent_shards import MANIFEST, Rows, ShardWriter
from syncflow.data.manifest import RecordLine
from syncflow.training.tasks import flow

XL2_FRAMES = {"seconds": 2.0, "fps": 16, "height": 256, "width": 256, "sample_rate": 48000}
MIDDLE_FRAMES = {**XL2_FRAMES, "height": 128, "width": 128}
SMALL_FRAMES = {**XL2_FRAMES, "height": 64, "width": 64}


def geometry(config: Any) -> dict[str, Any]:
    """Of the clips that a flow config is for."""
    width = config.model.video.hidden_size
    if width >= 1024:
        return XL2_FRAMES
    return MIDDLE_FRAMES if width >= 512 else SMALL_FRAMES


@contextmanager
def made_on(device: torch.device) -> Iterator[None]:
    """Flow tasks make their model there, and not on the CPU first. Data are read as ever: a default
    device would be theirs too."""
    made = flow.DDiT

    def there(*arguments: Any, **options: Any) -> Any:
        with device:
            return made(*arguments, **options)

    with mock.patch.object(flow, "DDiT", there):
        yield


def write(folder: Path, config: Any, count: int, made_up: bool = True) -> Path:
    """Made-up latents of the config's shapes in the form that training reads, with captions as long
    as they may be; without ``made_up`` zeros, and one caption for all."""
    model, frames = config.model, geometry(config)
    spec, rng = ClipSpec(**frames), np.random.default_rng(0)
    shapes = {
        "video": (model.video.in_channels, *spec.video_latent_shape),
        "audio": (spec.audio_latent_length, model.audio.in_channels),
        "text": (model.video.model_max_length, model.video.caption_channels),
    }

    def values(*shape: int) -> np.ndarray:
        if not made_up:
            return np.zeros(shape, np.float16)
        return rng.standard_normal(shape, dtype=np.float32).astype(np.float16)

    arrays = {}
    for kind in ("video", "audio"):
        arrays[f"{kind}_mean"] = values(count, *shapes[kind])
        arrays[f"{kind}_std"] = np.full_like(arrays[f"{kind}_mean"], 0.1)
    captions = [f"caption {row if made_up else 0}" for row in range(count)]
    texts = {caption: values(*shapes["text"]) for caption in dict.fromkeys(captions)}
    writer = ShardWriter(folder, [range(1)])
    writer.missing()
    records: list[RecordLine] = [{"caption": caption, "contacts": [0.5]} for caption in captions]
    writer.add(0, Rows(arrays, texts, records))
    writer.finish({"encoders": {}, "geometry": frames})
    path = folder / MANIFEST
    manifest = durable.read_sealed(path)
    channels = {"video": shapes["video"][0], "audio": shapes["audio"][1]}
    manifest["statistics"] = {
        f"{kind}_{which}": [value] * channels[kind]
        for kind in channels
        for which, value in (("mean", 0.0), ("std", 1.0))
    }
    durable.write_sealed(path, manifest)
    return folder
