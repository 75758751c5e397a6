"""Published weights as they are found: safetensors, PyTorch files, TorchScript; and their hash."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from syncflow.interop.checkpoints import why_unread

M = TypeVar("M", bound=nn.Module)

#: Keys under which training scripts keep the state dict beside other things.
_WRAPPERS = ("model", "state_dict", "model_state_dict")


def existing(path: str | Path, what: str) -> Path:
    """The path; FileNotFoundError that says what was looked for."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no {what} at '{path}'")
    return path


def digest(path: str | Path) -> str:
    """Sixteen hex digits of a file, or of every file of a folder: what a report is tied to."""
    path, sha = Path(path), hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        with file.open("rb") as source:
            while block := source.read(1 << 20):
                sha.update(block)
    return sha.hexdigest()[:16]


def read(path: str | Path, what: str) -> dict[str, Tensor]:
    """The state dict of a safetensors or PyTorch file; of the latter tensors only, no code.

    Raises:
        FileNotFoundError: no such file. ValueError: it holds no tensors, or more than tensors.
    """
    path = existing(path, what)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        data: object = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"'{path}' holds more than tensors and was not loaded; "
            "save its state dict as safetensors"
        ) from error
    except Exception as error:
        raise ValueError(f"'{path}' cannot be read as {what}: {why_unread(error)}") from error
    for name in _WRAPPERS:
        if isinstance(data, dict) and isinstance(data.get(name), dict):
            data = data[name]
    if not isinstance(data, dict) or not any(torch.is_tensor(v) for v in data.values()):
        raise ValueError(f"'{path}' holds no state dict of {what}")
    weights = {k.removeprefix("module."): v for k, v in data.items() if torch.is_tensor(v)}
    return weights


def need(weights: dict[str, Tensor], keys: tuple[str, ...], path: str | Path, what: str) -> None:
    """ValueError unless the keys that tell the layout's sizes are there."""
    missing = [key for key in keys if key not in weights]
    if missing:
        raise ValueError(f"'{path}' is not {what}: it has no '{missing[0]}'")


def fill(module: M, weights: dict[str, Tensor], path: str | Path, what: str) -> M:
    """Loads strictly; the module in evaluation mode and float32."""
    try:
        module.load_state_dict({key: value.float() for key, value in weights.items()})
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"'{path}' is not {what}: {reason}") from error
    return module.float().eval().requires_grad_(False)


def parameters(network: torch.jit.ScriptModule) -> set[str]:
    """Names of what a TorchScript program's forward takes."""
    forward: Any = network.forward
    return {argument.name for argument in forward.schema.arguments}


def script(path: str | Path, what: str, allow_torchscript: bool) -> torch.jit.ScriptModule:
    """A TorchScript file, on the CPU.

    Raises:
        FileNotFoundError: no such file. ValueError: it is no TorchScript, or programs are not
            allowed.
    """
    path = existing(path, what)
    if not allow_torchscript:
        raise ValueError(
            f"{what} is a TorchScript file, a program that may read and write your files; if you "
            f"trust '{path}', allow it with --allow-torchscript"
        )
    try:
        return torch.jit.load(str(path), map_location="cpu").eval()
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"'{path}' is not a TorchScript {what}: {reason}") from error
