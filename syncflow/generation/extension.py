"""Clips that go on, by any model, without training for it.

A window of the model's own length holds the last moments of what there is and is drawn on from
there, as often as it takes. What one window drew is given to the next as it was drawn: decoded and
encoded again, it would be a little worse each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from syncflow.clip import AUDIO_HOP, VIDEO_STRIDE, Clip, ClipSpec
from syncflow.detect import contacts as detector
from syncflow.generation import events, memory, noise
from syncflow.generation.drawing import Wishes
from syncflow.generation.events import Times
from syncflow.generation.model import Model
from syncflow.generation.request import Request, fit, resolve
from syncflow.generation.window import Window, as_long, drawn, joined
from syncflow.ranges import Real

#: Of a window, the share that the old clip may fill.
CONTEXT = 0.5
#: Keeps times that are planned apart from the noise of the same seed.
_PLAN = 11


@dataclass(frozen=True)
class _Past:
    """A clip that goes on, and what is known of it: the ``latents`` of its end, [1, C, T, h, w] and
    [1, A, D], if they were drawn just now, and the ``contacts`` (s) that they were told."""

    clip: Clip
    latents: tuple[Tensor, Tensor] | None = None
    contacts: list[float] | None = None


def extended(
    model: Model,
    prompts: list[str],
    clip: object,
    seconds: float | None,
    seed: int,
    wishes: Wishes,
    contacts: Times | Sequence[Times] | None = None,
) -> list[Clip]:
    """The clip and ``seconds`` more of it, for each sentence: of one clip in turn, each going on
    from where the one before ended; of a list of clips, one each.

    A window of the model's own length holds as much of the old clip as fits into its first half and
    is drawn on from there; longer extensions are several windows. Each is told when things touch in
    all of it: in a clip that was given, as they are seen there.

    Args:
        clip: a Clip of the model's rates, a path, or a list with one per sentence.
        seconds: how much is added; None = half of the model's own length.
        contacts: when things touch in what is added, in seconds from the old clip's start, or such
            a list for each sentence, which several in turn need. None: as the model's rhythms go
            on, if it has any; []: open.

    Raises:
        ValueError: the clip is shorter than one latent frame or has other rates, or the model's own
            length is a single one; or a contact that is not in what is added.
    """
    several = isinstance(clip, (list, tuple))
    clips = list(clip) if isinstance(clip, (list, tuple)) else [clip] * len(prompts)
    if len(clips) != len(prompts):
        raise ValueError(f"{len(clips)} clips to extend for {len(prompts)} prompts; give one each")
    spec = model.config.geometry.spec
    if not _known(spec.num_frames, spec):
        raise ValueError(
            f"this model's clips have {spec.num_frames} frames, too few to hold a part of another"
        )
    memory.check(model, spec)
    more = spec.seconds * (1 - CONTEXT) if seconds is None else seconds
    wanted = round(more * spec.fps)
    if wanted < 1:
        raise ValueError(f"seconds to add must be at least one frame, got {more}")
    asked = resolve(model.config.sampling, prompts, wishes.sampling, extend=clip)
    said = events.each(contacts, len(prompts), bool(model.config.ddit.event_bins))
    pasts = [_Past(_of_model(one, spec)) for one in (clips if several else clips[:1])]
    lengths = [len(past.clip.video) for past in pasts]
    if not several:
        lengths = [lengths[0] + index * wanted for index in range(len(prompts))]
    for times, length in zip(said or [], lengths, strict=False):
        _check_times(times, length / spec.fps, (length + wanted) / spec.fps)
    noise.generators(seed + index for index in range(len(prompts)))  # that none is refused midway
    made: list[_Past] = []
    for index, sentence in enumerate(prompts):
        last = made[-1] if made and not several else pasts[index]
        when = _When(model, sentence, last, seed + index, said[index] if said else None)
        source = noise.generators([seed + index])
        made.append(_extended(model, sentence, last, wanted, asked, source, wishes, when))
    return [past.clip for past in made]


def _check_times(times: Sequence[object], begin: float, end: float) -> None:
    within = Real(begin, end, "s")
    for time in times:
        if not within.holds(time):
            raise ValueError(
                f"a contact must be in what is added, at {begin:g} to {end:g} seconds from the "
                f"start of the clip that goes on, got {time!r}; prompts in turn take a list each"
            )


class _When:
    """When things touch in a clip that goes on: ``times`` in seconds from its start, as far as it
    is known or planned; None where the model is told nothing.

    Args:
        model, prompt, past: what goes on.
        seed: of what is planned.
        said: what was asked for.
    """

    def __init__(
        self, model: Model, prompt: str, past: _Past, seed: int, said: list[float] | None
    ) -> None:
        self.config, self.prompt = model.config, prompt
        self.times: list[float] | None = None
        self.draw: np.random.Generator | None = None
        if said or (said is None and events.rhythms(model.config, prompt)):
            known = past.contacts
            if known is None:
                known = _seen(past.clip, model.config.geometry.spec)
            self.times = sorted([*known, *(said or [])])
        if said is None and self.times is not None:
            self.draw = np.random.default_rng([seed, _PLAN])

    def window(self, begin: float, known: float) -> Tensor | None:
        """Times of the window that begins at ``begin`` s and of which ``known`` s are given, as of
        ``events.events``."""
        if self.times is None:
            return None
        if self.draw is not None:
            before = [time - begin for time in self.times]
            on = events.going_on(self.config, self.prompt, before, known, self.draw)
            self.times += [time + begin for time in on]
        seconds = self.config.geometry.seconds
        return events.told([[t - begin for t in self.times if 0 <= t - begin <= seconds]])


def _extended(
    model: Model,
    prompt: str,
    past: _Past,
    wanted: int,
    asked: Request,
    source: noise.Generators,
    wishes: Wishes,
    when: _When,
) -> _Past:
    spec, clip, latents = model.config.geometry.spec, past.clip, past.latents
    video, audio = clip.video, as_long(clip.audio, round(clip.seconds * clip.sample_rate))
    until = len(video) + wanted
    while len(video) < until:
        known = _known(len(video), spec)
        start = round(known / spec.fps * spec.sample_rate)
        heard = start // AUDIO_HOP
        if latents is None or start % AUDIO_HOP:
            given = model.codecs.encode_video([video[-known:]])
            sound = model.codecs.encode_audio([audio[-start:]])[:, :heard]
        else:
            given = latents[0][:, :, -(known // VIDEO_STRIDE[0]) :]
            sound = latents[1][:, -heard:]
        window = Window.beginning(given, sound, spec)
        begin = (len(video) - known) / spec.fps
        told = when.window(begin, known / spec.fps)
        latents = drawn(model, prompt, spec, window, asked, source, wishes, told)
        decoded = model.codecs.decode_audio(latents[1][0], spec)
        audio = joined(audio, decoded, start, spec.sample_rate)
        video = torch.cat([video, model.codecs.decode_video(latents[0][0], spec)[known:]])
        latents = _ending(latents, max(0, len(video) - until), spec)
    audio = as_long(audio, round(until / spec.fps * spec.sample_rate))
    whole = Clip(video[:until], audio, spec.fps, spec.sample_rate, prompt)
    times = when.times
    if times is not None:
        times = [time for time in times if time < whole.seconds]
    return _Past(whole, latents, times)


def _ending(
    latents: tuple[Tensor, Tensor], left_out: int, spec: ClipSpec
) -> tuple[Tensor, Tensor] | None:
    """A window's latents without its last ``left_out`` frames; None where picture and sound then
    end inside of one."""
    samples = round(left_out / spec.fps * spec.sample_rate)
    if left_out % VIDEO_STRIDE[0] or samples % AUDIO_HOP or spec.num_samples % AUDIO_HOP:
        return None
    video, audio = latents
    frames, sounds = left_out // VIDEO_STRIDE[0], samples // AUDIO_HOP
    return video[:, :, : video.shape[2] - frames], audio[:, : audio.shape[1] - sounds]


def _seen(clip: Clip, spec: ClipSpec) -> list[float]:
    """When things touch in the picture of a clip's last window, s from the clip's start."""
    first = max(0, len(clip.video) - spec.num_frames)
    return [time + first / clip.fps for time in detector.times(clip.video[first:], clip.fps)]


def _known(frames: int, spec: ClipSpec) -> int:
    """How many of a clip's last frames a window holds: whole latent frames."""
    step = VIDEO_STRIDE[0]
    return min(frames, int(spec.num_frames * CONTEXT)) // step * step


def _of_model(clip: object, spec: ClipSpec) -> Clip:
    """A clip with the model's rates and size."""
    if isinstance(clip, (str, Path)):
        clip = Clip.load(
            clip, fps=spec.fps, sample_rate=spec.sample_rate, height=spec.height, width=spec.width
        )
    if not isinstance(clip, Clip):
        raise ValueError(f"extend takes a Clip or a path, got {type(clip).__name__}")
    if (clip.fps, clip.sample_rate) != (spec.fps, spec.sample_rate):
        raise ValueError(
            f"the clip has {clip.fps:g} frames/s and {clip.sample_rate} Hz, this model "
            f"{spec.fps:g} and {spec.sample_rate}: load it with Clip.load(path, fps={spec.fps:g}, "
            f"sample_rate={spec.sample_rate})"
        )
    if len(clip.video) < VIDEO_STRIDE[0]:
        raise ValueError(
            f"the clip has {len(clip.video)} pictures; to go on takes at least {VIDEO_STRIDE[0]}"
        )
    if clip.video.shape[2:] != (spec.height, spec.width):
        clip = replace(clip, video=fit(clip.video, spec.height, spec.width), picture_file=None)
    return clip
