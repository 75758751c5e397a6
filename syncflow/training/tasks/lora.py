"""Low-rank fine-tuning: small matrices beside the linear layers learn, everything else stays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from syncflow import extras
from syncflow.training.checkpoints import checkpoint
from syncflow.training.settings import LoraConfig

FILE = "lora.safetensors"
_NAME = "default"
# Where each tower's linear layers are; its embedders and heads stay.
_INSIDE = {
    "video": ("video_tower.spatial_blocks.", "video_tower.temporal_blocks."),
    "audio": ("audio_tower.layers.", "adaptors."),
}


def inject(module: nn.Module, config: LoraConfig) -> list[str]:
    """Adds the matrices to a d-DiT, in place, and freezes the rest; the layers' names.

    Raises:
        ModuleNotFoundError: peft is not installed.
    """
    try:
        from peft import LoraConfig as PeftConfig
        from peft import inject_adapter_in_model
    except ImportError:
        raise extras.missing("peft", "lora is set and needs peft") from None
    towers = ("video", "audio") if config.towers == "both" else (config.towers,)
    inside = tuple(prefix for tower in towers for prefix in _INSIDE[tower])
    names = [
        name
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear) and name.startswith(inside)
    ]
    module.requires_grad_(False)
    peft = PeftConfig(r=config.rank, lora_alpha=config.alpha, target_modules=names, bias="none")
    inject_adapter_in_model(peft, module, adapter_name=_NAME)
    return names


def merge(values: Mapping[str, Tensor], config: LoraConfig) -> dict[str, Tensor]:
    """The weights of an injected module as a plain one's: W + (alpha / rank) B A."""
    out, scale = {}, config.alpha / config.rank
    for name, value in values.items():
        if ".lora_" in name:
            continue
        plain = name.replace(".base_layer.", ".")
        out[plain] = value
        if name.endswith(".base_layer.weight"):
            layer = name.removesuffix(".base_layer.weight")
            down = values[f"{layer}.lora_A.{_NAME}.weight"].double()
            up = values[f"{layer}.lora_B.{_NAME}.weight"].double()
            out[plain] = torch.add(value.double(), up @ down, alpha=scale).to(value.dtype)
    return out


def finish(values: dict[str, Tensor], config: LoraConfig, out: Path) -> dict[str, Tensor]:
    """Writes the small matrices alone to ``lora.safetensors``; returns the merged weights."""
    small = {name: value for name, value in values.items() if ".lora_" in name}
    about = {"rank": str(config.rank), "alpha": str(config.alpha)}
    checkpoint.save_weights(out / FILE, small, about)
    return merge(values, config)
