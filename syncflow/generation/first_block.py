"""A first-block cache: passes of a tower of which only the first block is run.

The first block is run at every step. Where what it adds to the tokens has changed little since the
last whole pass, the other blocks are not run: what they added then is added again (the idea of
TeaCache, arXiv 2411.19108, decided by the first block's own residual). Change adds up between whole
passes, since it is always measured from the last of them.

Every prompt decides for itself, over all its captions and takes, so that a clip does not depend on
what is beside it in a batch. Axis letters: B batch, T latent frames, S patches, A audio latents,
C width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from syncflow import flow
from syncflow.generation import sampler
from syncflow.generation.sampler import Captions, Groups, GuidedVelocity, Heard
from syncflow.generation.steps import Steps
from syncflow.models.audio_tower import AudioContext, AudioText
from syncflow.models.ddit import Condition, DDiT


@dataclass
class _Whole:
    """The last whole pass of every row: what the first block added, what the others did, and, where
    they are read, the features of every layer."""

    first: Tensor
    others: Tensor
    features: list[Tensor]


class CachedVelocity(GuidedVelocity):
    """``GuidedVelocity`` with the cache.

    Args:
        model ... interval: as ``GuidedVelocity``'s.
        towers: which of them are cached.
        threshold: change of the first block's residual, relative to itself (means of absolute
            values), below which the others are not run; at 0 all are.
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
        *,
        towers: Literal["video", "audio", "both"],
        threshold: float,
    ) -> None:
        super().__init__(
            model,
            captions,
            guidance,
            audio_guidance,
            frame_mask,
            given_video_velocity,
            steps,
            interval,
        )
        self.threshold = threshold
        self._caches_video, self._caches_audio = towers != "audio", towers != "video"
        self._whole: dict[tuple[str, Groups], _Whole] = {}
        self._built: tuple[list[Tensor], Groups, Heard] | None = None

    def _both(
        self, video: Tensor, audio: Tensor, t_video: Tensor, t_audio: Tensor
    ) -> tuple[Tensor | flow.Guided, Tensor | flow.Guided]:
        groups = tuple(sorted({*self._own, *self._heard}))
        if self._caches_video:
            v_video, features = self._seen(video, t_video, groups, True)
        else:
            tensors, fixed = (video, t_video), self._of(groups)
            v_video, *features = self.steps(sampler.see, tensors, fixed, self.model, len(groups))
        # The same list: no row was run, and what is made of it is kept too.
        if self._built is None or self._built[0] is not features or self._built[1] != self._heard:
            places = [groups.index(group) for group in self._heard]
            picked = [sampler.pick(x, places, len(video)) for x in features]
            context = self.model.audio_context(picked, self._of(self._heard).trees[0])
            self._built = features, self._heard, self._sounding(context)
        v_audio = self._sound(audio, t_audio, self._built[2])
        return self._guided_picture(v_video, len(video), groups), v_audio

    def _picture(self, video: Tensor, t: Tensor) -> Tensor | flow.Guided:
        if self.given is not None or not self._caches_video:
            return super()._picture(video, t)
        velocity, _ = self._seen(video, t, self._own, False)
        return self._guided_picture(velocity, len(video), self._own)

    def _seen(
        self, video: Tensor, t: Tensor, groups: Groups, read: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """Velocity of the picture and, where they are ``read``, the features of every layer."""
        fixed, count = self._of(groups), len(groups)
        x, first = self.steps(first_seen, (video, t), fixed, self.model, count)

        def others(rows: list[int] | None) -> tuple[Tensor, ...]:
            if rows is None:
                return self.steps(others_seen, (x, t), fixed, self.model, read)
            condition, mask = fixed.trees
            part = condition.select(rows), None if mask is None else mask[rows]
            return others_seen(x[rows], t, *part, self.model, read)

        whole = self._passed("video", groups, first, others)
        tensors = (x + whole.others, video, t)
        (velocity,) = self.steps(velocity_seen, tensors, fixed, self.model)
        return velocity, whole.features

    def _sound(self, audio: Tensor, t: Tensor, heard: Heard) -> Tensor | flow.Guided:
        if not self._caches_audio:
            return super()._sound(audio, t, heard)
        groups = self._heard
        x, first, t_BC = self.steps(first_heard, (audio, t), heard, self.model, len(groups))

        def others(rows: list[int] | None) -> tuple[Tensor, ...]:
            if rows is None:
                return self.steps(others_heard, (x, t_BC), heard, self.model)
            context, text = heard.trees
            # Takes of a prompt lie side by side and share its context.
            takes = len(x) // (len(groups) * self.captions.prompts)
            shared = [row // takes for row in rows[::takes]]
            part = context.select(shared), None if text is None else text.select(shared)
            return others_heard(x[rows], t_BC[rows], *part, self.model)

        whole = self._passed("audio", groups, first, others)
        (velocity,) = self.steps(velocity_heard, (x + whole.others, t_BC), heard, self.model)
        return sampler.guided(velocity, len(audio), groups, groups, self._weights[1])

    def _passed(
        self,
        tower: str,
        groups: Groups,
        first: Tensor,
        others: Callable[[list[int] | None], tuple[Tensor, ...]],
    ) -> _Whole:
        """The last whole passes, after those that are due now. ``others(rows)`` runs the other
        blocks, of all rows where it is given None."""
        prompts = self.captions.prompts
        key, whole = (tower, groups), self._whole.get((tower, groups))
        due = list(range(prompts))
        if whole is not None:
            moved = change(first, whole.first, len(groups), prompts)
            due = [i for i, by in enumerate(moved.tolist()) if not by < self.threshold]
        if whole is None or len(due) == prompts:
            added, *features = others(None)
            self._whole[key] = whole = _Whole(first, added, features)
        elif due:
            takes = len(first) // (len(groups) * prompts)
            rows = [
                (group * prompts + prompt) * takes + take
                for group in range(len(groups))
                for prompt in due
                for take in range(takes)
            ]
            added, *features = others(rows)
            whole = _Whole(
                _put(whole.first, rows, first[rows]),
                _put(whole.others, rows, added),
                [_put(x, rows, new) for x, new in zip(whole.features, features, strict=True)],
            )
            self._whole[key] = whole
        return whole


def change(new: Tensor, old: Tensor, groups: int, prompts: int) -> Tensor:
    """Mean of |new - old| over the mean of |old|, of every prompt [P]; rows are groups of prompts,
    the takes of one side by side."""
    means = [
        x.abs().float().unflatten(0, (groups, prompts, -1)).transpose(0, 1).flatten(1).mean(1)
        for x in (new - old, old)
    ]
    share_P: Tensor = means[0] / means[1].clamp(min=torch.finfo(torch.float32).tiny)
    return share_P


def _put(old: Tensor, rows: Sequence[int], new: Tensor) -> Tensor:
    """``old`` with other rows in place of some."""
    return old.index_copy(0, torch.tensor(rows, device=old.device), new)


# The functions of a step, as in ``sampler``: of tensors alone.


def first_seen(
    video: Tensor, t: Tensor, condition: Condition, mask: Tensor | None, model: DDiT, groups: int
) -> tuple[Tensor, Tensor]:
    """Tokens of the picture after the first block, and what it added."""
    spec, tower, rows = condition.spec, model.video_tower, sampler.repeat(video, groups)
    before = tower.embed(rows, spec.height, spec.width, condition.video.told_BTC)
    modulations, _ = tower.modulations(t.expand(len(rows)), spec.fps, mask)
    after, _ = tower.run(before, modulations, condition.video, slice(1))
    return after, after - before


def others_seen(
    x_BTSC: Tensor, t: Tensor, condition: Condition, mask: Tensor | None, model: DDiT, read: bool
) -> tuple[Tensor, ...]:
    """What the other blocks add, then, where they are read, the features of every layer."""
    tower = model.video_tower
    modulations, _ = tower.modulations(t.expand(len(x_BTSC)), condition.spec.fps, mask)
    after, features = tower.run(x_BTSC, modulations, condition.video, slice(1, None))
    return after - x_BTSC, *(features if read else [])


def velocity_seen(
    x_BTSC: Tensor, video: Tensor, t: Tensor, condition: Condition, mask: Tensor | None, model: DDiT
) -> tuple[Tensor]:
    """Velocity of the picture from the last block's tokens."""
    tower = model.video_tower
    _, final = tower.modulations(t.expand(len(x_BTSC)), condition.spec.fps, mask)
    return (sampler.only_moving(tower.finish(x_BTSC, final, video.shape[2:]), mask),)


def first_heard(
    audio: Tensor,
    t: Tensor,
    context: AudioContext,
    text: AudioText | None,
    model: DDiT,
    groups: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens of the sound after the first layer, what it added, and the embedded flow time."""
    tower, rows = model.audio_tower, sampler.repeat(audio, groups)
    state = tower.start(rows, t.expand(len(rows)), context.aligned_BAC)
    after = tower.run(state, context, text, slice(1)).x_BAC
    return after, after - state.x_BAC, state.t_BC


def others_heard(
    x_BAC: Tensor, t_BC: Tensor, context: AudioContext, text: AudioText | None, model: DDiT
) -> tuple[Tensor]:
    """What the other layers add."""
    state = model.audio_tower.between(x_BAC, t_BC, context.aligned_BAC)
    return (model.audio_tower.run(state, context, text, slice(1, None)).x_BAC - x_BAC,)


def velocity_heard(
    x_BAC: Tensor, t_BC: Tensor, context: AudioContext, text: AudioText | None, model: DDiT
) -> tuple[Tensor]:
    """Velocity of the sound from the last layer's tokens."""
    return (model.audio_tower.finish(model.audio_tower.between(x_BAC, t_BC, None)),)
