"""Checkpoints: written to a temporary name and renamed, read back with weights_only."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

CHECKPOINT = "checkpoint.pt"
FINAL = "model.safetensors"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Replaces the folder's checkpoint; the one before is kept as ``checkpoint.previous.pt``."""
    folder.mkdir(parents=True, exist_ok=True)
    path, temporary = folder / CHECKPOINT, folder / f".{CHECKPOINT}.{os.getpid()}"
    torch.save(state, temporary)
    if path.exists():
        os.replace(path, folder / "checkpoint.previous.pt")
    os.replace(temporary, path)


def load(folder: Path) -> dict[str, Any] | None:
    """The newest readable checkpoint of a folder, or None; a damaged one is skipped, saying so."""
    for name in (CHECKPOINT, "checkpoint.previous.pt"):
        path = folder / name
        if not path.exists():
            continue
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            print(f"{path} cannot be read ({reason}); trying the one before")
    return None


def save_weights(path: Path, weights: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """safetensors, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    save_file({k: v.detach().cpu().contiguous() for k, v in weights.items()}, temporary, metadata)
    os.replace(temporary, path)


def metadata(path: Path) -> dict[str, str]:
    """What ``save_weights`` wrote beside the weights."""
    with safe_open(path, "pt") as file:
        return file.metadata() or {}


def load_weights(folder: str | Path, part: str = "ddit") -> dict[str, Tensor]:
    """Final weights of a finished run, the averaged ones of its newest checkpoint, or, where the
    folder is a model's (it has a config.json), those of its ``part``."""
    folder = Path(folder)
    if (folder / "config.json").exists():
        return {k: v.float() for k, v in load_file(folder / f"{part}.safetensors").items()}
    if (folder / FINAL).exists():
        return load_file(folder / FINAL)
    state = load(folder)
    if state is None:
        raise FileNotFoundError(f"no {FINAL} and no checkpoint in {folder}; train it first")
    return state["ema"] or state["model"]


class Average:
    """Exponential moving average of a module's weights, with a warm start:
    decay = min(decay, (1 + n) / (10 + n)). Decay 0 keeps nothing."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = (
            {k: v.detach().clone().float() for k, v in module.state_dict().items()} if decay else {}
        )

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        if not self.decay:
            return
        keep = min(self.decay, (1 + step) / (10 + step))
        new = module.state_dict()
        ours = list(self.weights.values())
        torch._foreach_lerp_(ours, [new[k].float() for k in self.weights], 1 - keep)

    def of(self, module: nn.Module) -> dict[str, Tensor]:
        """The averaged weights, or the module's own when nothing is averaged."""
        return self.weights or {k: v.detach() for k, v in module.state_dict().items()}
