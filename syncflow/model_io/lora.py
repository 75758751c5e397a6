"""Low-rank additions to a d-DiT in a file of their own, and how weights take them in.

    lora.safetensors   LAYER.lora_A.default.weight [r,in], LAYER.lora_B.default.weight [out,r];
                       in the header rank, alpha, base (what they were trained on), fingerprint

A layer's weight becomes W + strength * (alpha / rank) B A.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from syncflow.model_io import tensors

FILE = "lora.safetensors"
#: Of the only set of matrices beside a layer, in peft's names.
NAME = "default"
_DOWN, _UP = f".lora_A.{NAME}.weight", f".lora_B.{NAME}.weight"
_BASE = ".base_layer."
_SAMPLE = 64  # numbers of a layer that enter the fingerprint
_STRONGEST = 10.0


@dataclass(frozen=True)
class Additions:
    """What a file adds: ``pairs`` of matrices (B [out,r], A [r,in]) by layer, times ``scale``;
    ``base`` and ``fingerprint`` of the weights that they were trained on, where the file says."""

    path: Path
    pairs: dict[str, tuple[Tensor, Tensor]]
    scale: float
    base: str | None
    fingerprint: str | None


def is_additions(path: str | Path) -> bool:
    """Whether a safetensors file holds additions and not weights."""
    return {"rank", "alpha"} <= tensors.about(path).keys()


def read(path: str | Path) -> Additions:
    """What ``write`` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds something else.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no '{path}' to add to the model")
    about, values = tensors.about(path), tensors.load(path)
    try:
        scale = float(about["alpha"]) / float(about["rank"])
    except (KeyError, ValueError, ZeroDivisionError):
        raise ValueError(f"'{path}' holds no low-rank additions: it states no rank") from None
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for name, down in values.items():
        if name.endswith(_DOWN):
            layer = name.removesuffix(_DOWN)
            up = values.get(layer + _UP)
            if up is None or not up.ndim == down.ndim == 2 or up.shape[1] != len(down):
                raise ValueError(f"'{path}' is damaged: its matrices of {layer} do not fit")
            pairs[layer] = (up, down)
    if not pairs or 2 * len(pairs) != len(values) or not math.isfinite(scale):
        raise ValueError(f"'{path}' holds no low-rank additions of syncflow's")
    return Additions(path, pairs, scale, about.get("base") or None, about.get("fingerprint"))


def write(
    path: Path, values: Mapping[str, Tensor], rank: int, alpha: float, base: str | None
) -> None:
    """Writes the matrices alone of a module into which peft injected them."""
    small = {name: value for name, value in values.items() if name.endswith((_DOWN, _UP))}
    layers = {name.removesuffix(_DOWN) for name in small if name.endswith(_DOWN)}
    before = {layer: values[f"{layer}{_BASE}weight"] for layer in layers}
    about = {"rank": str(rank), "alpha": str(alpha), "fingerprint": _fingerprint(before)}
    if base is not None:
        about["base"] = base
    tensors.save(path, small, about, tag="run")


def merged(values: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """The weights of a module into which peft injected matrices, as a plain one's."""
    out = {}
    for name, value in values.items():
        if ".lora_" in name:
            continue
        plain = name.replace(_BASE, ".")
        out[plain] = value
        if name.endswith(f"{_BASE}weight"):
            layer = name.removesuffix(f"{_BASE}weight")
            out[plain] = _sum(value, values[layer + _UP], values[layer + _DOWN], scale)
    return out


def added(values: Mapping[str, Tensor], additions: Additions) -> dict[str, Tensor]:
    """Plain weights with the additions in them.

    Raises:
        ValueError: they have not all the layers, or of other shapes.
    """
    _check(values, additions)
    out = dict(values)
    for layer, (up, down) in additions.pairs.items():
        out[f"{layer}.weight"] = _sum(values[f"{layer}.weight"], up, down, additions.scale)
    return out


@contextmanager
def applied(module: nn.Module, path: str | Path | None, strength: float = 1.0) -> Iterator[None]:
    """The additions of a file are in a module's weights for a while, which then are what they were,
    bit for bit. Of a file that was trained on another model a warning tells.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or does not fit, or ``strength`` is no number within -10 to 10.
    """
    is_number = isinstance(strength, int | float) and not isinstance(strength, bool)
    if not is_number or not abs(strength) <= _STRONGEST:
        raise ValueError(f"strength must be a number from -10 to 10, got {strength!r}")
    if path is None:
        yield
        return
    additions = read(path)
    state = dict(module.named_parameters())
    _check(state, additions)
    before = {layer: state[f"{layer}.weight"].detach().clone() for layer in additions.pairs}
    known = additions.fingerprint
    if next(iter(before.values())).dtype == torch.float16:  # rounds otherwise than training
        known = None
    if known not in (None, _fingerprint(before)):
        base = f" ('{additions.base}')" if additions.base else ""
        warnings.warn(f"'{path}' was trained on another model than this one{base}", stacklevel=4)
    try:
        with torch.no_grad():
            for layer, (up, down) in additions.pairs.items():
                weight, scale = state[f"{layer}.weight"], strength * additions.scale
                weight.copy_(_sum(weight, up.to(weight.device), down.to(weight.device), scale))
        yield
    finally:
        with torch.no_grad():
            for layer, value in before.items():
                state[f"{layer}.weight"].copy_(value)


def _sum(weight: Tensor, up: Tensor, down: Tensor, scale: float) -> Tensor:
    change = up.double() @ down.double()
    return torch.add(weight.double(), change, alpha=scale).to(weight.dtype)


def _check(values: Mapping[str, Tensor], additions: Additions) -> None:
    for layer, (up, down) in additions.pairs.items():
        weight = values.get(f"{layer}.weight")
        if weight is None or weight.shape != (len(up), down.shape[1]):
            has = "it has none" if weight is None else f"it has one of {list(weight.shape)}"
            base = f"; it was trained on '{additions.base}'" if additions.base else ""
            raise ValueError(
                f"'{additions.path}' does not fit this model: it adds to {layer} of "
                f"{[len(up), down.shape[1]]}, and {has}{base}"
            )


def _fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Of a sample of every layer, as bfloat16 has it: model folders hold no more."""
    digest = hashlib.sha256()
    for layer, value in sorted(weights.items()):
        sample = value.detach().flatten()[:_SAMPLE].cpu().to(torch.bfloat16)
        digest.update(layer.encode() + sample.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]
