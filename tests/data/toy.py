"""A model small enough to run in a test, untrained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from syncflow.data.encoders import Encoders

TOY = {
    "name": "toy",
    "geometry": {"seconds": 1.0, "fps": 8, "height": 32, "width": 32, "sample_rate": 48000},
    "ddit": {
        "video": {
            "hidden_size": 16, "depth": 1, "num_heads": 2, "in_channels": 2,
            "caption_channels": 16, "model_max_length": 33, "pred_sigma": False,
        },
        "adaptor": {"num_heads": 2},
        "audio": {"hidden_size": 16, "num_heads": 2, "in_channels": 3, "condition": "both"},
    },
    "video_vae": {"kind": "patch", "latent_channels": 2, "width": 8, "depth": 1},
    "audio_vae": {
        "kind": "spectral", "latent_channels": 3, "width": 16, "depth": 1, "oscillators": 8,
    },
    "text_encoder": {
        "kind": "bytes", "max_length": 64, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1,
        "num_heads": 2, "pool": "word", "clean_caption": False,
    },
}  # fmt: skip


def parts() -> dict[str, nn.Module]:
    """Always the same weights."""
    import torch

    from syncflow.config import ModelConfig
    from syncflow.models.ddit import DDiT
    from syncflow.models.text.encoder import TextEncoder
    from syncflow.models.vae import build_audio_vae, build_video_vae

    config = ModelConfig.parse(TOY)
    torch.manual_seed(0)
    return {
        "ddit": DDiT(config.ddit),
        "video_vae": build_video_vae(config.video_vae),
        "audio_vae": build_audio_vae(config.audio_vae),
        "text_encoder": TextEncoder(config.text_encoder),
    }


def save(folder: Path) -> Path:
    """Its folder."""
    from syncflow.config import ModelConfig
    from syncflow.model_io import model_folder

    return model_folder.save(folder, ModelConfig.parse(TOY), parts())


def encoders() -> Encoders:
    """Its frozen parts."""
    from syncflow.data.encoders import Encoders

    return Encoders(**{name: part for name, part in parts().items() if name != "ddit"})
