"""A model on disk: config.json and one safetensors file per part.

config.json  ddit.safetensors  video_vae.safetensors  audio_vae.safetensors  README.md
text_encoder.safetensors  or, where it is T5, text_encoder/ or only a hub id in the config
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypedDict, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from syncflow import durable
from syncflow.config import SHIPPED as SHIPPED_NAME
from syncflow.config import BytesTextConfig, ModelConfig, OpenSoraVAEConfig, T5TextConfig
from syncflow.model_io import hub, model_card, tensors
from syncflow.models.codec import AudioCodec, VideoCodec
from syncflow.models.ddit import DDiT
from syncflow.models.text.encoder import TextEncoder
from syncflow.models.vae import build_audio_vae, build_video_vae

M = TypeVar("M", bound=nn.Module)

CONFIG = "config.json"
SHIPPED = Path(__file__).resolve().parents[1] / "pretrained"
CARD = "README.md"


def find(path_or_hub_id: str | Path | None = None, revision: str | None = None) -> Path:
    """The folder of a model: the one in the package (None, or "shipped"), a local one, or a hub
    download.

    Raises:
        FileNotFoundError: there is no such model. OSError: the hub cannot be reached.
    """
    named = path_or_hub_id is not None and str(path_or_hub_id) == SHIPPED_NAME
    if path_or_hub_id is None or (named and not Path(SHIPPED_NAME).exists()):
        if not (SHIPPED / CONFIG).exists():
            raise FileNotFoundError(
                f"this installation has no pretrained model (no {SHIPPED / CONFIG}); "
                "give a model folder or hub id"
            )
        return SHIPPED
    folder = Path(path_or_hub_id).expanduser()
    if folder.is_dir():
        if not (folder / CONFIG).exists():
            raise FileNotFoundError(f"'{folder}' is not a model folder: it has no {CONFIG}")
        return folder
    name = str(path_or_hub_id)
    if not hub.is_id(name):
        raise FileNotFoundError(f"unknown model '{name}': it is neither a folder nor a hub id")
    folder = hub.fetch(name, revision)
    if not (folder / CONFIG).exists():
        raise FileNotFoundError(f"'{name}' is not a model: it has no {CONFIG}")
    return folder


class EncoderParts(TypedDict):
    """The frozen parts; ``text_encoder`` None = T5, which visits while it is needed."""

    video_vae: VideoCodec
    audio_vae: AudioCodec
    text_encoder: TextEncoder | None


class Parts(EncoderParts):
    """All parts of a model."""

    ddit: DDiT


def load(folder: Path) -> tuple[ModelConfig, Parts]:
    """Config and parts (ddit, video_vae, audio_vae, text_encoder), on the CPU, for inference.

    The text encoder is None where it is T5, which visits while it is needed (``text_cache``).
    """
    config, parts = load_encoders(folder)
    return config, {"ddit": load_ddit(folder, config), **parts}


def load_ddit(folder: Path, config: ModelConfig) -> DDiT:
    """The d-DiT alone, for inference."""
    # Nothing of it survives loading, so its billion parameters are never initialised.
    with _WithoutMemory():
        ddit = DDiT(config.ddit)
    return _fill(ddit, folder / "ddit.safetensors", assign=True)


class _WithoutMemory(TorchFunctionMode):
    """Tensors on the meta device, where loading fills them. Small tables that are computed stay on
    the CPU and normal numbers undrawn: on the meta device both would import PyTorch's compiler,
    which takes longer than loading the model."""

    def __torch_function__(
        self,
        function: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        if function is nn.init.normal_:
            return kwargs["tensor"]
        if function in (torch.empty, torch.zeros, torch.ones) and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return function(*args, **kwargs)


def load_encoders(folder: Path) -> tuple[ModelConfig, EncoderParts]:
    """The same without the d-DiT: what preparing data needs."""
    config = ModelConfig.load(folder / CONFIG)
    parts: EncoderParts = {
        "video_vae": load_video_vae(folder, config),
        "audio_vae": load_audio_vae(folder, config),
        "text_encoder": load_text_encoder(folder, config),
    }
    return config, parts


def load_video_vae(folder: Path, config: ModelConfig) -> VideoCodec:
    """The video VAE alone."""
    # As little survives of Open-Sora's VAE; the others hold buffers that are computed and not
    # stored.
    stored_whole = isinstance(config.video_vae, OpenSoraVAEConfig)
    with torch.device("meta" if stored_whole else "cpu"):
        vae = build_video_vae(config.video_vae)
    return _fill(vae, folder / "video_vae.safetensors", assign=stored_whole)


def load_audio_vae(folder: Path, config: ModelConfig) -> AudioCodec:
    """The audio VAE alone."""
    return _fill(build_audio_vae(config.audio_vae), folder / "audio_vae.safetensors")


def load_text_encoder(folder: Path, config: ModelConfig) -> TextEncoder | None:
    """The text encoder alone; None where it is T5 (``text_cache``)."""
    weights = folder / "text_encoder.safetensors"
    if isinstance(config.text_encoder, BytesTextConfig):
        return _fill(TextEncoder(config.text_encoder), weights)
    if weights.exists():
        raise ValueError(
            f"'{weights}' is there, and {folder / CONFIG} says that T5 reads the captions: name "
            "that encoder's sizes there, or move the file away"
        )
    return None


def statistics(config: ModelConfig) -> dict[str, list[float]] | None:
    """Mean and standard deviation per latent channel that a model works with, under the names that
    manifests of latents use; None where its config does not say."""
    names = [f"{kind}_{which}" for kind in ("video", "audio") for which in ("mean", "std")]
    values = {name: getattr(config, "latent_{1}_{0}".format(*name.split("_"))) for name in names}
    return None if None in values.values() else values


def save(
    folder: str | Path,
    config: ModelConfig,
    parts: Mapping[str, nn.Module | None],
    source: Path | None = None,
    card: str | None = None,
) -> Path:
    """Writes what ``load`` reads; every file is complete or absent.

    Args:
        parts: by the names that ``load`` gives them.
        source: the model's folder up to now, whose T5 and model card go along.
        card: the README; the source's, or a plain one, when not given.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, module in parts.items():
        if module is None:
            continue
        tensors.save(folder / f"{name}.safetensors", module.state_dict())
    if source is not None and source.resolve() != folder.resolve():
        _take_along(source, folder, config)
    if card is not None or not (folder / CARD).exists():
        durable.write_text(folder / CARD, card or model_card.plain(config))
    config.dump(folder / CONFIG)
    return folder


def _take_along(source: Path, folder: Path, config: ModelConfig) -> None:
    if (source / CARD).exists():
        shutil.copyfile(source / CARD, folder / CARD)
    if isinstance(config.text_encoder, T5TextConfig):
        name = config.text_encoder.name_or_path
        if Path(name).name == name and (source / name).is_dir():
            shutil.copytree(source / name, folder / name, dirs_exist_ok=True)


def _fill(module: M, path: Path, assign: bool = False) -> M:
    if not path.exists():
        raise FileNotFoundError(f"the model folder is incomplete: there is no '{path}'")
    try:
        module.load_state_dict(tensors.load(path), assign=assign)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"'{path}' does not fit {CONFIG}: {reason}") from error
    return module.eval().requires_grad_(False)
