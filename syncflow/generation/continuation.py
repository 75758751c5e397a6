"""Clips that go on (``extension``), and parts of clips drawn anew, without training for either.

Both draw a window of which a part is given (``window``). What is given is the person's own in the
result, not its decoded copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict, cast

import torch
from torch import Tensor

from syncflow.clip import AUDIO_HOP, VIDEO_STRIDE, Clip, ClipSpec
from syncflow.generation import memory, noise
from syncflow.generation.arguments import Part
from syncflow.generation.drawing import Wishes
from syncflow.generation.events import Times
from syncflow.generation.extension import extended
from syncflow.generation.model import Model
from syncflow.generation.request import as_seen, resolve
from syncflow.generation.window import Window, as_long, drawn, spliced

#: What goes with neither, unless it is this.
_PLAIN = {"audio_takes": 1, "v2a": "one-pass", "rank": "sync"}


class Asked(TypedDict):
    """The arguments of ``generate`` that say what goes on, and how."""

    extend: object
    retake: object
    span: object
    part: Part


def run(
    model: Model,
    prompts: list[str],
    seed: int,
    seconds: float | None,
    wishes: Wishes,
    others: Mapping[str, object],
    *,
    extend: object = None,
    retake: object = None,
    span: object = None,
    part: Part = "audio",
) -> list[Clip]:
    """``generate`` with ``extend`` or ``retake``; ``others``: its arguments that go with neither,
    but for ``contacts``, which go with ``extend``.

    Raises:
        ValueError: arguments that do not go together, or as ``extended`` and ``retaken``.
    """
    if extend is not None and retake is not None:
        raise ValueError("give extend or retake, not both")
    alone = {**others, "candidates": wishes.sampling.get("candidates")}
    contacts = None if extend is None else alone.pop("contacts", None)
    for name, value in alone.items():
        plain = _PLAIN.get(name, 1)
        if value is not None and not (isinstance(value, type(plain)) and value == plain):
            what = "extend" if extend is not None else "retake"
            raise ValueError(f"{what} does not go with {name}: leave it out")
    if extend is not None:
        if span is not None or part != "audio":
            which = "part" if span is None else "span"
            raise ValueError(f"{which} belongs to retake: extend adds at the end")
        when = cast("Times | Sequence[Times] | None", contacts)
        return extended(model, prompts, extend, seconds, seed, wishes, when)
    if seconds is not None:
        raise ValueError("retake keeps the clip's length: leave seconds out")
    return [retaken(model, prompts, retake, span, part, seed, wishes)]


def retaken(
    model: Model,
    prompts: list[str],
    clip: object,
    span: object,
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
    if len(prompts) != 1:
        raise ValueError(f"retake takes one prompt, got {len(prompts)}")
    whole = model.config.geometry.spec
    if part != "audio":
        _check_picture(clip, whole)
    given = _read(clip, whole)
    start, end = _times(span, given.seconds)
    frames = -(-round(given.seconds * whole.fps) // VIDEO_STRIDE[0]) * VIDEO_STRIDE[0]
    spec = replace(whole, seconds=frames / whole.fps)
    memory.check(model, spec)
    seen = as_seen(given.video, given.fps, spec)
    heard = as_long(given.audio, spec.num_samples)

    inside_F = _between(torch.arange(spec.num_frames) / spec.fps, start, end)
    new_T = inside_F.unflatten(0, (-1, VIDEO_STRIDE[0])).any(1)
    bounds = round(start * spec.sample_rate), round(end * spec.sample_rate)
    index_A = torch.arange(spec.audio_latent_length)
    new_A = ((index_A + 1) * AUDIO_HOP > bounds[0]) & (index_A * AUDIO_HOP < bounds[1])
    window = Window(
        model.codecs.encode_video([seen]),
        ~new_T if part != "audio" else torch.ones_like(new_T),
        model.codecs.encode_audio([heard]),
        ~new_A if part != "video" else torch.ones_like(new_A),
    )
    asked = resolve(model.config.sampling, prompts, wishes.sampling, retaken=part)
    source = noise.generators([seed])
    x_video, x_audio = drawn(model, prompts[0], spec, window, asked, source, wishes)

    out = given
    if part != "video":
        sound = model.codecs.decode_audio(x_audio[0], spec)
        out = replace(out, audio=spliced(given.audio, sound, *bounds, given.sample_rate))
    if part != "audio":
        inside_F = inside_F[: len(given.video)]
        picture = model.codecs.decode_video(x_video[0], spec)[: len(given.video)]
        video = torch.where(inside_F[:, None, None, None], picture, given.video)
        out = replace(out, video=video, picture_file=None)
    return replace(out, prompt=prompts[0] or given.prompt, scores=None)


def _check_picture(clip: object, spec: ClipSpec) -> None:
    """Raises ValueError where new pictures would not be like the old ones beside them: a file's own
    size and rate count, not those at which it can be read."""
    if isinstance(clip, (str, Path)):
        from syncflow.data import media

        found = media.probe(clip)
        width, height, fps = found.width, found.height, found.fps or spec.fps
    elif isinstance(clip, Clip):
        (height, width), fps = clip.video.shape[2:], clip.fps
    else:
        return
    # Rates that containers round, such as 15.999, are the same.
    if (width, height) != (spec.width, spec.height) or abs(fps - spec.fps) > 0.005 * spec.fps:
        raise ValueError(
            f"the clip is {width}x{height} at {fps:g} fps; a picture that is drawn anew must have "
            f"the model's size and rate, {spec.width}x{spec.height} at {spec.fps:g}"
        )


def _read(clip: object, spec: ClipSpec) -> Clip:
    """A clip as it is given, with its sound at the model's rate."""
    if isinstance(clip, (str, Path)):
        from syncflow.data.export import tags

        path, told = Path(clip), tags.facts(clip)
        clip = Clip.load(path, fps=spec.fps, sample_rate=spec.sample_rate)
        ours = tags.parse(told["comment"]) is not None
        clip = replace(clip, picture_file=path, prompt=told["title"] if ours else None)
    if not isinstance(clip, Clip):
        raise ValueError(f"retake takes a Clip or a path, got {type(clip).__name__}")
    if clip.sample_rate != spec.sample_rate:
        raise ValueError(
            f"the clip's sound has {clip.sample_rate} Hz, this model's {spec.sample_rate}"
        )
    return clip


def _times(span: object, seconds: float) -> tuple[float, float]:
    pair = isinstance(span, Sequence) and not isinstance(span, str) and len(span) == 2
    times = cast("Sequence[float]", span)
    numbers = pair and all(
        isinstance(t, (int, float)) and not isinstance(t, bool) and 0 <= t <= seconds + 1e-6
        for t in times
    )
    if not numbers or not times[0] < times[1]:
        raise ValueError(
            f"span must be (start, end) with 0 <= start < end <= {seconds:g} s, got {span!r}"
        )
    return float(times[0]), min(float(times[1]), seconds)


def _between(times: Tensor, start: float, end: float) -> Tensor:
    return (times >= start - 1e-6) & (times < end - 1e-6)
