"""What is kept as golden numbers: a block and its gradients, a short training, and a clip."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import load_file
from torch import Tensor

from syncflow.config import VideoTowerConfig
from syncflow.models.video_tower import VideoTower
from syncflow.training import runner
from tests.small_model import PROMPT, build
from tests.training.made import flow_config, write_latents

#: By name; those below "exact/" are compared bit for bit or not at all.
Numbers = dict[str, Tensor]


def block(folder: Path) -> Numbers:
    """A video tower of one layer: velocity, features and gradients."""
    config = VideoTowerConfig(
        hidden_size=32, depth=1, num_heads=2, caption_channels=16, model_max_length=6
    )
    torch.manual_seed(0)
    tower = VideoTower(config)
    with torch.no_grad():
        for parameter in tower.parameters():  # so that nothing is silent
            parameter.copy_(torch.randn_like(parameter) * 0.1)
    x, text = torch.randn(2, 4, 4, 8, 8), torch.randn(2, 5, 16)
    velocity, features = tower(
        x.requires_grad_(), torch.tensor([0.2, 0.9]), text, fps=16, height=64, width=64
    )
    (velocity.square().sum() + features[0].square().sum()).backward()
    qkv = tower.temporal_blocks[0].attn.qkv.weight
    return {
        "velocity": velocity.detach(), "features": features[0].detach(), "x_grad": x.grad,
        "qkv_grad": qkv.grad,
    }  # fmt: skip


def training(folder: Path) -> Numbers:
    """Losses and final weights of six steps of both towers."""
    loop = {
        "steps": 6, "log_every": 1, "validate_every": 6, "optimizer": "muon", "ema": 0.9,
        "precision": "fp32",
    }  # fmt: skip
    latents = write_latents(folder / "latents")
    config = flow_config(latents, folder / "run", "both", loop)
    (folder / "run.json").write_text(json.dumps(config))
    # Elsewhere Muon's iterations are in bfloat16, and no two kinds of processor would agree.
    with mock.patch("syncflow.training.optim.optimizer.has_bfloat16", lambda device: False):
        runner.run(folder / "run.json", progress=False)
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").open()]
    losses = torch.tensor([line["loss"] for line in lines if "loss" in line])
    weights = load_file(folder / "run" / "model.safetensors")
    chosen = ("audio_tower.final_linear.weight", "video_tower.x_embedder.proj.weight")
    # The optimizer divides by the size of a gradient, which enlarges a difference in its last bits.
    return {"losses": losses, **{f"exact/{name}": weights[name] for name in chosen}}


def clip(folder: Path) -> Numbers:
    """Sound and picture of a small model with random weights."""
    states = []
    made = build().generate(
        PROMPT, seed=3, progress=False, callback=lambda step, state, times: states.append(state)
    )
    latent = states[-1][0]
    # A pixel that lies between two values may be rounded to either.
    return {"audio": made.audio[:4800], "latent": latent, "exact/video": made.video[::5]}


CASES: dict[str, Callable[[Path], Numbers]] = {
    "block": block, "training": training, "clip": clip,
}  # fmt: skip
