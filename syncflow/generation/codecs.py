"""Between clips and the latents that are sampled."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from syncflow.clip import Clip, ClipSpec
from syncflow.generation.request import GivenVideo
from syncflow.generation.steps import Fixed, Steps
from syncflow.models.codec import AudioCodec, VideoCodec
from syncflow.models.latent_space import (
    Scale,
    decode_audio,
    decode_video,
    encode_audio,
    encode_video,
)


@dataclass(frozen=True)
class Codecs:
    """Both VAEs, the statistics of their latents, where they are and how a decoder is run."""

    video_vae: VideoCodec
    audio_vae: AudioCodec
    video: Scale
    audio: Scale
    steps: Steps
    device: torch.device

    def encode_video(self, clips_FCHW: Sequence[Tensor]) -> Tensor:
        """uint8 frames [F, 3, H, W] -> normalised latents [P, C, T, h, w]."""
        return encode_video(self.video_vae, clips_FCHW, self.video, self.device)

    def encode_audio(self, sounds_M: Sequence[Tensor]) -> Tensor:
        """Sounds of one length, float [M] -> normalised latents [P, A, D]."""
        return encode_audio(self.audio_vae, sounds_M, self.audio, self.device)

    def decode_video(self, latent_CTHW: Tensor, spec: ClipSpec) -> Tensor:
        """A normalised latent -> uint8 frames [F, 3, H, W]."""
        return decode_video(self.video_vae, latent_CTHW, self.video, spec.num_frames, self._run)

    def decode_audio(self, latent_AD: Tensor, spec: ClipSpec) -> Tensor:
        """A normalised latent -> sound, float [M] in [-1, 1]."""
        return decode_audio(self.audio_vae, latent_AD, self.audio, spec.num_samples)

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
                video = self.decode_video(latent, spec)
            samples = round(seconds * spec.sample_rate)
            for latent in x_audio[index * takes : (index + 1) * takes]:
                audio = self.decode_audio(latent, spec)[:samples]
                audio = F.pad(audio, (0, samples - len(audio)))
                clips.append(Clip(video, audio, fps, spec.sample_rate, prompt or None, file))
        return clips

    def _run(
        self,
        function: Callable[..., tuple[Tensor, ...]],
        tensors: tuple[Tensor, ...],
        *rest: Hashable,
    ) -> tuple[Tensor, ...]:
        return self.steps(function, tensors, Fixed(), *rest)
