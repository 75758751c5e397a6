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
from syncflow.generation.steps import Fixed, Steps
from syncflow.models.audio_tower import AudioContext, AudioText
from syncflow.models.ddit import Condition, DDiT
from syncflow.models.text import tokens
from syncflow.ops.euler_cfg import euler_cfg
from syncflow.progress import bar

#: What stays over the steps of the picture, and of the sound.
Seen = Fixed[Condition, Tensor | None]
Heard = Fixed[AudioContext, AudioText | None]
#: Groups of captions, by number.
Groups = tuple[int, ...]


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
    events: Tensor | None = None,
) -> Captions:
    """Captions through the text encoder and into both towers: once per call.

    ``negative`` stands in for the null caption (of the kind ``null_caption``, see
    ``VideoTower.unguided_text``); ``negative_audio`` does so in the audio tower alone. A model
    whose sound reads text only through the picture needs one more group for it. ``events`` [P, N]:
    when things touch, see ``DDiT.read``; said of the prompts alone.
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
        said = None
        if events is not None:
            unsaid = torch.full_like(events, torch.nan).repeat(len(groups) - 1, 1)
            said = torch.cat([events, unsaid]).to(text.device)
        # Attention without a mask is faster, and some libraries' only without.
        return model.prepare(text.to(dtype), None if masks.all() else masks, spec, said)

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
        steps: how the functions of a step are run; as they are when not given.
        interval: flow times from which and up to which guidance is applied, to each modality by its
            own clock; outside the null branch is not run.
    """

    def __init__(
        self,
        model: DDiT,
        captions: Captions,
        guidance: float,
        audio_guidance: float,
        frame_mask: Tensor | None = None,
        given_video_velocity: Tensor | None = None,
        steps: Steps | None = None,
        interval: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        self.model, self.captions = model, captions
        self.guidance, self.audio_guidance = guidance, audio_guidance
        self.frame_mask, self.given = frame_mask, given_video_velocity
        self.audio_reads_video = model.config.audio.condition != "text"
        self.steps, self.interval = steps or Steps(), interval
        self._weights, self._own, self._heard = self._at((0.0, 0.0))
        self._fixed: dict[Groups, Seen] = {}
        self._still: tuple[tuple[float, Groups], Heard] | None = None

    def __call__(
        self, x: flow.State, t: tuple[float, ...], moving: tuple[bool, ...]
    ) -> Sequence[Tensor | flow.Guided | None]:
        video, audio = x
        clocks = [torch.full((), t_m, device=video.device) for t_m in t]
        self._weights, self._own, self._heard = self._at(t)
        moves_video, moves_audio = moving
        if moves_video:
            self._still = None
        if moves_video and moves_audio and self.audio_reads_video:
            return self._both(video, audio, *clocks)
        v_video = v_audio = None
        if moves_video:
            v_video = self._picture(video, clocks[0])
        if moves_audio:
            v_audio = self._sound(audio, clocks[1], self._context(video, clocks[0], t[0]))
        return v_video, v_audio

    def _at(self, t: tuple[float, ...]) -> tuple[tuple[float, float], Groups, Groups]:
        """Weights of guidance at these times, whose velocity of the picture is integrated, and
        which captions the sound hears."""
        start, end = self.interval
        video, audio = (start <= t_m and (t_m < end or end == 1) for t_m in t)
        weights = (self.guidance if video else 1.0, self.audio_guidance if audio else 1.0)
        own: Groups = (0, 1) if weights[0] != 1 else (0,)
        heard: Groups = (0, self.captions.audio_null) if weights[1] != 1 else (0,)
        return weights, () if self.given is not None else own, heard

    def _both(
        self, video: Tensor, audio: Tensor, t_video: Tensor, t_audio: Tensor
    ) -> tuple[Tensor | flow.Guided, Tensor | flow.Guided]:
        """Both velocities, the sound's from the same pass over the picture."""
        groups = tuple(sorted({*self._own, *self._heard}))
        if groups == self._heard:
            tensors, fixed = (video, audio, t_video, t_audio), self._of(groups)
            v_video, each = self.steps(joint, tensors, fixed, self.model, len(groups))
            v_audio = guided(each, len(audio), groups, groups, self._weights[1])
        else:
            fixed = self._of(groups)
            seen = self.steps(see, (video, t_video), fixed, self.model, len(groups))
            v_video, *features = seen
            places = [groups.index(group) for group in self._heard]
            features = [pick(x, places, len(video)) for x in features]
            context = self.model.audio_context(features, self._of(self._heard).trees[0])
            v_audio = self._sound(audio, t_audio, self._sounding(context))
        return self._guided_picture(v_video, len(video), groups), v_audio

    def _picture(self, video: Tensor, t: Tensor) -> Tensor | flow.Guided:
        if self.given is not None:
            return self.given
        tensors, fixed = (video, t), self._of(self._own)
        (velocity,) = self.steps(picture, tensors, fixed, self.model, len(self._own))
        return self._guided_picture(velocity, len(video), self._own)

    def _guided_picture(self, velocity: Tensor, rows: int, groups: Groups) -> Tensor | flow.Guided:
        if self.given is not None:
            return self.given
        return guided(velocity, rows, groups, self._own, self._weights[0])

    def _sound(self, audio: Tensor, t: Tensor, heard: Heard) -> Tensor | flow.Guided:
        groups = self._heard
        (velocity,) = self.steps(sound, (audio, t), heard, self.model, len(groups))
        return guided(velocity, len(audio), groups, groups, self._weights[1])

    def _context(self, video: Tensor, t: Tensor, at: float) -> Heard:
        """What the sound hears of a picture that does not move: made once."""
        if self._still is None or self._still[0] != (at, self._heard):
            condition, mask = self._of(self._heard).trees
            features: list[Tensor] = []
            if self.audio_reads_video:
                _, *features = see(video, t, condition, mask, self.model, len(self._heard))
            context = self.model.audio_context(features, condition)
            self._still = ((at, self._heard), self._sounding(context))
        return self._still[1]

    def _sounding(self, context: AudioContext) -> Heard:
        return Fixed(context, self._of(self._heard).trees[0].audio)

    def _of(self, groups: Groups) -> Seen:
        """The captions of some groups, and the frames that are given."""
        if groups not in self._fixed:
            mask = self.frame_mask
            mask = None if mask is None else repeat(mask, len(groups))
            self._fixed[groups] = Fixed(self.captions.of(groups), mask)
        return self._fixed[groups]


# The functions of a step: of tensors alone, so that a graph can replay them. ``groups`` is how many
# groups of captions there are rows for; times are of no axis.


def joint(
    video: Tensor,
    audio: Tensor,
    t_video: Tensor,
    t_audio: Tensor,
    condition: Condition,
    mask: Tensor | None,
    model: DDiT,
    groups: int,
) -> tuple[Tensor, Tensor]:
    """Velocities of picture and sound, of all groups."""
    v_video, v_audio = model.joint_velocity(
        repeat(video, groups),
        t_video.expand(groups * len(video)),
        repeat(audio, groups),
        t_audio.expand(groups * len(audio)),
        condition,
        mask,
    )
    return only_moving(v_video, mask), v_audio


def picture(
    video: Tensor, t: Tensor, condition: Condition, mask: Tensor | None, model: DDiT, groups: int
) -> tuple[Tensor]:
    """Velocity of the picture alone, of all groups."""
    return (see(video, t, condition, mask, model, groups)[0],)


def see(
    video: Tensor, t: Tensor, condition: Condition, mask: Tensor | None, model: DDiT, groups: int
) -> tuple[Tensor, ...]:
    """Velocity of the picture, then the features of every layer, of all groups."""
    velocity, features = model.video_velocity(
        repeat(video, groups), t.expand(groups * len(video)), condition, mask
    )
    return only_moving(velocity, mask), *features


def sound(
    audio: Tensor,
    t: Tensor,
    context: AudioContext,
    text: AudioText | None,
    model: DDiT,
    groups: int,
) -> tuple[Tensor]:
    """Velocity of the sound on a context, of all groups."""
    rows = repeat(audio, groups)
    return (model.audio_tower(rows, t.expand(len(rows)), context, text),)


def only_moving(velocity: Tensor, mask_BT: Tensor | None) -> Tensor:
    """No velocity where a frame is given."""
    return velocity if mask_BT is None else velocity * mask_BT[:, None, :, None, None]


class Progress:
    """A bar over all steps that also tells how far each modality is."""

    def __init__(self, path: Tensor, shown: bool) -> None:
        self.moved = (path.diff(dim=0) != 0).cumsum(0).tolist()
        self.bar = bar(total=len(self.moved), shown=shown, desc="generate")

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


def guided(
    velocity: Tensor, rows: int, groups: tuple[int, ...], wanted: tuple[int, ...], weight: float
) -> Tensor | flow.Guided:
    """Guidance between the ``wanted`` groups of a batch of ``groups``; one alone is as it is."""
    parts = [velocity[i * rows : (i + 1) * rows] for i in map(groups.index, wanted)]
    return parts[0] if len(parts) == 1 else flow.Guided(parts[0], parts[1], weight)


def _rows(groups: tuple[int, ...], count: int) -> slice | list[int]:
    """The rows of groups of ``count``: a slice, which copies nothing, where they follow on."""
    first = groups[0]
    if groups == tuple(range(first, first + len(groups))):
        return slice(first * count, (first + len(groups)) * count)
    return [row for group in groups for row in range(group * count, (group + 1) * count)]


def pick(x: Tensor, groups: Sequence[int], rows: int) -> Tensor:
    """The rows of some groups, in their order."""
    return torch.cat([x[group * rows : (group + 1) * rows] for group in groups])


def repeat(x: Tensor, times: int) -> Tensor:
    """All rows, ``times`` times one after the other."""
    return torch.cat([x] * times) if times > 1 else x
