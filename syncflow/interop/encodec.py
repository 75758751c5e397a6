"""Pretrained Encodec weights as the start of an audio VAE."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from syncflow.config import EncodecVAEConfig
from syncflow.interop import checkpoints
from syncflow.json_types import JsonObject
from syncflow.models.audio_vae import AudioVAE


@dataclass
class EncodecReport:
    """What `init_audio_vae` did, by layer name."""

    taken: list[str] = field(default_factory=list)
    #: Layers among those taken whose stereo channels were folded into one.
    folded: list[str] = field(default_factory=list)
    #: Layers that are there but of another shape: name and both sets of shapes.
    reshaped: list[tuple[str, str, str]] = field(default_factory=list)
    #: Layers of ours that the source does not have (they keep their initialisation).
    missing: list[str] = field(default_factory=list)
    #: Layers of the source that have no place here.
    unused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        total = len(self.taken) + len(self.reshaped) + len(self.missing)
        lines = [f"took {len(self.taken)} of {total} layers"]
        lines += [f"taken: {name}" for name in self.taken if name not in self.folded]
        lines += [f"taken, stereo folded to mono: {name}" for name in self.folded]
        lines += [f"other shape: {name}: {a}, here {b}" for name, a, b in self.reshaped]
        lines += [f"not in the source: {name}" for name in self.missing]
        lines += [f"no place for: {name}" for name in self.unused]
        return "\n".join(lines)


def init_audio_vae(vae: AudioVAE, source: Mapping[str, Tensor] | str | Path) -> EncodecReport:
    """Copies every encoder and decoder layer of an Encodec whose shape agrees into `vae`.

    Weight normalisation is folded on the way, so that weights pass between the 24 kHz model's
    normalised and the 48 kHz model's plain convolutions. A stereo model's first and last layer are
    folded to mono: mono sound then gives what the same sound on both channels gave, and the mean of
    its two outputs. Nothing is changed on an error.

    Args:
        vae: the model to initialise.
        source: a state dict of `transformers.EncodecModel`, or where one lies: a safetensors file,
            a folder or a hub id.

    Raises:
        ValueError: the source is no Encodec.
        FileNotFoundError: there is no such file.
    """
    theirs = _layers(_read(source))
    ours = _layers(vae.state_dict())
    report = EncodecReport(unused=[name for name in theirs if name not in ours])
    for name, layer in ours.items():
        if name in theirs and _shapes(theirs[name]) != _shapes(layer):
            mono = _fold(name, theirs[name])
            if _shapes(mono) == _shapes(layer):
                theirs[name] = mono
                report.folded.append(name)
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


def trained_audio_vae(sizes: JsonObject, state_dict: Mapping[str, Tensor]) -> AudioVAE:
    """The audio VAE that training made; ``sizes`` is its config.

    Raises:
        ValueError: the weights are another's.
    """
    config = EncodecVAEConfig.parse(dict(sizes), "the audio VAE's config")
    vae = AudioVAE(config, norm=config.norm, causal=config.causal).eval()
    try:
        vae.load_state_dict(dict(state_dict))
    except RuntimeError as error:
        said = str(error).splitlines()[1].strip()
        raise ValueError(f"the audio VAE's weights do not fit its config: {said}") from None
    return vae


def audio_vae_config(
    sizes: JsonObject, state_dict: Mapping[str, Tensor], hop: int
) -> EncodecVAEConfig:
    """The audio VAE that takes most of an Encodec, with ``hop`` samples to a latent.

    Its strides are the source's but for the last, which is made to give the hop: 8, 5, 4, 2 become
    8, 5, 4, 6 for 960.

    Args:
        sizes: the source's config.json, or what there is of it; the rest is the 24 kHz model's.
        state_dict: of the source; says what its convolutions are normalised with.

    Raises:
        ValueError: no last stride gives the hop.
    """
    grouped = any(".norm." in key for key in state_dict)
    ratios = list(sizes.get("upsampling_ratios", (8, 5, 4, 2)))
    before = math.prod(ratios[:-1])
    if hop % before:
        raise ValueError(
            f"Encodec's strides {ratios} cannot be brought to {hop} samples a latent: {hop} is no "
            f"multiple of {before}"
        )
    names = ("num_filters", "num_residual_layers", "num_lstm_layers")
    return EncodecVAEConfig(
        latent_channels=sizes.get("hidden_size", 128),
        upsampling_ratios=[*ratios[:-1], hop // before],
        norm="time_group_norm" if grouped else "weight_norm",
        causal=sizes.get("use_causal_conv", not grouped),
        **{name: sizes[name] for name in names if name in sizes},
    )


def _read(source: Mapping[str, Tensor] | str | Path) -> Mapping[str, Tensor]:
    if isinstance(source, Mapping):
        return source
    return checkpoints.locate(source, "Encodec").tensors()


def _fold(name: str, layer: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A layer that reads or makes stereo as one for mono."""
    if name.startswith("encoder."):
        return {k: v.sum(1, keepdim=True) if v.ndim == 3 else v for k, v in layer.items()}
    return {k: v.mean(0, keepdim=True) for k, v in layer.items()}


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
            stored = module.weight
            assert isinstance(stored, Tensor)
            module.weight = value.to(stored)
        else:
            getattr(module, leaf).copy_(value)
