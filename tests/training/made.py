"""Made-up latents and a model of a few thousand parameters: stages that train in a second."""

import json
from pathlib import Path

import numpy as np

from syncflow.clip import ClipSpec

MODEL = {
    "video": {
        "hidden_size": 32, "depth": 1, "num_heads": 2, "in_channels": 2, "caption_channels": 8,
        "model_max_length": 6, "pred_sigma": False, "mlp_ratio": 2,
    },
    "adaptor": {"num_heads": 2},
    "audio": {
        "hidden_size": 32, "num_heads": 2, "in_channels": 3, "condition": "both", "mlp_ratio": 2,
        "upsampler_patches": 4, "upsampler_width": 16,
    },
}  # fmt: skip
GEOMETRY = {"seconds": 1.0, "fps": 8, "height": 32, "width": 32, "sample_rate": 9600}


def write_latents(folder: Path, count: int = 4, **geometry: float) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir()
    spec = ClipSpec(**GEOMETRY | geometry)
    shapes = {
        "video_mean": (2, *spec.video_latent_shape), "audio_mean": (spec.audio_latent_length, 3),
        "text": (6, 8),
    }  # fmt: skip
    for name, shape in shapes.items():
        values = rng.standard_normal((count, *shape)).astype(np.float16)
        np.save(folder / f"{name}.npy", values)
        if name.endswith("_mean"):
            np.save(folder / f"{name[:5]}_std.npy", np.full_like(values, 0.01))
    mask = np.zeros((count, 6), dtype=bool)
    mask[:, :4] = True
    mask[::3, 2:] = False
    np.save(folder / "text_mask.npy", mask)
    statistics = {
        "video_mean": [0, 0], "video_std": [1, 1], "audio_mean": [0] * 3, "audio_std": [1] * 3,
    }  # fmt: skip
    manifest = {
        "count": count, "encoders": {"video_vae": "x"}, "geometry": GEOMETRY | geometry,
        "text_tokens": 4, "statistics": statistics,
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def flow_config(latents: Path, out: Path, train: str = "both", loop=None, **changes) -> dict:
    """A flow task's config; ``loop`` and other keys change it."""
    settings = {
        "steps": 3, "batch_size": 4, "lr": 0.01, "ema": 0, "precision": "fp32", "warmup": 1,
        "threads": 1, **(loop or {}),
    }  # fmt: skip
    return {
        "task": "flow", "out": str(out), "data": str(latents), "validation": str(latents),
        "model": MODEL, "train": train, "loop": settings, **changes,
    }  # fmt: skip
