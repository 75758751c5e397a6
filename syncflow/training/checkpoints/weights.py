"""Where the weights of a finished run, a checkpoint or a model folder are found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from syncflow.config import ModelConfig, find
from syncflow.model_io import lora, model_folder, tensors
from syncflow.training.checkpoints import checkpoint

FINAL = "model.safetensors"
#: What training hangs on a model and no model has (``tasks/alignment``).
ALIGNMENT = "alignment"


def load(folder: str | Path, part: str = "ddit") -> dict[str, Tensor]:
    """The final weights of a finished run, the averaged ones of a checkpoint
    (``runs/x/checkpoints/00001200``), a model folder's ``part`` or a safetensors file. Low-rank
    additions are merged in: a checkpoint's, and those of a ``lora.safetensors``, with its base.

    Raises:
        FileNotFoundError: there are none, or the run is not finished.
        ValueError: they are damaged, or have numbers that are not finite.
    """
    folder = find(folder)
    if folder.suffix == ".safetensors":
        return _with_base(folder) if lora.is_additions(folder) else tensors.load(folder)
    if (folder / model_folder.CONFIG).exists():
        return {k: v.float() for k, v in tensors.load(folder / f"{part}.safetensors").items()}
    if (folder / FINAL).exists():
        return tensors.load(folder / FINAL)
    if (folder / checkpoint.MANIFEST).exists():
        found = _of_checkpoint(checkpoint.Saved(folder))
        return {k: v for k, v in found.items() if not k.startswith(f"{ALIGNMENT}.")}
    saved = checkpoint.folders(folder)
    if saved:
        raise FileNotFoundError(
            f"{folder} is not finished (no {FINAL}); finish it, or name a checkpoint of it: "
            f"{saved[0]}"
        )
    raise FileNotFoundError(f"no {FINAL} in {folder}; train it first")


def below(values: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those of one part, by their names within it."""
    return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}


def fill(module: nn.Module, values: Mapping[str, Tensor], where: str) -> None:
    """Gives a module its weights.

    Raises:
        ValueError: those from ``where`` are not of this module.
    """
    try:
        module.load_state_dict(values)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"the weights of {where} do not fit the model: {reason}") from error


def _of_checkpoint(saved: checkpoint.Saved) -> dict[str, Tensor]:
    values = saved.weights()
    for name, value in values.items():
        if not tensors.is_finite(value):
            raise ValueError(f"the checkpoint has numbers that are not finite in {name!r}")
    added = json.loads(saved.about.get("config") or "{}").get("lora")
    return lora.merged(values, added["alpha"] / added["rank"]) if added else values


def _with_base(path: Path) -> dict[str, Tensor]:
    additions = lora.read(path)
    if additions.base is None:
        raise ValueError(
            f"'{path}' holds low-rank additions alone and does not name what they add to; give the "
            f"folder of its run, whose {FINAL} has them merged in"
        )
    return lora.added(load(additions.base), additions)


def about(folder: str | Path) -> Mapping[str, str]:
    """What is written beside a run's or a checkpoint's weights: config, encoders, statistics ...

    The last two, and the config, are JSON in a string; what a checkpoint counts (``About``) is not
    for who asks here. {} where nothing is known.
    """
    folder = find(folder)
    if (folder / checkpoint.MANIFEST).exists():
        return cast("Mapping[str, str]", checkpoint.manifest(folder))
    return tensors.about(folder / FINAL) if (folder / FINAL).exists() else {}


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
