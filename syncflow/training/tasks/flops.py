"""Floating point operations of a training sample, counted on the model without computing it."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
from torch.utils.flop_counter import FlopCounterMode

from syncflow.clip import ClipSpec
from syncflow.config import DDiTConfig
from syncflow.models.ddit import DDiT


@lru_cache
def _forward(config: str, spec: ClipSpec, length: int) -> tuple[float, float, float]:
    """Of one clip: the video tower; the adaptors and what is read of them; one audio draw."""
    sizes = DDiTConfig.model_validate_json(config)
    with torch.device("meta"):
        model = DDiT(sizes)
        T, H, W = spec.video_latent_shape
        text, t = torch.zeros(1, length, sizes.video.caption_channels), torch.zeros(1)
        video = torch.zeros(1, sizes.video.in_channels, T, H, W)
        audio = torch.zeros(1, spec.audio_latent_length, sizes.audio.in_channels)
    counts = []
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            condition = model.prepare(text, None, spec)
            _, features = model.video_velocity(video, t, condition)
        counts.append(counter.get_total_flops())
        with FlopCounterMode(display=False) as counter:
            context = model.audio_context(features, condition)
        counts.append(counter.get_total_flops())
        with FlopCounterMode(display=False) as counter:
            model.audio_velocity(audio, t, context, condition)
        counts.append(counter.get_total_flops())
    of_video, of_context, of_audio = map(float, counts)
    return of_video, of_context, of_audio


def training_flops(
    config: DDiTConfig,
    spec: ClipSpec,
    length: int,
    train: Literal["video", "audio", "both"],
    draws: int = 1,
    taught: bool = False,
) -> float:
    """Operations of one training sample with a caption of ``length`` tokens: forward, and twice
    that backward through what learns. Recomputed activations do not count, as is usual for MFU;
    both passes of the teacher of a picture that is ``taught`` do (``tasks/distillation``)."""
    video, context, audio = _forward(config.model_dump_json(), spec, length)
    sound = context + draws * audio
    of_teacher = 2 * video if taught else 0.0
    learnt = {"video": 3 * video, "audio": video + 3 * sound, "both": 3 * (video + sound)}[train]
    return learnt + of_teacher
