"""Weights in safetensors files: written whole or not at all, refused where they are damaged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from syncflow import durable


def save(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    about: dict[str, str] | None = None,
    tag: str | None = None,
) -> None:
    """Writes tensors, and ``about`` in the file's header, as ``durable.replacing`` does.

    Raises:
        OSError: they cannot be written (a full disk); the error names ``path``.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with durable.replacing(path, tag) as temporary:
        save_file(plain, temporary, about)


def load(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file, on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or has a number that is not finite.
    """
    try:
        found = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"'{path}' is damaged: {error}") from error
    for name, value in found.items():
        if not is_finite(value):
            raise ValueError(f"'{path}' has numbers that are not finite in {name!r}")
    return found


def about(path: str | Path) -> dict[str, str]:
    """What ``save`` was told about the tensors.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"'{path}' is damaged: {error}") from error


def is_finite(value: Tensor) -> bool:
    """Whether all numbers are. A sum is one pass without a copy; it may be infinite where they are
    not, and only then each is looked at."""
    if not value.is_floating_point() or not value.numel():
        return True
    total = value.sum(dtype=torch.float32 if value.dtype != torch.float64 else None)
    return bool(torch.isfinite(total)) or bool(torch.isfinite(value).all())
