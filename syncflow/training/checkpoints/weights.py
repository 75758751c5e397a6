"""Where the weights of a finished run, a checkpoint or a model folder are found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from syncflow.config import ModelConfig, find
from syncflow.model_io import model_folder
from syncflow.training.checkpoints import checkpoint

FINAL = "model.safetensors"
#: What training hangs on a model and no model has (``tasks/alignment``).
ALIGNMENT = "alignment"


def load(folder: str | Path, part: str = "ddit") -> dict[str, Tensor]:
    """The final weights of a finished run, the averaged ones of a checkpoint
    (``runs/x/checkpoints/00001200``), a model folder's ``part`` or a safetensors file.

    Raises:
        FileNotFoundError: there are none, or the run is not finished.
        ValueError: the checkpoint is damaged.
    """
    folder = find(folder)
    if folder.suffix == ".safetensors":
        return load_file(folder)
    if (folder / model_folder.CONFIG).exists():
        return {k: v.float() for k, v in load_file(folder / f"{part}.safetensors").items()}
    if (folder / FINAL).exists():
        return load_file(folder / FINAL)
    if (folder / checkpoint.MANIFEST).exists():
        found = checkpoint.Saved(folder).weights()
        return {k: v for k, v in found.items() if not k.startswith(f"{ALIGNMENT}.")}
    saved = checkpoint.folders(folder)
    if saved:
        raise FileNotFoundError(
            f"{folder} is not finished (no {FINAL}); finish it, or name a checkpoint of it: "
            f"{saved[0]}"
        )
    raise FileNotFoundError(f"no {FINAL} in {folder}; train it first")


def about(folder: str | Path) -> dict[str, Any]:
    """What is written beside a run's or a checkpoint's weights: config, encoders, statistics ...

    The last two, and the config, are JSON in a string. {} where nothing is known.
    """
    folder = find(folder)
    if (folder / checkpoint.MANIFEST).exists():
        return checkpoint.Saved(folder).about
    return checkpoint.metadata(folder / FINAL) if (folder / FINAL).exists() else {}


def statistics(folder: str | Path) -> dict[str, list[float]] | None:
    """``video_mean``, ``video_std``, ``audio_mean``, ``audio_std`` per latent channel that the
    weights of a run, a checkpoint or a model folder were trained with; None where not known."""
    path = find(folder) / model_folder.CONFIG
    if not path.exists():
        known = about(folder).get("statistics")
        return json.loads(known) if known else None
    config = ModelConfig.load(path)
    channels = {"video": config.ddit.video.in_channels, "audio": config.ddit.audio.in_channels}
    return {
        f"{kind}_{which}": getattr(config, f"latent_{which}_{kind}") or [default] * count
        for kind, count in channels.items()
        for which, default in (("mean", 0.0), ("std", 1.0))
    }
