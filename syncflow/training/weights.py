"""Where the weights of a finished run, a checkpoint or a model folder are found."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from syncflow import model_folder
from syncflow.training import checkpoint

FINAL = "model.safetensors"


def load(folder: str | Path, part: str = "ddit") -> dict[str, Tensor]:
    """The final weights of a finished run, the averaged ones of a checkpoint
    (``runs/x/checkpoints/00001200``) or a model folder's ``part``.

    Raises:
        FileNotFoundError: there are none, or the run is not finished.
        ValueError: the checkpoint is damaged.
    """
    folder = Path(folder)
    if (folder / model_folder.CONFIG).exists():
        return {k: v.float() for k, v in load_file(folder / f"{part}.safetensors").items()}
    if (folder / FINAL).exists():
        return load_file(folder / FINAL)
    if (folder / checkpoint.MANIFEST).exists():
        return checkpoint.Saved(folder).weights()
    saved = checkpoint.folders(folder)
    if saved:
        raise FileNotFoundError(
            f"{folder} is not finished (no {FINAL}); finish it, or name a checkpoint of it: "
            f"{saved[0]}"
        )
    raise FileNotFoundError(f"no {FINAL} in {folder}; train it first")
