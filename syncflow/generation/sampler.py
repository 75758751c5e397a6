"""The velocity that generation integrates: both clocks, guidance, and what may be reused when.

Batches: P prompts, K audio takes per prompt. Captions come in groups of P rows: the prompts, then
what guidance leads away from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from syncflow import flow
from syncflow.clip import ClipSpec
from syncflow.models import tokens
from syncflow.models.audio_tower import AudioContext
from syncflow.models.ddit import Condition, DDiT
from syncflow.ops.euler_cfg import euler_cfg


class Encoder(Protocol):
    """What reads captions: a text encoder, or what it once read."""

    def encode(self, texts: list[str]) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Captions:
    """``condition``: groups of ``prompts`` rows. Group 0 holds the prompts, group 1 what the
    picture's guidance leads away from and, unless ``audio_null`` names another, the sound's."""

    condition: Condition
    prompts: int
    audio_null: int = 1

    def of(self, groups: tuple[int, ...]) -> Condition:
        """The rows of some groups, in their order."""
        return self.condition.select(_rows(groups, self.prompts))


def encode_captions(
    model: DDiT,
    encoder: Encoder,
    prompts: Sequence[str],
    spec: ClipSpec,
    dtype: torch.dtype,
    negative: str | None = None,
    negative_audio: str | None = None,
    null_caption: str = "full",
) -> Captions:
    """Captions through the text encoder and into both towers: once per call.

    ``negative`` stands in for the null caption (of the kind ``null_caption``, see
    ``VideoTower.unguided_text``); ``negative_audio`` does so in the audio tower alone. A model
    whose sound reads text only through the picture needs one more group for it.
    """
    limit = model.config.video.model_max_length
    # An empty prompt is no caption: its row is then the null caption too.
    text, mask = encoder.encode([p if p.strip() else "-" for p in prompts])
    text, mask = text[:, :limit].float(), mask[:, :limit].bool()
    null, null_mask = model.video_tower.unguided_text(mask, null_caption)
    null = null.float()
    empty = torch.tensor([not p.strip() for p in prompts], device=text.device)
    text, mask = tokens.replace(text, mask, null, null_mask, empty)

    def away(sentence: str | None) -> tuple[Tensor, Tensor]:
        if sentence is None or not sentence.strip():
            return null, null_mask
        words, its_mask = encoder.encode([sentence])
        words = words[:, :limit].float().expand(len(prompts), -1, -1)
        return words, its_mask[:, :limit].bool().expand(len(prompts), -1)

    def prepare(groups: Sequence[tuple[Tensor, Tensor]]) -> Condition:
        length = max(words.shape[1] for words, _ in groups)
        text = torch.cat([tokens.pad(words, length) for words, _ in groups])
        masks = torch.cat([tokens.pad(its_mask, length) for _, its_mask in groups])
        return model.prepare(text.to(dtype), masks, spec)

    groups = [(text, mask), away(negative)]
    if negative_audio is None or not negative_audio.strip():
        return Captions(prepare(groups), len(prompts))
    if model.config.audio.condition == "video":
        return Captions(prepare([*groups, away(negative_audio)]), len(prompts), audio_null=2)
    audio = prepare([groups[0], away(negative_audio)]).audio
    return Captions(Condition(prepare(groups).video, audio, spec), len(prompts))


class GuidedVelocity:
    """Velocities of (video, audio) for ``flow.integrate``.

    The video never reads the audio, so while the video stands still its pass is made once and kept
    for all steps and takes of the audio; audio that does not read the video needs no pass at all.

    Args:
        model: the network.
        captions: of the prompts and of what guidance leads away from.
        guidance, audio_guidance: weights (paper eq. 3); at 1 the null branch is not run.
        frame_mask: [P, T], False = a latent frame that is given and stays.
        given_video_velocity: the known velocity of a given video: it is then integrated in place of
            the tower's, which is the paper's way of video-to-audio.
    """

    def __init__(
        self,
        model: DDiT,
        captions: Captions,
        guidance: float,
        audio_guidance: float,
        frame_mask: Tensor | None = None,
        given_video_velocity: Tensor | None = None,
    ) -> None:
        self.model, self.captions = model, captions
        self.guidance, self.audio_guidance = guidance, audio_guidance
        self.frame_mask, self.given = frame_mask, given_video_velocity
        self.audio_reads_video = model.config.audio.condition != "text"
        self._conditions: dict[tuple[int, ...], Condition] = {}
        self._still: tuple[float | None, AudioContext] | None = None

    def __call__(
        self, x: flow.State, t: tuple[float, ...], moving: tuple[bool, ...]
    ) -> Sequence[Tensor | flow.Guided | None]:
        video, audio = x
        moves_video, moves_audio = moving
        heard = (0, self.captions.audio_null) if self.audio_guidance != 1 else (0,)
        v_video: Tensor | flow.Guided | None = None
        v_audio: Tensor | flow.Guided | None = None
        context: AudioContext | None = None
        if moves_video:
            v_video, context = self._moving_video(video, t[0], heard if moves_audio else ())
            self._still = None
        if moves_audio:
            context = context or self._still_video(video, t[0], heard)
            velocity = self.model.audio_velocity(
                _repeat(audio, len(heard)),
                torch.full((len(heard) * len(audio),), t[1], device=audio.device),
                context,
                self._condition(heard),
            )
            v_audio = _guide(velocity, len(audio), heard, heard, self.audio_guidance)
        return v_video, v_audio

    def _moving_video(
        self, video: Tensor, t: float, heard: tuple[int, ...]
    ) -> tuple[Tensor | flow.Guided, AudioContext | None]:
        """The picture's velocity and, where it is heard, the context from the same pass."""
        own: tuple[int, ...] = ()
        if self.given is None:
            own = (0, 1) if self.guidance != 1 else (0,)
        read = heard if self.audio_reads_video else ()
        groups = tuple(sorted({*own, *read}))
        velocity, features = self._video(video, t, groups) if groups else (self.given, [])
        context = None
        if heard:
            if groups != heard:
                rows = _rows(tuple(groups.index(g) for g in read), len(video))
                features = [x[rows] for x in features]
            context = self.model.audio_context(features, self._condition(heard))
        if self.given is not None:
            return self.given, context
        assert velocity is not None
        return _guide(velocity, len(video), groups, own, self.guidance), context

    def _still_video(self, video: Tensor, t: float, heard: tuple[int, ...]) -> AudioContext:
        """The context of a picture that does not move: made once."""
        if self._still is None or self._still[0] != t:
            features = self._video(video, t, heard)[1] if self.audio_reads_video else []
            self._still = (t, self.model.audio_context(features, self._condition(heard)))
        return self._still[1]

    def _video(self, x: Tensor, t: float, groups: tuple[int, ...]) -> tuple[Tensor, list[Tensor]]:
        mask = None if self.frame_mask is None else _repeat(self.frame_mask, len(groups))
        velocity, features = self.model.video_velocity(
            _repeat(x, len(groups)),
            torch.full((len(groups) * len(x),), t, device=x.device),
            self._condition(groups),
            mask,
        )
        if mask is not None:
            velocity = velocity * mask[:, None, :, None, None]
        return velocity, features

    def _condition(self, groups: tuple[int, ...]) -> Condition:
        if groups not in self._conditions:
            self._conditions[groups] = self.captions.of(groups)
        return self._conditions[groups]


