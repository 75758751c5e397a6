"""The frozen encoders of a model, and what they make of raw clips."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from syncflow.clip import to_model
from syncflow.data.latent_rows import Rows
from syncflow.data.manifest import RecordLine, SkippedLine
from syncflow.models.codec import AudioCodec, VideoCodec, has_bfloat16
from syncflow.models.text.encoder import TextEncoder


def weights_hash(module: nn.Module, parts: Collection[str] = ()) -> str:
    """Sixteen hex digits of a module's weights; of ``parts``, the weights in a child of one of
    these names alone."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if parts and not set(parts) & set(name.split(".")):
            continue
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@dataclass
class Encoders:
    """Video VAE, audio VAE and text encoder, in evaluation mode."""

    video_vae: VideoCodec
    audio_vae: AudioCodec
    text_encoder: TextEncoder
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        try:
            for part in (self.video_vae, self.audio_vae, self.text_encoder):
                part.to(self.device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"device '{self.device}' cannot be used: {reason}") from error

    def hashes(self) -> dict[str, str]:
        """``weights_hash`` of each, which training compares."""
        names = ("video_vae", "audio_vae", "text_encoder")
        return {name: weights_hash(getattr(self, name)) for name in names}

    @torch.no_grad()
    def rows(self, video_BF3HW: Tensor, audio_BM: Tensor, records: Sequence[RecordLine]) -> Rows:
        """Posteriors of clips (uint8 video, float audio in [-1,1]) and the embeddings of the
        captions in ``records``, as true tokens only. A clip whose latents do not fit float16 is
        left out and listed as skipped."""
        device = torch.device(self.device)
        with torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device)):
            video = self.video_vae.encode(to_model(video_BF3HW.to(device)))
            audio = self.audio_vae.encode(audio_BM.to(device))
        values = {
            "video_mean": video.mean,
            "video_std": video.std,
            "audio_mean": audio.mean,
            "audio_std": audio.std,
        }
        arrays = {name: value.float().cpu().numpy() for name, value in values.items()}
        with np.errstate(over="ignore"):
            arrays = {name: value.astype(np.float16) for name, value in arrays.items()}
        fine = np.ones(len(records), dtype=bool)
        for value in arrays.values():
            fine &= np.isfinite(value).reshape(len(value), -1).all(1)
        good = [record for record, ok in zip(records, fine, strict=True) if ok]
        bad: list[SkippedLine] = [
            {
                "file": record.get("file"),
                "start": record.get("start"),
                "reason": "not finite",
                "detail": "its latents are not finite in float16",
            }
            for record, ok in zip(records, fine, strict=True)
            if not ok
        ]
        texts = self._texts(sorted({record["caption"] for record in good}))
        return Rows({name: value[fine] for name, value in arrays.items()}, texts, good, bad)

    def _texts(self, captions: list[str]) -> dict[str, np.ndarray]:
        if not captions:
            return {}
        text_BLE, mask_BL = self.text_encoder.encode(captions)
        text, mask = text_BLE.float().cpu(), mask_BL.cpu()
        return {
            caption: text[row][mask[row]].numpy().astype(np.float16)
            for row, caption in enumerate(captions)
        }
