"""Made-up latents, for measuring the speed and memory of training without any data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from syncflow.clip import ClipSpec

XL2_FRAMES = {"seconds": 2.0, "fps": 16, "height": 256, "width": 256, "sample_rate": 48000}
SMALL_FRAMES = {**XL2_FRAMES, "height": 64, "width": 64}


def geometry(config: Any) -> dict[str, Any]:
    """Of the clips that a flow config is for."""
    return XL2_FRAMES if config.model.video.hidden_size >= 1024 else SMALL_FRAMES


def write(folder: Path, config: Any, count: int) -> Path:
    """Made-up latents of the config's shapes in the form that training reads."""
    model, frames = config.model, geometry(config)
    spec, rng = ClipSpec(**frames), np.random.default_rng(0)
    length = model.video.model_max_length
    shapes = {
        "video": (model.video.in_channels, *spec.video_latent_shape),
        "audio": (spec.audio_latent_length, model.audio.in_channels),
        "text": (length, model.video.caption_channels),
    }
    for name, shape in shapes.items():
        values = rng.standard_normal((count, *shape), dtype=np.float32).astype(np.float16)
        np.save(folder / f"{name if name == 'text' else name + '_mean'}.npy", values)
        if name != "text":
            np.save(folder / f"{name}_std.npy", np.full_like(values, 0.1))
    np.save(folder / "text_mask.npy", np.ones((count, length), dtype=bool))
    statistics = {
        f"{kind}_{which}": [value] * channels
        for kind, channels in (("video", shapes["video"][0]), ("audio", shapes["audio"][1]))
        for which, value in (("mean", 0.0), ("std", 1.0))
    }
    manifest = {
        "count": count, "encoders": {}, "geometry": frames, "text_tokens": length,
        "statistics": statistics,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
