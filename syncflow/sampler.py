"""The velocity that generation integrates: both clocks, guidance, and what may be reused when.

Batches: P prompts, K audio takes per prompt. Where guidance needs it, the rows of the null caption
follow those of the prompts: [prompts | null].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from syncflow import flow
from syncflow.models.audio_tower import AudioContext
from syncflow.models.ddit import Condition, DDiT


class GuidedVelocity:
    """Velocities of (video, audio) for ``flow.integrate``.

    The video never reads the audio, so while the video stands still its pass is made once and kept
    for all steps and takes of the audio.

    Args:
        model: the network.
        condition: of the prompts, followed by as many null captions.
        prompts: P.
        guidance, audio_guidance: weights (paper eq. 3); at 1 the null branch is not run.
        frame_mask: [P, T], False = a latent frame that is given and stays.
        given_video_velocity: the known velocity of a given video: it is then integrated in place of
            the tower's, which is the paper's way of video-to-audio.
    """

    def __init__(
        self,
        model: DDiT,
        condition: Condition,
        prompts: int,
        guidance: float,
        audio_guidance: float,
        frame_mask: Tensor | None = None,
        given_video_velocity: Tensor | None = None,
    ) -> None:
        self.model, self.prompts = model, prompts
        self.guidance, self.audio_guidance = guidance, audio_guidance
        self.frame_mask, self.given = frame_mask, given_video_velocity
        self.conditions = {1: condition.select(slice(prompts)), 2: condition}
        self._still: tuple[float, AudioContext] | None = None

    def __call__(
        self, x: flow.State, t: tuple[float, ...], moving: tuple[bool, ...]
    ) -> Sequence[Tensor | None]:
        video, audio = x
        moves_video, moves_audio = moving
        video_branches = 2 if self.guidance != 1 and moves_video and self.given is None else 1
        audio_branches = 2 if self.audio_guidance != 1 and moves_audio else 1
        v_video = v_audio = context = None
        if moves_video:
            branches = max(video_branches, audio_branches)
            v_video, features = self._video(video, t[0], branches)
            v_video = self._guide(v_video, len(video), video_branches, self.guidance)
            if self.given is not None:
                v_video = self.given
            if moves_audio:
                context = self.model.audio_context(features, self.conditions[branches])
            self._still = None
        elif self._still is None or self._still[0] != t[0]:
            _, features = self._video(video, t[0], audio_branches)
            context = self.model.audio_context(features, self.conditions[audio_branches])
            self._still = (t[0], context)
        else:
            context = self._still[1]
        if moves_audio:
            v_audio = self._audio(audio, t[1], context, audio_branches)
        return v_video, v_audio

    def _video(self, x: Tensor, t: float, branches: int) -> tuple[Tensor, list[Tensor]]:
        mask = self.frame_mask
        velocity, features = self.model.video_velocity(
            _twice(x, branches),
            torch.full((branches * len(x),), t, device=x.device),
            self.conditions[branches],
            None if mask is None else _twice(mask, branches),
        )
        if mask is not None:
            velocity = velocity * _twice(mask, branches)[:, None, :, None, None]
        return velocity, features

    def _audio(self, x: Tensor, t: float, context: AudioContext, branches: int) -> Tensor:
        if branches == 1:
            context = context.select(slice(self.prompts))
        velocity = self.model.audio_velocity(
            _twice(x, branches),
            torch.full((branches * len(x),), t, device=x.device),
            context,
            self.conditions[branches],
        )
        return self._guide(velocity, len(x), branches, self.audio_guidance)

    @staticmethod
    def _guide(velocity: Tensor, rows: int, branches: int, weight: float) -> Tensor:
        if branches == 1:
            return velocity[:rows]
        return flow.guide(velocity[:rows], velocity[rows:], weight)


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


def _twice(x: Tensor, branches: int) -> Tensor:
    return torch.cat([x] * branches) if branches > 1 else x
