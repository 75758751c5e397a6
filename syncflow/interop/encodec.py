"""Pretrained Encodec weights as the start of an audio VAE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from syncflow.models.audio_vae import AudioVAE


@dataclass
class EncodecReport:
    """What `init_audio_vae` did, by layer name."""

    taken: list[str] = field(default_factory=list)
    #: Layers that are there but of another shape: name and both sets of shapes.
    reshaped: list[tuple[str, str, str]] = field(default_factory=list)
    #: Layers of ours that the source does not have (they keep their initialisation).
    missing: list[str] = field(default_factory=list)
    #: Layers of the source that have no place here.
    unused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        total = len(self.taken) + len(self.reshaped) + len(self.missing)
        lines = [f"took {len(self.taken)} of {total} layers"]
        lines += [f"other shape: {name}: {a}, here {b}" for name, a, b in self.reshaped]
        lines += [f"not in the source: {name}" for name in self.missing]
        lines += [f"no place for: {name}" for name in self.unused]
        return "\n".join(lines)


def init_audio_vae(vae: AudioVAE, source: Mapping[str, Tensor] | str | Path) -> EncodecReport:
    """Copies every encoder and decoder layer of an Encodec whose shape agrees into `vae`.

    Weight normalisation is folded on the way, so that weights pass between the 24 kHz model's
    normalised and the 48 kHz model's plain convolutions. Nothing is changed on an error.

    Args:
        vae: the model to initialise.
        source: a state dict of `transformers.EncodecModel`, a safetensors file of one, or a folder
            with `model.safetensors`.

    Raises:
        ValueError: the source is no Encodec.
        FileNotFoundError: there is no such file.
    """
    theirs = _layers(_read(source))
    ours = _layers(vae.state_dict())
    report = EncodecReport(unused=[name for name in theirs if name not in ours])
    for name, layer in ours.items():
        if name not in theirs:
            report.missing.append(name)
        elif _shapes(theirs[name]) != _shapes(layer):
            report.reshaped.append((name, _shapes(theirs[name]), _shapes(layer)))
        else:
            report.taken.append(name)
    if not report.taken:
        raise ValueError(
            f"no layer of the source fits the audio VAE: it has {len(theirs)} layers of an Encodec"
        )
    for name in report.taken:
        _write(vae.get_submodule(name), theirs[name])
    return report


def _read(source: Mapping[str, Tensor] | str | Path) -> Mapping[str, Tensor]:
    if isinstance(source, Mapping):
        return source
    path = Path(source)
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"no Encodec weights at {path}")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from None


def _layers(state_dict: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Tensors of encoder and decoder by layer, weight normalisation of either spelling folded."""
    layers: dict[str, dict[str, Tensor]] = {}
    for key, value in state_dict.items():
        key = key.replace(".parametrizations.weight.original0", ".weight_g")
        key = key.replace(".parametrizations.weight.original1", ".weight_v")
        if key.startswith(("encoder.", "decoder.")):
            name, _, leaf = key.rpartition(".")
            layers.setdefault(name, {})[leaf] = value
    for name, layer in layers.items():
        if "weight_g" in layer:
            if "weight_v" not in layer:
                raise ValueError(f"the source has the gain of {name} but not its direction")
            gain, direction = layer.pop("weight_g"), layer.pop("weight_v")
            norm = direction.flatten(1).norm(dim=1).view(gain.shape)
            layer["weight"] = direction * (gain / norm)
    return layers


def _shapes(layer: Mapping[str, Tensor]) -> str:
    return " ".join(f"{leaf}{list(value.shape)}" for leaf, value in sorted(layer.items()))


@torch.no_grad()
def _write(module: nn.Module, layer: Mapping[str, Tensor]) -> None:
    for leaf, value in layer.items():
        # Assigning to a parametrized weight sets the gain and direction behind it; plain tensors
        # are filled in place.
        if leaf == "weight" and hasattr(module, "parametrizations"):
            module.weight = value.to(module.weight)
        else:
            getattr(module, leaf).copy_(value)
