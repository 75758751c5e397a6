"""Rectified-flow training of the d-DiT, one class for the paper's three stages (section 3.2).

Stage 1 trains the video tower, stage 2 the audio tower and the adaptors on the frozen video tower,
stage 3 both. Video and audio each have a clock: a share of the samples has clean video (t = 1),
which is what the cascade schedule and one-pass video-to-audio sample from.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from syncflow import flow
from syncflow.data.latents import Latents
from syncflow.models.ddit import DDiT
from syncflow.training import checkpoint
from syncflow.training.loop import epoch_indices
from syncflow.training.settings import FlowTask

_VALIDATION_CLIPS = 128
_VALIDATION_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)


class FlowTraining:
    """Draws latents, noise and times; the loss is the mean square error of the velocities."""

    def __init__(self, config: FlowTask, device: str = "cpu") -> None:
        self.config, self.device = config, device
        self.train = Latents(config.data)
        self.validation = Latents(config.validation, expected=self.train.manifest)
        self.module = DDiT(config.model)
        if config.init:
            self.module.load_state_dict(checkpoint.load_weights(config.init))
        self.trains_video, self.trains_audio = config.train != "audio", config.train != "video"
        self.module.video_tower.requires_grad_(self.trains_video)
        self.module.adaptors.requires_grad_(self.trains_audio)
        self.module.audio_tower.requires_grad_(self.trains_audio)
        if self.module.upsampler is not None:
            self.module.upsampler.requires_grad_(self.trains_audio)

    def batch(self, step: int) -> dict[str, Tensor]:
        loop = self.config.loop
        rows = epoch_indices(len(self.train), loop.seed, step, loop.batch_size)
        batch = self.train.batch(rows, np.random.default_rng([loop.seed, 2, step]))
        return {name: value.to(self.device) for name, value in batch.items()}

    def loss(
        self, batch: dict[str, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        config, size = self.config, len(batch["video"])
        drop = self._uniform(size, generator) < config.text_dropout
        # The null caption is as long as the caption it stands for, as in sampling.
        mask = batch["mask"]
        text, _ = self.module.video_tower.drop_text(batch["text"], mask, drop)
        t_B = self._times(size, generator)
        clean_share = {"video": 0.0, "audio": 1.0, "both": config.clean_video}[config.train]
        clean = self._uniform(size, generator) < clean_share
        losses = self._losses(batch, text, mask, t_B, clean, generator)
        out: dict[str, float] = {}
        total = torch.zeros((), device=self.device)
        if self.trains_video:
            moving = ~clean
            video = (losses["video"] * moving).sum() / moving.sum().clamp(min=1)
            total, out["video"] = total + video, video.item()
        if self.trains_audio:
            total, out["audio"] = total + losses["audio"].mean(), losses["audio"].mean().item()
        return total, out

    def _losses(
        self, batch: dict[str, Tensor], text: Tensor, mask: Tensor, t_B: Tensor, clean: Tensor,
        generator: torch.Generator, context_rows: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Loss per sample [B] (audio: [B * draws]) of each modality that is asked for.

        ``context_rows`` lets the audio see another sample's video: the gap is what the audio has
        learned from the picture.
        """
        config, model = self.config, self.module
        condition = model.prepare(text, mask, self.train.spec)
        x_1 = batch["video"]
        x_0 = self._noise(x_1, text, generator)
        t_video = torch.where(clean, torch.ones_like(t_B), t_B)
        x_t = flow.interpolate(x_0, x_1, t_video)
        noise = self._normal(x_1.shape, generator) * clean[:, None, None, None, None]
        x_t = x_t + config.clean_noise * noise
        with torch.set_grad_enabled(self.trains_video and torch.is_grad_enabled()):
            velocity, features = model.video_velocity(x_t, t_video, condition)
        losses = {"video": flow.loss(velocity, flow.velocity(x_0, x_1))}
        if not self.trains_audio:
            return losses
        if context_rows is not None:
            features = [feature[context_rows] for feature in features]
        context = model.audio_context(features, condition)
        draws = config.draws
        y_1 = batch["audio"].repeat_interleave(draws, 0)
        y_0 = self._noise(y_1, text.repeat_interleave(draws, 0), generator)
        t_audio = t_B
        if draws > 1:
            t_audio = self._times(len(y_1), generator)
        y_t = flow.interpolate(y_0, y_1, t_audio)
        velocity = model.audio_velocity(y_t, t_audio, context, condition, repeat=draws)
        losses["audio"] = flow.loss(velocity, flow.velocity(y_0, y_1))
        return losses

    def validate(self, module: nn.Module) -> dict[str, float]:
        """Losses at fixed clips, times and noise; ``audio_other`` is with another clip's video."""
        rows = np.arange(min(_VALIDATION_CLIPS, len(self.validation)))
        sums: dict[str, list[float]] = {}
        for index, time in enumerate(_VALIDATION_TIMES):
            batch = self.validation.batch(rows, np.random.default_rng(index))
            batch = {name: value.to(self.device) for name, value in batch.items()}
            t_B = torch.full((len(rows),), time, device=self.device)
            for name, share in (("video", 0.0), ("audio_same", 0.0), ("audio_clean", 1.0)):
                if (name == "video") != (not self.trains_audio):
                    continue
                clean = torch.full((len(rows),), share > 0, device=self.device)
                generator = torch.Generator().manual_seed(index)
                losses = self._losses(batch, batch["text"], batch["mask"], t_B, clean, generator)
                if share == 0:
                    sums.setdefault("video", []).append(losses["video"].mean().item())
                if "audio" in losses:
                    sums.setdefault(name, []).append(losses["audio"].mean().item())
                if name == "audio_clean":
                    generator = torch.Generator().manual_seed(index)
                    other = torch.arange(len(rows)).roll(1)
                    losses = self._losses(
                        batch, batch["text"], batch["mask"], t_B, clean, generator, other
                    )
                    sums.setdefault("audio_other", []).append(losses["audio"].mean().item())
        return {name: float(np.mean(values)) for name, values in sums.items()}

    def _times(self, size: int, generator: torch.Generator) -> Tensor:
        config = self.config
        return flow.sample_times(
            size, config.time_kind, uniform_share=config.uniform_share, mean=config.time_mean,
            std=config.time_std, shift=config.time_shift, generator=generator, device=self.device,
        )

    def _noise(self, x_1: Tensor, text: Tensor, generator: torch.Generator) -> Tensor:
        """Noise for each sample, paired with the data by the configured coupling."""
        x_0 = self._normal(x_1.shape, generator)
        if self.config.coupling == "none":
            return x_0
        return x_0[flow.couple(x_0, x_1, self.config.coupling, text.detach().float().mean(1))]

    def _uniform(self, size: int, generator: torch.Generator) -> Tensor:
        return torch.rand(size, generator=generator).to(self.device)

    def _normal(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        return torch.randn(shape, generator=generator).to(self.device)
