"""The preview map of a model folder: read, written, and refused where it is of other VAEs."""

from __future__ import annotations

from pathlib import Path

from syncflow.model_io import fingerprint, tensors
from syncflow.models.preview_map import PreviewMap

_VAES = ("video_vae.safetensors", "audio_vae.safetensors")
_FIT = "`syncflow evaluate preview --model DIR --write` fits one"


def save(folder: Path, fitted: PreviewMap) -> Path:
    """Writes a map beside the VAEs that it was fitted to; half precision is enough for eyes.

    Raises:
        OSError: it cannot be written.
    """
    path = folder / fingerprint.PREVIEW
    weights = {"picture": fitted.picture.half(), "sound": fitted.sound.half()}
    tensors.save(path, weights, _of(folder))
    return path


def load(folder: Path) -> PreviewMap:
    """The map of a model folder.

    Raises:
        ValueError: there is none, it is damaged, it is no map, or one fitted to other VAEs.
    """
    path = folder / fingerprint.PREVIEW
    if not path.exists():
        raise ValueError(f"this model's folder has no preview map ({path.name}); {_FIT}")
    if not path.is_file():
        raise ValueError(f"'{path}' is no preview map but a folder: move it away; {_FIT}")
    found = tensors.load(path)
    if tensors.about(path) != _of(folder):
        raise ValueError(f"'{path}' was fitted to other VAEs than the folder's; {_FIT}")
    if set(found) != {"picture", "sound"}:
        raise ValueError(f"'{path}' is no preview map; {_FIT}")
    try:
        return PreviewMap(found["picture"].float(), found["sound"].float())
    except ValueError as error:
        raise ValueError(f"'{path}': {error}; {_FIT}") from None


def _of(folder: Path) -> dict[str, str]:
    return {name: fingerprint.of_file(folder / name) for name in _VAES}
