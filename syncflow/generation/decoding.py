"""Latents into clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from syncflow.clip import Clip, ClipSpec
from syncflow.generation.request import GivenVideo
from syncflow.generation.steps import Fixed, Steps
from syncflow.models.codec import AudioCodec, VideoCodec
from syncflow.models.latent_space import Scale, decode_audio, decode_video


@dataclass(frozen=True)
class Decoders:
    """Both VAEs, the statistics of their latents, and how a decoder is run."""

    video_vae: VideoCodec
    audio_vae: AudioCodec
    video: Scale
    audio: Scale
    steps: Steps

    def clips(
        self,
        x_video: Tensor,
        x_audio: Tensor,
        prompts: Sequence[str],
        takes: int,
        spec: ClipSpec,
        given: Sequence[GivenVideo],
    ) -> list[Clip]:
        """Normalised latents, ``takes`` sounds a picture -> clips; a given picture is handed back
        as it was."""
        clips = []
        for index, prompt in enumerate(prompts):
            seconds, file = spec.seconds, None
            if given:
                video, fps = given[index].original, given[index].fps
                seconds, file = given[index].seconds, given[index].file
            else:
                latent, fps = x_video[index], spec.fps
                video = decode_video(self.video_vae, latent, self.video, spec.num_frames, self._run)
            samples = round(seconds * spec.sample_rate)
            for latent in x_audio[index * takes : (index + 1) * takes]:
                audio = decode_audio(self.audio_vae, latent, self.audio, spec.num_samples)
                audio = audio[:samples]
                audio = F.pad(audio, (0, samples - len(audio)))
                clips.append(Clip(video, audio, fps, spec.sample_rate, prompt or None, file))
        return clips

    def _run(
        self, function: Callable[..., tuple[Tensor, ...]], tensors: tuple[Tensor, ...], *rest: Any
    ) -> tuple[Tensor, ...]:
        return self.steps(function, tensors, Fixed(), *rest)
