"""Low-rank fine-tuning: small matrices beside the linear layers learn, everything else stays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from syncflow import extras
from syncflow.model_io import lora
from syncflow.training.settings import LoraConfig

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
    alpha = cast(int, config.alpha)  # peft takes any number, whatever its annotation says
    peft = PeftConfig(r=config.rank, lora_alpha=alpha, target_modules=names, bias="none")
    inject_adapter_in_model(peft, module, adapter_name=lora.NAME)
    return names


def finish(
    values: Mapping[str, Tensor], config: LoraConfig, out: Path, base: str | None
) -> dict[str, Tensor]:
    """Writes the small matrices alone to ``lora.safetensors``, with the name of their ``base``;
    returns the merged weights."""
    lora.write(out / lora.FILE, values, config.rank, config.alpha, base)
    return lora.merged(values, config.alpha / config.rank)
