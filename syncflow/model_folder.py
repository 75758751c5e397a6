"""A model on disk: config.json and one safetensors file per part.

    config.json  ddit.safetensors  video_vae.safetensors  audio_vae.safetensors
    text_encoder.safetensors       (absent where the text encoder is T5 by folder or hub id)
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from syncflow.config import ModelConfig, TextEncoderConfig
from syncflow.models.ddit import DDiT
from syncflow.models.text_encoder import TextEncoder
from syncflow.models.vae import build_audio_vae, build_video_vae

CONFIG = "config.json"
SHIPPED = Path(__file__).parent / "pretrained"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def find(path_or_hub_id: str | Path | None = None, revision: str | None = None) -> Path:
    """The folder of a model: the one shipped in the package, a local one, or a hub download.

    Raises:
        FileNotFoundError: there is no such model. OSError: the hub cannot be reached.
    """
    if path_or_hub_id is None:
        if not (SHIPPED / CONFIG).exists():
            raise FileNotFoundError(
                f"this installation carries no pretrained model (no {SHIPPED / CONFIG}); "
                "give the folder or hub id of one"
            )
        return SHIPPED
    folder = Path(path_or_hub_id).expanduser()
    if folder.is_dir():
        if not (folder / CONFIG).exists():
            raise FileNotFoundError(f"'{folder}' is not a model folder: it has no {CONFIG}")
        return folder
    name = str(path_or_hub_id)
    if not _HUB_ID.fullmatch(name):
        raise FileNotFoundError(f"unknown model '{name}': no such folder, and no hub id")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise OSError(
            f"unknown model '{name}': no such folder, and the hub does not give it ({reason})"
        ) from error


def load(folder: Path) -> tuple[ModelConfig, dict[str, nn.Module | None]]:
    """Config and parts (ddit, video_vae, audio_vae, text_encoder), on the CPU, for inference.

    The text encoder is None where it is T5: ``load_t5`` makes it when it is first needed.
    """
    config = ModelConfig.load(folder / CONFIG)
    # Nothing of the d-DiT survives loading, so its billion parameters are never initialised. The
    # others hold buffers that are computed and not stored.
    with torch.device("meta"):
        ddit = DDiT(config.ddit)
    parts: dict[str, nn.Module | None] = {
        "ddit": _fill(ddit, folder / "ddit.safetensors", assign=True),
        "video_vae": _fill(build_video_vae(config.video_vae), folder / "video_vae.safetensors"),
        "audio_vae": _fill(build_audio_vae(config.audio_vae), folder / "audio_vae.safetensors"),
        "text_encoder": None,
    }
    if config.text_encoder.kind == "bytes":
        encoder = TextEncoder(config.text_encoder)
        parts["text_encoder"] = _fill(encoder, folder / "text_encoder.safetensors")
    return config, parts


def load_t5(config: TextEncoderConfig, folder: Path | None, dtype: torch.dtype) -> TextEncoder:
    """T5 from the hub, or from a folder, which may lie inside the model's own."""
    inside = folder / config.name_or_path if folder is not None else None
    if inside is not None and inside.is_dir():
        config = config.model_copy(update={"name_or_path": str(inside)})
    return TextEncoder(config, dtype=dtype).eval().requires_grad_(False)


def save(folder: str | Path, config: ModelConfig, parts: dict[str, nn.Module | None]) -> Path:
    """Writes what ``load`` reads; every file is complete or absent."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, module in parts.items():
        if module is None:
            continue
        weights = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
        temporary = folder / f".{name}.{os.getpid()}"
        save_file(weights, temporary)
        os.replace(temporary, folder / f"{name}.safetensors")
    config.dump(folder / CONFIG)
    return folder


def _fill(module: nn.Module, path: Path, assign: bool = False) -> nn.Module:
    if not path.exists():
        raise FileNotFoundError(f"the model folder is not complete: no '{path}'")
    try:
        module.load_state_dict(load_file(path), assign=assign)
    except SafetensorError as error:
        raise ValueError(f"'{path}' is damaged: {error}") from error
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"'{path}' does not fit {CONFIG}: {reason}") from error
    return module.eval().requires_grad_(False)
