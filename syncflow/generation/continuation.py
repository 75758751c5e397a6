"""Clips that go on, and parts of clips drawn anew, by any model, without training for it.

Both sample a window of which a part is given. Given latent frames are told to the video tower as
clean or, for one that was not trained so, are put back as noisy as the rest at every step; given
sound is always put back so (``Held``). What is given is the person's own in the result, not its
decoded copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from syncflow import flow
from syncflow.clip import AUDIO_HOP, VIDEO_STRIDE, Clip, ClipSpec
from syncflow.generation import noise, record
from syncflow.generation.codecs import Codecs
from syncflow.generation.drawing import Start, draw
from syncflow.generation.request import Part, Request, choose, fit, prompt_list, resolve
from syncflow.generation.sampler import Encoder, encode_captions
from syncflow.generation.steps import Steps
from syncflow.models.ddit import DDiT
from syncflow.noise_steps import Held
from syncflow.sampling import SamplingOptions

#: Of a window, the share that the old clip may fill; seconds over which sounds blend at a seam.
_CONTEXT, _SEAM_S = 0.5, 0.01


class Model(record.Model, Protocol):
    """What is asked of a model (``pipeline.SyncFlow``)."""

    ddit: DDiT
    steps: Steps

    @property
    def text_encoder(self) -> Encoder: ...

    @property
    def codecs(self) -> Codecs: ...


@dataclass(frozen=True)
class Wishes:
    """What all windows have in common: texts, sampling options, who is told of steps."""

    sampling: SamplingOptions
    negative_prompt: str | None = None
    negative_audio_prompt: str | None = None
    callback: flow.Callback | None = None
    progress: bool = True


@dataclass(frozen=True)
class _Window:
    """Latents of a window and what of them is given: ``video`` [1, C, T, h, w] where ``frames`` [T]
    is True, ``audio`` [1, A, D] where ``sounds`` [A] is."""

    video: Tensor
    frames: Tensor
    audio: Tensor
    sounds: Tensor


def run(
    model: Model,
    prompt: Any,
    extended: Any,
    retaken: Any,
    seconds: float | None,
    span: Any,
    part: Part,
    seed: int,
    wishes: Wishes,
    others: dict[str, Any],
) -> Clip | list[Clip]:
    """``generate`` with ``extend`` or ``retake``; ``others``: its arguments that go with neither.

    Raises:
        ValueError: arguments that do not go together, or as ``extend`` and ``retake``.
    """
    name = "extend" if extended is not None else "retake"
    if extended is not None and retaken is not None:
        raise ValueError("give extend or retake, not both")
    others = others | {"candidates": wishes.sampling.get("candidates")}
    given = [other for other, value in others.items() if value not in (None, 1)]
    if given:
        raise ValueError(f"{name} does not go with {given[0]}: leave it out")
    if extended is not None:
        if span is not None:
            raise ValueError("span belongs to retake: extend adds at the end")
        made = extend(model, prompt, extended, seconds, seed, wishes)
        told: dict[str, Any] = {"extend": extended}
    else:
        if seconds is not None:
            raise ValueError("retake keeps the clip's length: leave seconds out")
        made = [retake(model, prompt, retaken, span, part, seed, wishes)]
        told = {"retake": retaken, "span": span, "part": part}
    records = record.planned(
        model, prompt_list(prompt), seed, seconds=seconds, **told, **wishes.sampling,
        negative_prompt=wishes.negative_prompt, negative_audio_prompt=wishes.negative_audio_prompt,
    )  # fmt: skip
    for clip, how in zip(made, records, strict=True):
        clip.made = how
    return made[0] if isinstance(prompt, str) else made


def extend(
    model: Model, prompt: Any, clip: Any, seconds: float | None, seed: int, wishes: Wishes
) -> list[Clip]:
    """The clip and ``seconds`` more of it, for each sentence: of one clip in turn, each going on
    from where the one before ended; of a list of clips, one each.

    A window of the model's own length holds as much of the old clip as fits into its first half and
    is drawn on from there; longer extensions are several windows.

    Args:
        clip: a Clip of the model's rates, a path, or a list with one per sentence.
        seconds: how much is added; None = half of the model's own length.

    Raises:
        ValueError: the clip is shorter than one latent frame or has other rates.
    """
    prompts = prompt_list(prompt)
    several = isinstance(clip, (list, tuple))
    clips = list(clip) if several else [clip] * len(prompts)
    if len(clips) != len(prompts):
        raise ValueError(f"{len(clips)} clips to extend for {len(prompts)} prompts; give one each")
    spec = model.config.geometry.spec
    _check_size(model, spec)
    more = spec.seconds * (1 - _CONTEXT) if seconds is None else seconds
    asked = resolve(model.config.sampling, prompts, wishes.sampling, extend=clip)
    made: list[Clip] = []
    for index, sentence in enumerate(prompts):
        last = made[-1] if made and not several else _of_model(clips[index], spec, "extend")
        source = noise.generators([seed + index])
        made.append(_extended(model, sentence, last, more, asked, source, wishes))
    return made


def _extended(
    model: Model,
    prompt: str,
    clip: Clip,
    seconds: float,
    asked: Request,
    source: noise.Generators,
    wishes: Wishes,
) -> Clip:
    spec = model.config.geometry.spec
    step = VIDEO_STRIDE[0]
    wanted = round(seconds * spec.fps)
    if wanted < 1:
        raise ValueError(f"seconds to add must be at least one frame, got {seconds}")
    video, audio = clip.video, _as_long(clip.audio, clip)
    until = len(video) + wanted
    while len(video) < until:
        known = min(len(video) // step * step, int(spec.num_frames * _CONTEXT) // step * step)
        start = round(known / spec.fps * spec.sample_rate)
        heard = start // AUDIO_HOP
        window = _Window(
            _filled(model.codecs.encode_video([video[-known:]]), 2, known // step, spec),
            torch.arange(spec.video_latent_shape[0]) < known // step,
            _filled(model.codecs.encode_audio([audio[-start:]]), 1, heard, spec),
            torch.arange(spec.audio_latent_length) < heard,
        )
        new = _drawn(model, prompt, spec, window, asked, source, wishes)
        sound = model.codecs.decode_audio(new[1][0], spec)
        # The old sound's last moments blend into the new one's, which are of the same moments.
        blend = min(start, round(_SEAM_S * spec.sample_rate))
        rise = torch.linspace(0, 1, blend)
        old, over = audio[len(audio) - blend :], sound[start - blend : start]
        seam = (1 - rise) * old + rise * over
        audio = torch.cat([audio[: len(audio) - blend], seam, sound[start:]])
        video = torch.cat([video, model.codecs.decode_video(new[0][0], spec)[known:]])
    video = video[:until]
    audio = audio[: round(until / spec.fps * spec.sample_rate)]
    return Clip(video, audio, spec.fps, spec.sample_rate, prompt)


def retake(
    model: Model,
    prompt: Any,
    clip: Any,
    span: Any,
    part: Part,
    seed: int,
    wishes: Wishes,
) -> Clip:
    """The clip with the sound, the picture, or both drawn anew between two times.

    Outside of the span picture and sound are the given ones, sample for sample; inside, over 10 ms
    at either end, one sound blends into the other. Where the sound alone changes, a file's picture
    is the file's, which ``Clip.save`` copies.

    Args:
        clip: a Clip, or a path.
        span: (start, end) in seconds.
        part: "audio", "video" or "both".

    Raises:
        ValueError: a span that is none of the clip's, or another part.
    """
    prompts = prompt_list(prompt)
    if len(prompts) != 1:
        raise ValueError(f"retake takes one prompt, got {len(prompts)}")
    choose(part=part)
    whole = model.config.geometry.spec
    given = _read(clip, whole)
    start, end = _times(span, given.seconds)
    frames = -(-round(given.seconds * whole.fps) // VIDEO_STRIDE[0]) * VIDEO_STRIDE[0]
    spec = replace(whole, seconds=frames / whole.fps)
    _check_size(model, spec)
    seen = _seen(given, spec)
    heard = _as_long(given.audio, given, spec.num_samples)
    if part != "audio" and (given.video.shape[2:] != seen.shape[2:] or given.fps != spec.fps):
        raise ValueError(
            f"the clip is {given.video.shape[3]}x{given.video.shape[2]} at {given.fps:g} fps; a "
            f"picture that is drawn anew must have the model's size and rate, {spec.width}x"
            f"{spec.height} at {spec.fps:g}"
        )

    inside_F = _between(torch.arange(spec.num_frames) / spec.fps, start, end)
    new_T = inside_F.unflatten(0, (-1, VIDEO_STRIDE[0])).any(1)
    bounds = round(start * spec.sample_rate), round(end * spec.sample_rate)
    index_A = torch.arange(spec.audio_latent_length)
    new_A = ((index_A + 1) * AUDIO_HOP > bounds[0]) & (index_A * AUDIO_HOP < bounds[1])
    window = _Window(
        model.codecs.encode_video([seen]),
        ~new_T if part != "audio" else torch.ones_like(new_T),
        model.codecs.encode_audio([heard]),
        ~new_A if part != "video" else torch.ones_like(new_A),
    )
    asked = resolve(model.config.sampling, prompts, wishes.sampling, retaken=part)
    source = noise.generators([seed])
    new = _drawn(model, prompts[0], spec, window, asked, source, wishes)

    out = given
    if part != "video":
        sound = model.codecs.decode_audio(new[1][0], spec)
        out = replace(out, audio=_spliced(given.audio, sound, *bounds, given.sample_rate))
    if part != "audio":
        inside_F = inside_F[: len(given.video)]
        drawn = model.codecs.decode_video(new[0][0], spec)[: len(given.video)]
        video = torch.where(inside_F[:, None, None, None], drawn, given.video)
        out = replace(out, video=video, picture_file=None)
    return replace(out, prompt=prompts[0] or given.prompt, scores=None)


def _drawn(
    model: Model,
    prompt: str,
    spec: ClipSpec,
    window: _Window,
    asked: Request,
    source: noise.Generators,
    wishes: Wishes,
) -> tuple[Tensor, Tensor]:
    """The window's latents, its given ones among them."""
    captions = encode_captions(
        model.ddit, model.text_encoder, [prompt], spec, model.dtype, wishes.negative_prompt,
        wishes.negative_audio_prompt, asked.sampling.null_caption,
    )  # fmt: skip
    fresh = noise.fresh(source)
    x_video, x_audio = noise.start(source, window.video.shape[1:], window.audio.shape[1:],
                                   model.device)  # fmt: skip
    still = bool(window.frames.all())
    mask = window.frames[:, None, None].to(model.device)
    start = Start(x_video, x_audio, still=still)
    if still:
        start = replace(start, video=window.video)
    elif window.frames.any() and model.config.given_frames == "clean":
        video = torch.where(mask, window.video, x_video)
        frame_mask = ~window.frames[None].to(model.device)
        start = replace(start, video=video, frame_mask=frame_mask, held=(Held(mask), None))
    elif window.frames.any():
        start = replace(start, held=(Held(mask, window.video, lambda x: fresh(0, x)), None))
    sounds = window.sounds[:, None].to(model.device)
    if window.sounds.all():
        start = replace(start, audio=window.audio)
    elif window.sounds.any():
        held = Held(sounds, window.audio, lambda _: x_audio)
        start = replace(start, held=(start.held[0], held))
    return draw(
        model.ddit, model.steps, captions, start, asked, fresh, wishes.callback, wishes.progress
    )


