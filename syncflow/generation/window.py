"""A stretch of latents of which a part is given; the rest drawn, and its sound put in place.

Given latent frames are told to the video tower as clean or, for one that was not trained so, are
put back as noisy as the rest at every step; given sound is always put back so (``Held``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from syncflow import flow
from syncflow.clip import ClipSpec
from syncflow.generation import noise
from syncflow.generation.drawing import Start, Wishes, draw, watch
from syncflow.generation.model import Model
from syncflow.generation.request import Request
from syncflow.generation.sampler import encode_captions
from syncflow.noise_steps import Held

#: Seconds over which one sound blends into the other.
SEAM_S = 0.01


@dataclass(frozen=True)
class Window:
    """Latents of a window and what of them is given: ``video`` [1, C, T, h, w] where ``frames`` [T]
    is True, ``audio`` [1, A, D] where ``sounds`` [A] is."""

    video: Tensor
    frames: Tensor
    audio: Tensor
    sounds: Tensor

    @classmethod
    def beginning(cls, video: Tensor, audio: Tensor, spec: ClipSpec) -> Window:
        """One of ``spec``'s length that begins with these latents."""
        length = spec.video_latent_shape[0], spec.audio_latent_length
        return cls(
            _longer(video, 2, length[0]),
            torch.arange(length[0]) < video.shape[2],
            _longer(audio, 1, length[1]),
            torch.arange(length[1]) < audio.shape[1],
        )

    def start(self, source: noise.Generators, fresh: flow.Noise, clean: bool) -> Start:
        """Noise with what is given in its place.

        Args:
            source: of the noise.
            fresh: noise anew, for given frames that are to be as noisy as the rest.
            clean: whether the video tower is told which frames are given.
        """
        device = self.video.device
        x_video, x_audio = noise.start(source, self.video.shape[1:], self.audio.shape[1:], device)
        still = bool(self.frames.all())
        start = Start(x_video, x_audio, still=still)
        mask = self.frames[:, None, None].to(device)
        if still:
            start = replace(start, video=self.video)
        elif self.frames.any() and clean:
            video = torch.where(mask, self.video, x_video)
            frame_mask = ~self.frames[None].to(device)
            start = replace(start, video=video, frame_mask=frame_mask, held=(Held(mask), None))
        elif self.frames.any():
            start = replace(start, held=(Held(mask, self.video, lambda x: fresh(0, x)), None))
        if self.sounds.all():
            start = replace(start, audio=self.audio)
        elif self.sounds.any():
            held = Held(self.sounds[:, None].to(device), self.audio, lambda _: x_audio)
            start = replace(start, held=(start.held[0], held))
        return start


def drawn(
    model: Model,
    prompt: str,
    spec: ClipSpec,
    window: Window,
    asked: Request,
    source: noise.Generators,
    wishes: Wishes,
    when: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The latents of picture and sound, given ones among them; ``when``: times of the window as of
    ``events.events`` that the model is told."""
    captions = encode_captions(
        model.ddit,
        model.text_encoder,
        [prompt],
        spec,
        model.dtype,
        wishes.negative_prompt,
        wishes.negative_audio_prompt,
        asked.sampling.null_caption,
        when,
    )
    fresh = noise.fresh(source)
    start = window.start(source, fresh, clean=model.config.given_frames == "clean")
    return draw(
        model.ddit,
        model.steps,
        captions,
        start,
        asked,
        fresh,
        wishes.callback,
        wishes.progress,
        watch(wishes.preview, model, spec, asked.path),
    )


def as_long(audio_M: Tensor, samples: int) -> Tensor:
    """A sound, cut or with silence, as long as ``samples``, float32."""
    audio_M = audio_M[:samples].float()
    return torch.nn.functional.pad(audio_M, (0, samples - len(audio_M)))


def joined(old: Tensor, new: Tensor, shared: int, sample_rate: int) -> Tensor:
    """``old``, and ``new`` from sample ``shared`` on: up to there it is of the same moments as the
    end of ``old``, whose last ones blend into it."""
    blend = min(shared, round(SEAM_S * sample_rate))
    rise = torch.linspace(0, 1, blend)
    seam = (1 - rise) * old[len(old) - blend :] + rise * new[shared - blend : shared]
    return torch.cat([old[: len(old) - blend], seam, new[shared:]])


def spliced(old: Tensor, new: Tensor, start: int, end: int, sample_rate: int) -> Tensor:
    """``old`` with ``new`` from sample ``start`` to ``end``, blended inside where ``old`` is on the
    other side; with silence up to there where it ends before."""
    old = torch.nn.functional.pad(old, (0, max(0, end - len(old))))
    share = torch.ones(end - start)
    blend = min(round(SEAM_S * sample_rate), (end - start) // 2)
    ramp = torch.arange(blend) / max(1, blend)
    if start > 0:
        share[:blend] = ramp
    if end < len(old):
        share[end - start - blend :] = ramp.flip(0)
    out = old.clone()
    out[start:end] = torch.lerp(old[start:end].float(), new[start:end], share).to(old.dtype)
    return out


def _longer(given: Tensor, axis: int, length: int) -> Tensor:
    """Latents with zeros up to a length."""
    shape = list(given.shape)
    shape[axis] = length - shape[axis]
    return torch.cat([given, given.new_zeros(shape)], axis)
