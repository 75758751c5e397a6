"""How clips were made: what goes into the metadata of their files, and tells two runs apart.

Nothing of it depends on the moment or on the machine's paths, so that files stay reproducible.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch

from syncflow.clip import ClipSpec
from syncflow.config import SamplingConfig
from syncflow.generation import arguments, request
from syncflow.generation.model import Model
from syncflow.json_types import JsonObject
from syncflow.model_io import fingerprint
from syncflow.sampling import OPTIONS, SamplingOptions

Record = JsonObject
_FILES = ("video", "image", "extend", "retake", "lora")
_WITH_LENGTH = ("video", "extend", "retake")  # films that bring a length of their own


def records(
    model: Model,
    prompts: Sequence[str],
    sampling: SamplingConfig,
    spec: ClipSpec,
    *,
    seed: int,
    audio_takes: int = 1,
    seconds: float | None = None,
    **given: object,
) -> list[Record]:
    """One for each prompt and take, as JSON values.

    Args:
        sampling: all settings, those of the model's folder among them.
        spec: the geometry; with a given video only its size and rates are told, and ``seconds``.
        given: other arguments of ``generate``; those that are None are not told.
    """
    shared = {
        "syncflow": sys.modules["syncflow"].__version__,
        "model": model.config.name,
        "device": model.device.type,
        "dtype": str(model.dtype).removeprefix("torch."),
        "height": spec.height,
        "width": spec.width,
        "fps": spec.fps,
        "sample_rate": spec.sample_rate,
        "sampling": sampling.model_dump(mode="json", exclude_none=True),
    }
    if model.folder is not None:
        shared["model_hash"] = fingerprint.of(model.folder)
    length = spec.seconds if _film(given) is None else seconds
    if length is not None:
        shared["seconds"] = _plain(length)
    if given.get("video") is None:
        given["v2a"] = None
    if given.get("retake") is None:
        given["part"] = None
    if given.get("lora") is None:
        given["strength"] = None
    else:
        strength = cast("float | None", given.get("strength"))
        given["strength"] = 1.0 if strength is None else float(strength)
    if audio_takes == 1:
        given["rank"] = None
    else:
        shared["audio_takes"] = int(audio_takes)
    made = []
    for index, prompt in enumerate(prompts):
        own = {name: _of(value, name, index, len(prompts)) for name, value in given.items()}
        own |= {f"{name}_hash": _hash(own[name]) for name in _FILES if name in own}
        own = {
            name: _name(value) if name in _FILES else _plain(value)
            for name, value in own.items()
            if value is not None
        }
        for take in range(1, audio_takes + 1):
            which = {"take": take} if audio_takes > 1 else {}
            made.append({**shared, **own, "prompt": prompt, "seed": int(seed) + index, **which})
    return made


def planned(model: Model, prompts: list[str], seed: int, **options: object) -> list[Record]:
    """The records that ``model.generate(prompts, seed=seed, **options)`` would give its clips.

    Raises:
        ValueError, TypeError: as ``generate``.
    """
    # Takes that are not ranked are told so; everything else that is None is as if left out.
    ranked = options.pop("rank", "sync")
    options = {name: value for name, value in options.items() if value is not None}
    names = ("audio_takes", "seconds", "height", "width")
    own = {name: options.pop(name) for name in names if name in options}
    seed, takes, seconds, height, width = arguments.checked(seed, **own)
    named = {name: options.pop(name) for name in OPTIONS if name in options}
    asked_for = cast(SamplingOptions, named)
    told: JsonObject = {"v2a": "one-pass", "rank": ranked, "part": "audio", **options}
    given = {name: told.get(name) for name in ("video", "image", "extend")}
    given["retaken"] = told["part"] if told.get("retake") is not None else None
    asked = request.resolve(
        model.config.sampling,
        prompts,
        asked_for,
        v2a=told["v2a"],
        rank=told["rank"],
        takes=takes,
        **given,
    )
    size: arguments.Size = {"seconds": seconds, "height": height, "width": width}
    spec = request.geometry(model.config, size, _film(told))
    return records(
        model,
        prompts,
        asked.sampling,
        spec,
        seed=seed,
        audio_takes=takes,
        seconds=seconds,
        **told,
    )


def _film(given: Mapping[str, object]) -> object:
    found = [given[name] for name in _WITH_LENGTH if given.get(name) is not None]
    return found[0] if found else None


def _of(value: object, name: str, index: int, prompts: int) -> object:
    """What of an argument concerns one prompt."""
    if not isinstance(value, (list, tuple)) or len(value) != prompts:
        return value
    nested = name == "contacts" and all(hasattr(item, "__len__") for item in value)
    return value[index] if nested or name in ("video", "extend") else value


def _name(value: object) -> str:
    """A file's name without its folder, which is nobody else's business."""
    return Path(value).name if isinstance(value, (str, Path)) else "given"


def _hash(value: object) -> str | None:
    """Of a file's content, which may change under the same name."""
    if not isinstance(value, (str, Path)):
        return None
    path = Path(value).expanduser()
    return fingerprint.of_file(path) if path.is_file() else None


def _plain(value: object) -> object:
    """Values of numpy and torch as Python's."""
    if isinstance(value, torch.Tensor) or hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value
