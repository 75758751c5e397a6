"""Training of the video VAE on the pictures of clips, or of any films."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from syncflow.clip import SAMPLE_RATE, VIDEO_STRIDE, Clip, to_model
from syncflow.data.encoders import weights_hash
from syncflow.data.recordings import Recordings
from syncflow.data.shards import ClipShards
from syncflow.detect import contacts, fidelity
from syncflow.models.codec import ENCODING, VideoCodec
from syncflow.models.vae import build_video_vae
from syncflow.training.datasets.clips import Crops, Films, Pieces
from syncflow.training.distributed import side_stream
from syncflow.training.distributed.groups import Group
from syncflow.training.losses import reconstruction
from syncflow.training.losses.discriminators import PatchDiscriminator
from syncflow.training.losses.perceptual import Perceptual
from syncflow.training.settings import VideoVAETask
from syncflow.training.tasks import randomness, vae
from syncflow.training.tasks.randomness import Source
from syncflow.training.tasks.vae import VAETraining

_TRIES = 16  # films in a row that may be damaged or too short


class VideoVAETraining(VAETraining):
    """Reconstruction, how it looks, and KL, on random pieces of clips."""

    module: VideoCodec
    config: VideoVAETask

    def __init__(
        self, config: VideoVAETask, device: str = "cpu", group: Group | None = None
    ) -> None:
        group = group or Group(device=torch.device(device))
        self.perceptual: Perceptual | None = None
        if config.perceptual is not None:
            self.perceptual = Perceptual(config.perceptual.backbone, config.perceptual.heads)
            self.perceptual.to(group.device)
        super().__init__(config, build_video_vae(config.model), "video_vae", 1, group)
        self.train: ClipShards | Recordings | Films
        if isinstance(config.data, str):
            self.train = _clips(config.data)
        else:
            encoder = weights_hash(self.module, ENCODING)
            self.train = Films(config.data, config.frames, config.loop, encoder, group)
            if self.train.made and not config.freeze_encoder:
                raise ValueError(
                    "made latents are of one encoder: set freeze_encoder to train on them"
                )
        self.validation = _clips(config.validation)
        self._damaged: set[int] = set()

    def batch(self, index: int) -> Crops:
        if isinstance(self.train, Films):
            return self.train.batch(index).to(self.device)
        return super().batch(index)

    def _latents(self, batch: Crops, source: Source) -> tuple[Tensor, Tensor]:
        if not isinstance(batch, Pieces) or batch.latent is None:
            return super()._latents(batch, source)
        video, made, made_B = batch.originals, batch.latent, batch.made_B
        made = made.to(video.device, next(self.module.parameters()).dtype)
        if made_B.all():
            return made, video.new_zeros(())
        others = np.flatnonzero(~made_B.cpu().numpy())
        drawn, kl = self._encoded(video[~made_B], randomness.of_rows(source, others))
        latent = drawn.new_empty(len(video), *made.shape[1:])
        latent[made_B], latent[~made_B] = made.to(drawn), drawn
        return latent, kl

    def _count(self) -> int:
        assert not isinstance(self.train, Films)
        return len(self.train)

    def _discriminator(self) -> nn.Module:
        settings = self.config.adversarial
        assert settings is not None
        return PatchDiscriminator(settings.filters)

    def _weights(self) -> dict[str, float]:
        settings = self.config.perceptual
        return {"recon": 1.0, **({"lpips": settings.weight} if settings else {})}

    def _losses(self, out: Tensor, batch: Crops) -> dict[str, Tensor]:
        original, counts_B1F11 = batch.originals, None
        if isinstance(batch, Pieces):
            counts_B1F11 = batch.nearness(self.config.made_distance)
        if self.config.reconstruction == "l1":
            error = (out.float() - original).abs()
            error = error if counts_B1F11 is None else error * counts_B1F11
            losses = {"recon": error.mean()}
        else:
            recon = reconstruction.video_reconstruction(
                out, original, self.config.moving_weight, counts_B1F11=counts_B1F11
            )
            losses = {"recon": recon}
        if self.perceptual is not None:
            frames = [x.float().movedim(2, 1).flatten(0, 1) for x in (out, original)]
            losses["lpips"] = self.perceptual(*frames).mean()
        return losses

    def _decode(self, latent: Tensor, original: Tensor) -> Tensor:
        return self.module.decode(latent, num_frames=original.shape[2])

    def _crop(self, clip: int, rng: np.random.Generator) -> np.ndarray:
        config = self.config
        assert not isinstance(self.train, Films)  # they have crops of their own
        if isinstance(self.train, ClipShards):
            video = self.train.video(clip)
            room = (len(video) - config.frames) // VIDEO_STRIDE[0]
            first = VIDEO_STRIDE[0] * int(rng.integers(0, room + 1))
            return video[first : first + config.frames]
        place = rng.random()
        for number in range(clip, clip + _TRIES):
            index = number % len(self.train)
            try:
                room_seconds = self.train.seconds(index) - config.frames / config.fps
                return self._film(self.train, index, place * max(0.0, room_seconds))
            except ValueError as error:
                if index not in self._damaged:
                    print(f"{error}; the next film stands in for it", flush=True)
                self._damaged.add(index)
        raise ValueError(f"{_TRIES} films in a row in '{config.data}' cannot be used")

    def _film(self, films: Recordings, index: int, start: float) -> np.ndarray:
        config = self.config
        size = config.fps, config.height, config.width
        return films.video(index, start, config.frames, *size)

    def _on_device(self, pieces: np.ndarray) -> Tensor:
        return to_model(side_stream.send(torch.from_numpy(pieces), self.device))

    def validate(self, module: nn.Module) -> dict[str, float]:
        video, out = self._copied(cast(VideoCodec, module), vae.VALIDATION_CLIPS)
        scores = {}
        if isinstance(self.validation, ClipShards):
            pixels = ((out + 1) * 127.5).round().to(torch.uint8).movedim(2, 1)
            times = [self.validation.contact_times(index) for index in range(len(out))]
            scores = contacts.score(list(pixels), times, self.validation.fps)
        mask = fidelity.moving_mask(video)
        found = {
            "psnr": fidelity.psnr(out, video),
            "psnr_moving": fidelity.psnr(out, video, mask) if mask.any() else math.nan,
            **scores,
        }
        if self.perceptual is not None:
            looks = [
                self.perceptual(*(x.to(self.device).movedim(1, 0) for x in pair)).mean()
                for pair in zip(out, video, strict=True)
            ]
            found["lpips"] = float(torch.stack(looks).mean())
        return found

    def clips(self, module: nn.Module) -> list[Clip]:
        """Films beside what the VAE makes of them, without sound."""
        if not self.group.leads and self.config.loop.deepspeed is None:
            return []
        video, out = self._copied(cast(VideoCodec, module), vae.SAMPLES)
        both = ((torch.cat([video, out], dim=4) + 1) * 127.5).round().to(torch.uint8)
        fps = self.validation.fps if isinstance(self.validation, ClipShards) else self.config.fps
        silence = torch.zeros(round(both.shape[2] / fps * SAMPLE_RATE))
        return [Clip(pixels, silence, fps) for pixels in both.movedim(2, 1)]

    def _copied(self, codec: VideoCodec, count: int) -> tuple[Tensor, Tensor]:
        """The first films of the validation set and their copies, [B, 3, F, H, W] in [-1, 1]."""
        videos, outs = [], []
        for index in range(min(count, len(self.validation))):
            if isinstance(self.validation, ClipShards):
                pixels = self.validation.video(index)
            else:
                room = self.validation.seconds(index) - self.config.frames / self.config.fps
                pixels = self._film(self.validation, index, max(0.0, room / 2))
            video = to_model(torch.from_numpy(pixels[None].copy()))
            there = video.to(self.device, next(codec.parameters()).dtype)
            out = codec.decode(codec.encode(there).mode(), num_frames=video.shape[2])
            videos.append(video)
            outs.append(out.float().clamp(-1, 1).cpu())
        return torch.cat(videos), torch.cat(outs)


def _clips(folder: str) -> ClipShards | Recordings:
    return vae.shards(folder) or Recordings(folder, "picture", SAMPLE_RATE)