class Progress:
    """A bar over all steps that also tells how far each modality is."""

    def __init__(self, path: Tensor, shown: bool) -> None:
        from tqdm import tqdm

        self.moved = (path.diff(dim=0) != 0).cumsum(0).tolist()
        self.bar = tqdm(total=len(self.moved), disable=not shown, desc="generate")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def update(self, step: int) -> None:
        parts = zip(("video", "audio"), self.moved[step - 1], self.moved[-1], strict=True)
        text = ", ".join(f"{name} {done}/{of}" for name, done, of in parts if of)
        self.bar.set_postfix_str(text, refresh=False)
        self.bar.update()


def advance(x: Tensor, v: Tensor | flow.Guided, h: float) -> Tensor:
    """``flow.advance`` with guidance and step in one pass."""
    if isinstance(v, flow.Guided):
        return euler_cfg(x, v.conditional, v.null, v.weight, h)
    return euler_cfg(x, v, None, 1.0, h)


def _guide(
    velocity: Tensor, rows: int, groups: tuple[int, ...], wanted: tuple[int, ...], weight: float
) -> Tensor | flow.Guided:
    """Guidance between the ``wanted`` groups of a batch of ``groups``; one alone is as it is."""
    parts = [velocity[i * rows : (i + 1) * rows] for i in map(groups.index, wanted)]
    return parts[0] if len(parts) == 1 else flow.Guided(parts[0], parts[1], weight)


def _rows(groups: tuple[int, ...], count: int) -> slice | list[int]:
    """The rows of groups of ``count``: a slice, which copies nothing, where they follow on."""
    if groups == tuple(range(groups[0], groups[0] + len(groups))) if groups else True:
        first = groups[0] if groups else 0
        return slice(first * count, (first + len(groups)) * count)
    return [row for group in groups for row in range(group * count, (group + 1) * count)]


def _repeat(x: Tensor, times: int) -> Tensor:
    """All rows, ``times`` times one after the other."""
    return torch.cat([x] * times) if times > 1 else x
