"""Rectified-flow training of the d-DiT, one class for the paper's three stages (section 3.2).

Stage 1 trains the video tower, stage 2 the audio tower and the adaptors on the frozen video tower,
stage 3 both. Video and audio each have a clock: in a share of the samples the video is clean
(t = 1), which is what the cascade schedule and one-pass video-to-audio sample from.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from syncflow import flow
from syncflow.clip import Clip
from syncflow.data.latent_sources import Cache
from syncflow.data.latents import Latents
from syncflow.models.audio_tower import AudioContext
from syncflow.models.ddit import Condition, DDiT
from syncflow.models.text import tokens
from syncflow.training.checkpoints import weights
from syncflow.training.datasets import buckets
from syncflow.training.datasets.buckets import Bucket, stacked
from syncflow.training.distributed import sequence, side_stream
from syncflow.training.distributed.groups import Group
from syncflow.training.optim import precision
from syncflow.training.settings import FlowTask
from syncflow.training.tasks import distillation, draws, lora, randomness, suits, validation
from syncflow.training.tasks.alignment import Alignment, without_head
from syncflow.training.tasks.distillation import Teacher
from syncflow.training.tasks.draws import Coupling, Draws
from syncflow.training.tasks.randomness import Source
from syncflow.training.tasks.task import Task
from syncflow.training.tasks.timesteps import Clocks, by_time

# Tensors by name; ``bucket``, the Bucket that they are of; ``draws``, where they were made ahead;
# and ``host``, the same tensors on the CPU, where noise is paired with them.
Batch = dict[str, Any]


class FlowTraining(Task[Batch]):
    """Draws latents, noise and times; the loss is the mean square error of the velocities."""

    module: DDiT

    def __init__(
        self, config: FlowTask, device: str | torch.device = "cpu", group: Group | None = None
    ) -> None:
        self.config = config
        self.group = group or Group(device=torch.device(device))
        self.device = self.group.device
        known = self._known_statistics()
        read = partial(Latents, window=config.window, cache=Cache(*config.cache.place()))
        self.plan = buckets.training_buckets(
            config.data, config.loop, known, read, config.shuffle_shards
        )
        # As the model sees everything: validation, and later what it generates.
        self.statistics = self.plan.statistics
        self.validation = buckets.validation_buckets(config.validation, self.plan, read)
        self.trains_video, self.trains_audio = config.train != "audio", config.train != "video"
        for bucket in self.plan.buckets:  # before the memory of a model that cannot have them
            suits.check(config, bucket, self.group)
        self.module = DDiT(config.model)
        self._start()
        self.teacher: Teacher | None = None
        if config.distillation is not None:
            distillation.check(config, self.statistics)
            # DeepSpeed has no autocast: there weights say what is computed in.
            bf16 = precision.chosen(config.loop, self.device) == "bf16"
            dtype = torch.bfloat16 if config.loop.deepspeed and bf16 else None
            taught = config.distillation, self.module, config.null_caption
            self.teacher = Teacher(*taught, self.group, dtype)
        self.module.video_tower.requires_grad_(self.trains_video)
        self.module.adaptors.requires_grad_(self.trains_audio)
        self.module.audio_tower.requires_grad_(self.trains_audio)
        if self.module.upsampler is not None:
            self.module.upsampler.requires_grad_(self.trains_audio)
        if self.module.event_embedder is not None:  # both towers read it
            self.module.event_embedder.requires_grad_(self.trains_video)
        if config.lora is not None:
            lora.inject(self.module, config.lora)
        self.alignment: Alignment | None = None
        if config.alignment is not None:
            latents = self.plan.buckets[0].latents
            self.alignment = Alignment(config.alignment, self.module, latents, str(config.data))
        sequence.share(self.module, self.group)
        self.coupling = Coupling(config, self.group)
        self.clips_every = config.samples.every if config.samples else 0
        if config.samples:
            from syncflow.training.tasks import samples

            samples.check(config.samples, self.validation[0].latents)

    def _start(self) -> None:
        if self.config.init:
            found = weights.load(self.config.init)
            # A model that was told no times learns here what they mean.
            found = self._fresh("event_embedder.") | found
            weights.fill(self.module, found, f"init ({self.config.init})")
        if self.config.init_video:
            found = weights.load(self.config.init_video)
            where = f"init_video ({self.config.init_video})"
            tower = weights.below(found, "video_tower.")
            weights.fill(self.module.video_tower, tower or found, where)
            times = weights.below(found, "event_embedder.")
            if times and self.module.event_embedder is not None:
                weights.fill(self.module.event_embedder, times, where)

    def _fresh(self, prefix: str) -> dict[str, Tensor]:
        return {k: v for k, v in self.module.state_dict().items() if k.startswith(prefix)}

    def _known_statistics(self) -> dict[str, list[float]]:
        """Those that the weights to start from were trained with, where they are to be kept: all of
        ``init``'s, or the videos' of the tower in ``init_video``, which no data make another."""
        config = self.config
        if config.statistics == "init":
            return self._statistics_of_init()
        found = weights.statistics(config.init_video) if config.init_video else None
        return {key: value for key, value in (found or {}).items() if key.startswith("video_")}

    def _statistics_of_init(self) -> dict[str, list[float]]:
        init = self.config.init
        found = weights.statistics(init) if init else None
        if found is None:
            raise ValueError(
                f'statistics is "init", and init ({init}) does not record its statistics; '
                'use "data"'
            )
        return found

    @property
    def provenance(self) -> dict[str, str]:
        """What the weights are tied to, for the weights' file: whoever exports must know."""
        encoders = self.plan.buckets[0].latents.manifest["encoders"]
        kept = {
            "encoders": encoders,
            "statistics": self.statistics,
            "clips": [len(bucket.latents) for bucket in self.plan.buckets],
        }
        return {key: json.dumps(value, sort_keys=True) for key, value in kept.items()}

    def places(self, index: int) -> range:
        """The numbers of the clips of a pass, counted through the run."""
        return self.plan.at(index).places

    def names(self, index: int) -> list[str]:
        seen = self.plan.at(index)
        return [seen.bucket.latents.name(int(row)) for row in seen.rows]

    def flops(self, index: int) -> float:
        """Floating point operations of one training sample of a pass."""
        from syncflow.training.tasks.flops import training_flops

        bucket, config = self.plan.at(index).bucket, self.config
        length = int(bucket.latents.manifest.get("text_tokens") or 1)
        taught = config.distillation is not None
        return training_flops(config.model, bucket.spec, length, config.train, config.draws, taught)

    def batch(self, index: int) -> Batch:
        loop, seen = self.config.loop, self.plan.at(index)
        latents = seen.bucket.latents
        if loop.randomness == "batch":
            rows = seen.rows
            values = latents.batch(rows, np.random.default_rng([loop.seed, 2, index]))
        else:
            share = self.group.rows(len(seen.places))
            rows, places = seen.rows[share], seen.places[share]
            clips = zip(rows, places, strict=True)
            one = latents.batch if loop.randomness == "sample" else latents.read
            made = [one(np.array([r]), randomness.data_rng(loop.seed, p)) for r, p in clips]
            values = stacked(made)
        if self.alignment is not None:
            values["heard"] = self.alignment.rows(rows)
        if self.config.events:
            values["events"] = latents.contacts(rows)
        batch = self._on_device(values, seen.bucket)
        if loop.randomness == "device":
            source = randomness.of_data(loop.seed, places, self.device)
            drawn = latents.drawn(batch, lambda shape: randomness.normal(shape, source))
            batch = {k: v for k, v in batch.items() if not k.endswith(("_mean", "_std"))} | drawn
        return batch

    def drawn(self, batch: Batch, source: Source) -> Batch:
        made = draws.draw(self.config, batch.get("host", batch), source, self.coupling)
        return {**batch, "draws": made.to(self.device)}

    def _on_device(self, values: dict[str, Tensor], bucket: Bucket) -> Batch:
        there: Batch = {k: side_stream.send(value, self.device) for k, value in values.items()}
        if self.config.coupling != "none" and "video" in values:  # noise is paired with the CPU's
            there["host"] = values
        return {**there, "bucket": bucket}

    def loss(self, batch: Batch, source: Source) -> tuple[Tensor, dict[str, Tensor | float]]:
        if "draws" not in batch:
            batch = self.drawn(batch, source)
        found: Draws = batch["draws"]
        when = found.clocks
        text, mask = self._dropped(batch["text"], batch["mask"].bool(), found.drop_B)
        losses = self._losses(batch, text, mask, found)
        out: dict[str, Tensor | float] = {}
        total, shares = torch.zeros((), device=self.device), self._shares(batch)
        if self.trains_video:
            moving = ~when.clean_B
            # Over all processes, or else a process with few moving videos would count for more.
            counted = self.group.sum(moving.sum().float()) / self.group.world
            video = (losses["video"] * moving).sum() / counted.clamp(min=1 / self.group.world)
            total, out["video"] = total + shares["video"] * video, video.detach()
            out["video_at"] = by_time(losses["video"], when.video_B, moving)
        if self.trains_audio:
            assert found.t_N is not None  # drawn where sound is trained
            audio = losses["audio"].mean()
            total, out["audio"] = total + shares["audio"] * audio, audio.detach()
            out["audio_at"] = by_time(losses["audio"], found.t_N)
        if self.alignment is not None:
            apart = self.alignment.loss(batch["heard"])
            total = total + self.alignment.config.weight * apart
            out["alignment"] = apart.detach()
        if self.config.coupling != "none":
            out["time/coupling"] = found.seconds
        if len(self.plan.buckets) > 1:
            name = batch["bucket"].name
            out |= {f"{kind}/{name}": out[kind] for kind in ("video", "audio") if kind in out}
        return total, out

    def _shares(self, batch: Batch) -> dict[str, float]:
        """What each modality's mean error counts for. "paper": as in one norm over both velocities,
        each as many times as it has numbers, 32,768 : 12,800 in the paper's clips."""
        if self.config.loss_weighting == "equal":
            return {"video": 1.0, "audio": 1.0}
        numbers = {kind: batch[kind][0].numel() for kind in ("video", "audio")}
        return {kind: count / sum(numbers.values()) for kind, count in numbers.items()}

    def _dropped(self, text: Tensor, mask: Tensor, drop_B: Tensor) -> tuple[Tensor, Tensor]:
        """The null caption in place of some; the batch is then as long as the longest."""
        tower = self.module.video_tower
        null, null_mask = tower.unguided_text(mask, self.config.null_caption)
        return tokens.replace(text, mask, null, null_mask, drop_B)

    def _losses(self, batch: Batch, text: Tensor, mask: Tensor, drawn: Draws) -> dict[str, Tensor]:
        """Loss per sample [B] (audio: [B * draws]) of each modality asked for."""
        events = None
        if drawn.tell_B is not None:
            events = batch["events"].masked_fill(~drawn.tell_B[:, None], torch.nan)
        spec = batch["bucket"].spec
        condition, lesson = self.module.prepare(text, mask, spec, events), None
        if self.teacher is not None:
            lesson = self.teacher.read(text, mask, drawn.drop_B, spec, events)
        video, features = self._picture(
            batch["video"], drawn.clocks, drawn.x_0, drawn.over_given, condition, lesson
        )
        losses = {"video": video}
        if self.trains_audio:
            assert drawn.y_0 is not None and drawn.t_N is not None
            context = self.module.audio_context(features, condition)
            losses["audio"] = self._sound(batch["audio"], drawn.y_0, drawn.t_N, context, condition)
        return losses

    def _picture(
        self,
        x_1: Tensor,
        when: Clocks,
        x_0: Tensor,
        over_given: Tensor,
        condition: Condition,
        lesson: Condition | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """The loss [B] of the videos, and the features that their sound reads."""
        x_t = flow.interpolate(x_0, x_1, when.video_B)
        given = when.clean_B[:, None, None, None, None]
        frame_mask, moving = when.frame_mask_BT, None
        if frame_mask is not None:
            moving = frame_mask[:, None, :, None, None]
            x_t = torch.where(moving, x_t, x_1)
            given = given | ~moving
        x_t = x_t + self.config.clean_noise * (over_given * given)
        # Not inference mode: what it makes could not enter the adaptors' backward pass.
        with torch.set_grad_enabled(self.trains_video and torch.is_grad_enabled()):
            velocity, features = self.module.video_velocity(
                x_t, when.video_B, condition, frame_mask
            )
        wanted = flow.velocity(x_0, x_1)
        if lesson is not None:
            assert self.teacher is not None
            wanted = self.teacher.velocity(wanted, x_t, when.video_B, lesson, frame_mask)
        return flow.loss(velocity, wanted, moving), features

    def _sound(
        self, y_1: Tensor, y_0: Tensor, t_N: Tensor, context: AudioContext, condition: Condition
    ) -> Tensor:
        """The loss [B*K] of all draws."""
        repeats = len(y_0) // len(y_1)
        y_1 = y_1.repeat_interleave(repeats, 0)
        y_t = flow.interpolate(y_0, y_1, t_N)
        velocity = self.module.audio_velocity(y_t, t_N, context, condition, repeat=repeats)
        return flow.loss(velocity, flow.velocity(y_0, y_1))

    def validate(self, module: nn.Module) -> dict[str, float]:
        """Losses at fixed clips, times and noise, each with the standard error (``_se``) of its
        mean over clips; ``audio_other`` is with another clip's video.

        Of several buckets, each's (``video/64x96x32``) and their mean.
        """
        each = {bucket.name: validation.validate(self, bucket) for bucket in self.validation}
        if len(each) == 1:
            return next(iter(each.values()))
        out = {f"{k}/{name}": v for name, found in each.items() for k, v in found.items()}
        for key in each[self.validation[0].name]:
            values = np.array([found[key] for found in each.values()])
            error = key.endswith("_se")
            out[key] = float(np.hypot.reduce(values) / len(each) if error else values.mean())
        return out

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
        if self.alignment is not None:
            values = without_head(values)
        if self.config.lora is None:
            return values
        base = self.config.init or self.config.init_video
        return lora.finish(values, self.config.lora, out, base)
