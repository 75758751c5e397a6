"""What a model folder holds, on a device: read, moved, saved, and asked by all that generates."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Self

import torch
from torch import nn

from syncflow.clip import Clip, to_model, to_pixels
from syncflow.config import ModelConfig, T5TextConfig
from syncflow.generation.codecs import Codecs
from syncflow.generation.steps import Steps
from syncflow.model_io import hub, model_folder, preview_map
from syncflow.model_io.text_cache import PromptEncoder
from syncflow.models.codec import AudioCodec, VideoCodec
from syncflow.models.ddit import DDiT
from syncflow.models.latent_space import Scale
from syncflow.models.preview_map import PreviewMap
from syncflow.models.text.encoder import TextEncoder


class Model:
    """A text encoder, the d-DiT and both VAEs, without how clips are made with them
    (``pipeline.SyncFlow``)."""

    def __init__(
        self,
        config: ModelConfig,
        ddit: DDiT,
        video_vae: VideoCodec,
        audio_vae: AudioCodec,
        text_encoder: TextEncoder | None = None,
        folder: Path | None = None,
        steps: Steps | None = None,
    ) -> None:
        self.config, self.folder = config, folder
        self.steps = steps or Steps(graph=True)
        self.ddit, self.video_vae, self.audio_vae = ddit, video_vae, audio_vae
        self._text_encoder: TextEncoder | PromptEncoder | None = text_encoder
        self._video = Scale.of_video(config.latent_mean_video, config.latent_std_video)
        self._audio = Scale.of_audio(config.latent_mean_audio, config.latent_std_audio)
        #: The preview map: the folder's, read when it is first needed, unless it is set.
        self.previews: PreviewMap | None = None
        self.device, self.dtype = torch.device("cpu"), torch.float32
        for part in (ddit, video_vae, audio_vae, text_encoder):
            if part is not None:
                part.eval().requires_grad_(False)

    def to(self, device: str | torch.device, dtype: torch.dtype | None = None) -> Self:
        """Moves everything; ``dtype`` is the towers', None = the device's default."""
        try:
            self.device = torch.device(device)
            self.dtype = dtype or (torch.float32 if self.device.type == "cpu" else torch.bfloat16)
            self.ddit.to(self.device, self.dtype)
            if self.device.type == "cuda":
                self.ddit.fold()
            self.audio_vae.to(self.device, torch.float32)
            if self.device.type == "cuda":
                self.video_vae.for_gpu(self.device, self.dtype)
            else:
                self.video_vae.to(self.device, torch.float32)
            self.steps.clear()
            if self._text_encoder is not None:
                self._text_encoder.to(self.device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"device {str(device)!r} cannot be used: {reason}") from error
        return self

    @property
    def codecs(self) -> Codecs:
        return Codecs(
            self.video_vae, self.audio_vae, self._video, self._audio, self.steps, self.device
        )

    def preview_map(self) -> PreviewMap:
        """What steps are shown with.

        Raises:
            ValueError: the model's folder has none, or one of other VAEs.
        """
        if self.previews is None:
            if self.folder is None:
                raise ValueError("a model without a folder has no preview map: set its previews")
            self.previews = preview_map.load(self.folder)
        return self.previews

    @property
    def text_encoder(self) -> TextEncoder | PromptEncoder:
        """T5 is in memory only while it encodes."""
        if self._text_encoder is None:
            config = self.config.text_encoder
            assert isinstance(config, T5TextConfig)  # the other kind is loaded with the model
            self._text_encoder = PromptEncoder(config, self.folder, self.device)
        return self._text_encoder

    def save(self, folder: str | Path) -> Path:
        """Writes the model folder that ``load`` reads, model card included."""
        text = self._text_encoder
        parts: dict[str, nn.Module | None] = {
            "ddit": self.ddit,
            "video_vae": self.video_vae,
            "audio_vae": self.audio_vae,
            "text_encoder": text if isinstance(text, TextEncoder) else None,
        }
        saved = model_folder.save(folder, self.config, parts, source=self.folder)
        with suppress(ValueError):  # a model may have none
            preview_map.save(saved, self.preview_map())
        return saved

    def push_to_hub(
        self,
        repo_id: str,
        *,
        revision: str | None = None,
        private: bool = False,
        token: str | None = None,
        message: str = "Add a syncflow model",
    ) -> str:
        """Saves the model into a hub repository, made where it is missing; returns the address.

        Raises:
            ValueError: ``repo_id`` is not owner/name. OSError: the hub refuses.
        """
        with tempfile.TemporaryDirectory() as folder:
            return hub.upload(
                self.save(folder),
                repo_id,
                revision=revision,
                private=private,
                token=token,
                message=message,
            )

    @torch.inference_mode()
    def reconstruct(self, clip: Clip) -> Clip:
        """The clip through both VAEs and back: the best that generation could look and sound.

        Raises:
            ValueError: another sample rate than the model's, or a size that the VAE cannot take.
        """
        rate = self.config.geometry.sample_rate
        if clip.sample_rate != rate:
            raise ValueError(f"the model's sample rate is {rate} Hz, the clip's {clip.sample_rate}")
        pixels = to_model(clip.video)[None].to(self.device)
        video = self.video_vae.encode(pixels).mode()
        video = self.video_vae.decode(video, num_frames=len(clip.video))
        audio = self.audio_vae.encode(clip.audio[None].to(self.device, torch.float32)).mode()
        audio = self.audio_vae.decode(audio, num_samples=len(clip.audio))
        return Clip(
            to_pixels(video[0]).cpu(), audio[0].clamp(-1, 1).cpu(), clip.fps, rate, clip.prompt
        )
