"""Encoders small enough to run in a test."""

from pathlib import Path

import pytest
import torch

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


@pytest.fixture(scope="session")
def toy_model(tmp_path_factory) -> Path:
    """The folder of an untrained model."""
    from syncflow.config import ModelConfig
    from syncflow.model_io import model_folder
    from syncflow.models.ddit import DDiT
    from syncflow.models.text.encoder import TextEncoder
    from syncflow.models.vae import build_audio_vae, build_video_vae

    config = ModelConfig.parse(TOY)
    torch.manual_seed(0)
    parts = {
        "ddit": DDiT(config.ddit),
        "video_vae": build_video_vae(config.video_vae),
        "audio_vae": build_audio_vae(config.audio_vae),
        "text_encoder": TextEncoder(config.text_encoder),
    }
    return model_folder.save(tmp_path_factory.mktemp("toy") / "model", config, parts)


@pytest.fixture(scope="session")
def encoders(toy_model):
    from syncflow.data.encoders import Encoders
    from syncflow.model_io import model_folder

    return Encoders(**model_folder.load_encoders(toy_model)[1])


@pytest.fixture(scope="session")
def spec():
    from syncflow.config import ModelConfig

    return ModelConfig.parse(TOY).geometry.spec
