"""What loads the parts of a model folder for diffusers' ``ComponentSpec``."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch

from syncflow.config import ModelConfig, T5TextConfig
from syncflow.model_io import model_folder
from syncflow.model_io.text_cache import PromptEncoder
from syncflow.models.codec import AudioCodec, VideoCodec
from syncflow.models.ddit import DDiT
from syncflow.models.text.encoder import TextEncoder


class Settings:
    """A model folder's config, as a component: geometry, sampling defaults, latents' statistics."""

    def __init__(self, config: ModelConfig, folder: Path) -> None:
        self.config, self.folder = config, folder

    @classmethod
    def from_pretrained(cls, path: str, *, revision: str | None = None, **_: object) -> Self:
        """Of a model folder or hub id."""
        folder = model_folder.find(path, revision)
        return cls(ModelConfig.load(folder / model_folder.CONFIG), folder)


class _TextEncoder(TextEncoder):
    """Of ``ComponentSpec``: loads the text encoder of a model folder."""

    @classmethod
    def from_pretrained(
        cls, path: str, *, revision: str | None = None, **_: object
    ) -> TextEncoder | PromptEncoder:
        """The encoder; T5 is in memory only while it encodes."""
        folder, config = _folder(path, revision)
        if isinstance(config.text_encoder, T5TextConfig):
            return PromptEncoder(config.text_encoder, folder, "cpu")
        found = model_folder.load_text_encoder(folder, config)
        assert found is not None  # that is T5 alone
        return found


class _DDiT(DDiT):
    """Of ``ComponentSpec``: loads the d-DiT of a model folder."""

    @classmethod
    def from_pretrained(
        cls,
        path: str,
        *,
        revision: str | None = None,
        dtype: torch.dtype | None = None,
        **_: object,
    ) -> DDiT:
        """The d-DiT; None = float32, whatever its file has."""
        return model_folder.load_ddit(*_folder(path, revision)).to(dtype or torch.float32)


class _VideoVAE(VideoCodec):
    """Of ``ComponentSpec``: loads the video VAE of a model folder, always in float32."""

    @classmethod
    def from_pretrained(cls, path: str, *, revision: str | None = None, **_: object) -> VideoCodec:
        """The VAE."""
        return model_folder.load_video_vae(*_folder(path, revision)).float()


class _AudioVAE(AudioCodec):
    """Of ``ComponentSpec``: loads the audio VAE of a model folder, always in float32."""

    @classmethod
    def from_pretrained(cls, path: str, *, revision: str | None = None, **_: object) -> AudioCodec:
        """The VAE."""
        return model_folder.load_audio_vae(*_folder(path, revision)).float()


def _folder(path: str, revision: str | None) -> tuple[Path, ModelConfig]:
    folder = model_folder.find(path, revision)
    return folder, ModelConfig.load(folder / model_folder.CONFIG)


KINDS = {
    "text_encoder": _TextEncoder,
    "ddit": _DDiT,
    "video_vae": _VideoVAE,
    "audio_vae": _AudioVAE,
    "settings": Settings,
}