def _filled(given: Tensor, axis: int, known: int, spec: ClipSpec) -> Tensor:
    """Given latents with zeros up to the window's length."""
    length = spec.video_latent_shape[0] if axis == 2 else spec.audio_latent_length
    shape = list(given.shape)
    shape[axis] = length - known
    return torch.cat([given.narrow(axis, 0, known), given.new_zeros(shape)], axis)


def _of_model(clip: Any, spec: ClipSpec, name: str) -> Clip:
    """A clip with the model's rates and size."""
    if isinstance(clip, (str, Path)):
        clip = Clip.load(
            clip, fps=spec.fps, sample_rate=spec.sample_rate, height=spec.height, width=spec.width
        )
    if not isinstance(clip, Clip):
        raise ValueError(f"{name} takes a Clip or a path, got {type(clip).__name__}")
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


def _read(clip: Any, spec: ClipSpec) -> Clip:
    """A clip as it is given, with its sound at the model's rate."""
    if isinstance(clip, (str, Path)):
        path = Path(clip)
        clip = Clip.load(path, fps=spec.fps, sample_rate=spec.sample_rate)
        clip = replace(clip, picture_file=path)
    if not isinstance(clip, Clip):
        raise ValueError(f"retake takes a Clip or a path, got {type(clip).__name__}")
    if clip.sample_rate != spec.sample_rate:
        raise ValueError(
            f"the clip's sound has {clip.sample_rate} Hz, this model's {spec.sample_rate}"
        )
    return clip


