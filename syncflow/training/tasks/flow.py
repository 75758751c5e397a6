"""Rectified-flow training of the d-DiT, one class for the paper's three stages (section 3.2).

Stage 1 trains the video tower, stage 2 the audio tower and the adaptors on the frozen video tower,
stage 3 both. Video and audio each have a clock: in a share of the samples the video is clean
(t = 1), which is what the cascade schedule and one-pass video-to-audio sample from.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from syncflow import flow
from syncflow.clip import Clip
from syncflow.models import tokens
from syncflow.models.ddit import DDiT
from syncflow.training.checkpoints import weights
from syncflow.training.distributed import sequence
from syncflow.training.distributed.groups import Group
from syncflow.training.settings import FlowTask
from syncflow.training.tasks import buckets, lora, randomness, timesteps
from syncflow.training.tasks.buckets import Bucket
from syncflow.training.tasks.randomness import Source
from syncflow.training.tasks.task import Task
from syncflow.training.tasks.timesteps import Clocks

# Tensors by name, and ``bucket``, the Bucket that they are of.
Batch = dict[str, Any]

_VALIDATION_CLIPS = 128
_VALIDATION_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
_STRETCHES = 5  # of flow time, in which the losses are told apart


class FlowTraining(Task):
    """Draws latents, noise and times; the loss is the mean square error of the velocities."""

    module: DDiT

    def __init__(
        self, config: FlowTask, device: str | torch.device = "cpu", group: Group | None = None
    ) -> None:
        self.config = config
        self.group = group or Group(device=torch.device(device))
        self.device = self.group.device
        known = self._statistics_of_init() if config.statistics == "init" else None
        self.plan = buckets.training_buckets(config.data, config.loop, known)
        # As the model sees everything: validation, and later what it generates.
        self.statistics = self.plan.statistics
        self.validation = buckets.validation_buckets(config.validation, self.plan)
        self.trains_video, self.trains_audio = config.train != "audio", config.train != "video"
        self.module = DDiT(config.model)
        self._start()
        self.module.video_tower.requires_grad_(self.trains_video)
        self.module.adaptors.requires_grad_(self.trains_audio)
        self.module.audio_tower.requires_grad_(self.trains_audio)
        if self.module.upsampler is not None:
            self.module.upsampler.requires_grad_(self.trains_audio)
        if config.lora is not None:
            lora.inject(self.module, config.lora)
        for bucket in self.plan.buckets:
            self._check(bucket)
        sequence.share(self.module, self.group)
        self.clips_every = config.samples.every if config.samples else 0

    def _check(self, bucket: Bucket) -> None:
        """Raises ValueError where the processes or the model cannot have its clips."""
        self.group.rows(bucket.batch_size)
        sequence.check(self.config.model, bucket.spec, self.group)
        _, height, width = bucket.spec.video_latent_shape
        patch = self.config.model.video.patch_size
        patches = -(-height // patch[1]) * -(-width // patch[2])
        expected = self.config.model.audio.upsampler_patches
        if self.trains_audio and expected not in (0, patches):
            raise ValueError(
                f"model.audio.upsampler_patches is {expected}, but {bucket.name} (height x width x "
                f"frames) has {patches} patches a frame; 0 leaves the aligned path out"
            )

    def _start(self) -> None:
        if self.config.init:
            self.module.load_state_dict(weights.load(self.config.init))
        if self.config.init_video:
            found = weights.load(self.config.init_video)
            below = {
                k.removeprefix("video_tower."): v
                for k, v in found.items() if k.startswith("video_tower.")
            }
            self.module.video_tower.load_state_dict(below or found)

    def _statistics_of_init(self) -> dict[str, list[float]]:
        init = self.config.init
        found = weights.statistics(init) if init else None
        if found is None:
            raise ValueError(
                f'statistics is "init", and init ({init}) does not say with which it was trained; '
                'use "data"'
            )
        return found

    @property
    def provenance(self) -> dict[str, str]:
        """What the weights are tied to, for the weights' file: whoever exports must know."""
        encoders = self.plan.buckets[0].latents.manifest["encoders"]
        kept = {"encoders": encoders, "statistics": self.statistics}
        return {key: json.dumps(value, sort_keys=True) for key, value in kept.items()}

    def places(self, index: int) -> range:
        """The numbers of the clips of a pass, counted through the run."""
        return self.plan.at(index).places

    def flops(self, index: int) -> float:
        """Floating point operations of one training sample of a pass."""
        from syncflow.training.tasks.flops import training_flops

        bucket, config = self.plan.at(index).bucket, self.config
        length = int(bucket.latents.manifest.get("text_tokens") or 1)
        return training_flops(config.model, bucket.spec, length, config.train, config.draws)

    def batch(self, index: int) -> Batch:
        loop, seen = self.config.loop, self.plan.at(index)
        latents = seen.bucket.latents
        if loop.randomness == "batch":
            values = latents.batch(seen.rows, np.random.default_rng([loop.seed, 2, index]))
        else:
            share = self.group.rows(len(seen.places))
            clips = zip(seen.rows[share], seen.places[share], strict=True)
            values = _stacked(
                [latents.batch(np.array([r]), randomness.data_rng(loop.seed, p)) for r, p in clips]
            )
        return self._on_device(values, seen.bucket)

    def _on_device(self, values: dict[str, Tensor], bucket: Bucket) -> Batch:
        there = {k: value.to(self.device, non_blocking=True) for k, value in values.items()}
        return {**there, "bucket": bucket}

    def loss(
        self, batch: Batch, source: Source
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        config, size = self.config, len(batch["video"])
        drop = self._uniform(size, source) < config.text_dropout
        text, mask = self._dropped(batch["text"], batch["mask"].bool(), drop)
        when = timesteps.draw(config, batch["video"].shape, source, self.device)
        losses = self._losses(batch, text, mask, when, source)
        out: dict[str, Tensor | float] = {}
        total = torch.zeros((), device=self.device)
        if self.trains_video:
            moving = ~when.clean_B
            # Over all processes, or else a process with few moving videos would count for more.
            counted = self.group.sum(moving.sum().float()) / self.group.world
            video = (losses["video"] * moving).sum() / counted.clamp(min=1 / self.group.world)
            total, out["video"] = total + video, video.detach()
            out["video_at"] = _by_time(losses["video"], when.video_B, moving)
        if self.trains_audio:
            audio = losses["audio"].mean()
            total, out["audio"] = total + audio, audio.detach()
            out["audio_at"] = _by_time(losses["audio"], losses["audio_t"])
        if len(self.plan.buckets) > 1:
            name = batch["bucket"].name
            out |= {f"{kind}/{name}": out[kind] for kind in ("video", "audio") if kind in out}
        return total, out

    def _dropped(self, text: Tensor, mask: Tensor, drop_B: Tensor) -> tuple[Tensor, Tensor]:
        """The null caption in place of some; the batch is then as long as the longest."""
        tower = self.module.video_tower
        null, null_mask = tower.unguided_text(mask, self.config.null_caption)
        return tokens.replace(text, mask, null, null_mask, drop_B)

    def _losses(
        self, batch: Batch, text: Tensor, mask: Tensor, when: Clocks, source: Source,
        context_rows: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Loss per sample [B] (audio: [B * draws], with its times) of each modality asked for.

        ``context_rows`` lets the audio see another sample's video: the gap is what the audio has
        learned from the picture.
        """
        config, model = self.config, self.module
        condition = model.prepare(text, mask, batch["bucket"].spec)
        caption = _mean_token(text, mask) if config.coupling == "c2ot" else None
        x_1, frame_mask = batch["video"], when.frame_mask_BT
        x_0 = self._noise(x_1, caption, source)
        x_t = flow.interpolate(x_0, x_1, when.video_B)
        noise = randomness.normal(x_1.shape, source).to(self.device)
        given = when.clean_B[:, None, None, None, None]
        moving = None
        if frame_mask is not None:
            moving = frame_mask[:, None, :, None, None]
            x_t = torch.where(moving, x_t, x_1)
            given = given | ~moving
        x_t = x_t + config.clean_noise * (noise * given)
        # Not inference mode: what it makes could not enter the adaptors' backward pass.
        with torch.set_grad_enabled(self.trains_video and torch.is_grad_enabled()):
            velocity, features = model.video_velocity(x_t, when.video_B, condition, frame_mask)
        losses = {"video": flow.loss(velocity, flow.velocity(x_0, x_1), moving)}
        if not self.trains_audio:
            return losses
        if context_rows is not None:
            features = [feature[context_rows] for feature in features]
        context = model.audio_context(features, condition)
        repeats = config.draws
        y_1 = batch["audio"].repeat_interleave(repeats, 0)
        if caption is not None:
            caption = caption.repeat_interleave(repeats, 0)
        y_0 = self._noise(y_1, caption, source)
        t_N = timesteps.audio_times(config, when, source)
        y_t = flow.interpolate(y_0, y_1, t_N)
        velocity = model.audio_velocity(y_t, t_N, context, condition, repeat=repeats)
        losses["audio_t"] = t_N
        losses["audio"] = flow.loss(velocity, flow.velocity(y_0, y_1))
        return losses

    def validate(self, module: nn.Module) -> dict[str, float]:
        """Losses at fixed clips, times and noise, each with the standard error (``_se``) of its
        mean over clips; ``audio_other`` is with another clip's video.

        Of several buckets, each's (``video/64x96x32``) and their mean.
        """
        each = {bucket.name: self._validate(bucket) for bucket in self.validation}
        if len(each) == 1:
            return next(iter(each.values()))
        out = {f"{k}/{name}": v for name, found in each.items() for k, v in found.items()}
        for key in each[self.validation[0].name]:
            values = np.array([found[key] for found in each.values()])
            error = key.endswith("_se")
            out[key] = float(np.hypot.reduce(values) / len(each) if error else values.mean())
        return out

    def _validate(self, bucket: Bucket) -> dict[str, float]:
        rows = np.arange(min(_VALIDATION_CLIPS, len(bucket.latents)))
        variants: tuple[tuple[str, bool, Tensor | None], ...] = (("video", False, None),)
        if self.trains_audio:
            other = torch.arange(len(rows), device=self.device).roll(1)
            variants = (
                ("audio_same", False, None), ("audio_clean", True, None),
                ("audio_other", True, other),
            )
        found: dict[str, list[Tensor]] = {}
        for index, time in enumerate(_VALIDATION_TIMES):
            values = bucket.latents.batch(rows, np.random.default_rng(index))
            batch = self._on_device(values, bucket)
            t_B = torch.full((len(rows),), time, device=self.device)
            for name, is_clean, context_rows in variants:
                clean = torch.full((len(rows),), is_clean, device=self.device)
                t_video = torch.where(clean, torch.ones_like(t_B), t_B)
                t_audio = t_B.repeat_interleave(self.config.draws)
                losses = self._losses(
                    batch, batch["text"], batch["mask"],
                    Clocks(t_video, clean, t_B, clean, audio_N=t_audio),
                    torch.Generator().manual_seed(index), context_rows,
                )
                if not is_clean:
                    found.setdefault("video", []).append(losses["video"])
                if "audio" in losses:
                    a_clip = losses["audio"].unflatten(0, (len(rows), self.config.draws))
                    found.setdefault(name, []).append(a_clip.mean(1))
        means: dict[str, float] = {}
        for name, drawn in found.items():
            clip_N = torch.stack(drawn).double().mean(0)
            means[name] = clip_N.mean().item()
            means[f"{name}_se"] = (clip_N.std() / len(rows) ** 0.5).item()
        return means

    def clips(self, module: nn.Module) -> list[Clip]:
        """Clips of the first captions of the validation set, in the process that leads."""
        from syncflow.training.tasks import samples

        config = self.config.samples
        assert config is not None
        bucket = self.validation[0]
        values = bucket.latents.batch(np.arange(config.clips), np.random.default_rng(0))
        batch = self._on_device(values, bucket)
        video, audio = samples.sample(self.module, batch, bucket.spec, config.sampling)
        return samples.decode(video, audio, bucket.latents, config) if self.group.leads else []

    def finish(self, values: dict[str, Tensor], out: Path) -> dict[str, Tensor]:
        """The final weights as a d-DiT's: additions of low rank are kept apart and merged in."""
        if self.config.lora is None:
            return values
        return lora.finish(values, self.config.lora, out)

    def _noise(self, x_1: Tensor, caption: Tensor | None, source: Source) -> Tensor:
        """Noise for each sample, paired with the data of all processes by the coupling."""
        x_0 = randomness.normal(x_1.shape, source).to(self.device)
        if self.config.coupling == "none":
            return x_0
        gather = self.group.gather
        everyones, caption = gather(x_0), None if caption is None else gather(caption)
        # A clip that is not finite is for the step to leave out; the coupling must not stumble.
        order = flow.couple(
            everyones, gather(x_1).nan_to_num(), self.config.coupling, caption
        )
        return everyones[order[self.group.rows(len(everyones))]]

    def _uniform(self, size: int, source: Source) -> Tensor:
        return randomness.uniform(size, source).to(self.device)


def _mean_token(text_BLE: Tensor, mask_BL: Tensor) -> Tensor:
    """[B, E]: the mean of a caption's tokens, however far the batch pads it."""
    mask_BL1 = mask_BL[..., None].float()
    return (text_BLE.detach().float() * mask_BL1).sum(1) / mask_BL1.sum(1).clamp(min=1)


def _by_time(loss_N: Tensor, t_N: Tensor, counted_N: Tensor | None = None) -> Tensor:
    """[2, stretches]: sum and number of the losses in each stretch of flow time."""
    ones = torch.ones_like(t_N) if counted_N is None else counted_N.float()
    stretch = (t_N * _STRETCHES).long().clamp(max=_STRETCHES - 1)
    out = torch.zeros(2, _STRETCHES, device=loss_N.device)
    return out.index_add(1, stretch, torch.stack([loss_N.detach() * ones, ones]))


def _stacked(clips: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Batches of one as one batch; captions are padded to the longest."""
    length = max(clip["mask"].shape[1] for clip in clips)
    out = {}
    for name in clips[0]:
        values = [clip[name] for clip in clips]
        if name in ("text", "mask"):
            values = [tokens.pad(value, length) for value in values]
        out[name] = torch.cat(values)
    return out
