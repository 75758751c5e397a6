"""Made-up latents and a model of a few thousand parameters: stages that train in a second."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from syncflow import durable
from syncflow.clip import ClipSpec
from syncflow.data.latent_shards import Rows, ShardWriter
from syncflow.training import runner
from syncflow.training.checkpoints import checkpoint

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
#: How the small VAEs of the tests are trained.
VAE_LOOP = {
    "steps": 4, "batch_size": 2, "ema": 0.9, "precision": "fp32", "warmup": 1, "threads": 1,
    "log_every": 1, "validate_every": 100,
}  # fmt: skip
GEOMETRY = {"seconds": 1.0, "fps": 8, "height": 32, "width": 32, "sample_rate": 9600}


def write_latents(
    folder: Path,
    count: int = 4,
    channels: tuple[int, int, int] = (2, 3, 8),
    told: bool = False,
    **geometry: float,
) -> Path:
    """A folder of ``count`` clips of noise, as ``latents.encode`` writes it; ``channels`` of video,
    audio and text. Captions have 4 tokens, every third one 2. ``told``: when things touch, once or
    twice a clip."""
    rng = np.random.default_rng(0)
    spec = ClipSpec(**GEOMETRY | geometry)
    video, audio, text = channels
    shapes = {
        "video_mean": (video, *spec.video_latent_shape),
        "audio_mean": (spec.audio_latent_length, audio), "text": (6, text),
    }  # fmt: skip
    values = {
        name: rng.standard_normal((count, *shape)).astype(np.float16)
        for name, shape in shapes.items()
    }
    arrays = {name: values[name] for name in ("video_mean", "audio_mean")}
    for kind in ("video", "audio"):
        arrays[f"{kind}_std"] = np.full_like(values[f"{kind}_mean"], 0.01)
    captions = [f"caption {row}" for row in range(count)]
    texts = {
        caption: values["text"][row, : 4 if row % 3 else 2] for row, caption in enumerate(captions)
    }
    folder.mkdir()
    writer = ShardWriter(folder, [range(1)])
    writer.missing()
    records = [
        {"caption": caption, "contacts": [0.25] * (1 + row % 2)} if told else {"caption": caption}
        for row, caption in enumerate(captions)
    ]
    writer.add(0, Rows(arrays, texts, records))
    writer.finish({"encoders": {"video_vae": "x"}, "geometry": GEOMETRY | geometry})
    # Statistics that change no value, so that a test can compute by hand.
    path = folder / "manifest.json"
    manifest = durable.read_sealed(path)
    manifest["statistics"] = {
        "video_mean": [0] * video, "video_std": [1] * video,
        "audio_mean": [0] * audio, "audio_std": [1] * audio,
    }  # fmt: skip
    durable.write_sealed(path, manifest)
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


def run(values: dict, folder: Path) -> None:
    """Runs a config, which is written into ``folder``."""
    path = folder / "config.json"
    path.write_text(json.dumps(values))
    runner.run(path, progress=False)


def lines(out: Path) -> list[dict]:
    """What a run has told, step by step."""
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def told(out: Path, key: str) -> list[float]:
    """The values of ``key`` in it."""
    return [line[key] for line in lines(out) if key in line]


def whole_and_cut(config: Callable[[Path, dict], dict], folder: Path) -> list[checkpoint.Saved]:
    """The last checkpoints of a run of 4 steps in one go, and of one that stopped half-way.

    ``config``: of an ``out`` folder and changes to its loop.
    """
    for name, steps in (("whole", 4), ("cut", 2), ("cut", 4)):
        run(config(folder / name, {"steps": steps, "checkpoint_every": 2, "decay": 0.0}), folder)
    return [checkpoint.newest(folder / name) for name in ("whole", "cut")]


def assert_same(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> None:
    """Two checkpoints hold the same bits."""
    assert set(one) == set(two)
    assert all(torch.equal(one[name], two[name]) for name in one)