def _seen(clip: Clip, spec: ClipSpec) -> Tensor:
    """What the model sees of a clip: its rate, size and whole latent frames."""
    index = (torch.arange(spec.num_frames) / spec.fps * clip.fps).round().long()
    return fit(clip.video[index.clamp(max=len(clip.video) - 1)], spec.height, spec.width)


def _times(span: Any, seconds: float) -> tuple[float, float]:
    pair = isinstance(span, Sequence) and not isinstance(span, str) and len(span) == 2
    numbers = pair and all(
        isinstance(t, (int, float)) and not isinstance(t, bool) and 0 <= t <= seconds + 1e-6
        for t in span
    )
    if not numbers or not span[0] < span[1]:
        raise ValueError(
            f"span must be (start, end) with 0 <= start < end <= {seconds:g} s, got {span!r}"
        )
    return float(span[0]), min(float(span[1]), seconds)


def _between(times: Tensor, start: float, end: float) -> Tensor:
    return (times >= start - 1e-6) & (times < end - 1e-6)


def _as_long(audio: Tensor, clip: Clip, samples: int | None = None) -> Tensor:
    """The sound, cut or with silence, as long as the picture or as ``samples``."""
    samples = round(clip.seconds * clip.sample_rate) if samples is None else samples
    audio = audio[:samples].float()
    return torch.nn.functional.pad(audio, (0, samples - len(audio)))


def _spliced(old: Tensor, new: Tensor, start: int, end: int, sample_rate: int) -> Tensor:
    """``old`` with ``new`` from sample ``start`` to ``end``, blended inside where ``old`` is on the
    other side."""
    end = min(end, len(old))
    share = torch.ones(end - start)
    blend = min(round(_SEAM_S * sample_rate), (end - start) // 2)
    ramp = torch.arange(blend) / max(1, blend)
    if start > 0:
        share[:blend] = ramp
    if end < len(old):
        share[end - start - blend :] = ramp.flip(0)
    out = old.clone()
    out[start:end] = torch.lerp(old[start:end].float(), new[start:end], share).to(old.dtype)
    return out


def _check_size(model: Model, spec: ClipSpec) -> None:
    from syncflow.generation import memory

    memory.check(model, spec)
