"""Whether a given picture looks like anything that a model was trained on.

Two signs, each a share of what the model knows. Latents have a mean square of 1 over the clips that
it was trained on (``latent_std_video`` makes them so), and a picture of other colours, edges and
shapes goes beyond it. What the video VAE never learned does not come back from it: noise, fine
patterns.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from syncflow.clip import VIDEO_STRIDE, Clip, ClipSpec
from syncflow.generation.model import Model
from syncflow.generation.request import as_seen, first_frame

#: Beyond this a picture is foreign: ``benchmarks/foreign.py`` counts false alarms and hits.
MOST = 2.2
_LOST = 2.0  # so that noise, of which nothing comes back, is foreign whatever its latents are
_NAMED = 3


def remarks(model: Model, films: Iterable[object] = (), image: object = None) -> list[str]:
    """At most one sentence, on given pictures that look like nothing which the model was trained
    on; none of a model whose config tells no vocabulary, for it may know anything.

    Args:
        films: given to ``generate``, of which the first seconds are looked at; those that are None
            were not.
        image: a first frame given to it.
    """
    vocabulary = model.config.vocabulary
    if vocabulary is None:
        return []
    spec = model.config.geometry.spec
    single = [one for film in films if film is not None for one in _each(film)]
    found = [film for film in single if strangeness(model, _beginning(film, spec)) > MOST]
    if image is not None and strangeness(model, first_frame(image, spec)) > MOST:
        found.append(image)
    if not found:
        return []
    names = list(dict.fromkeys(_name(given) for given in found))
    named = ", ".join(names[:_NAMED])
    more = len(names) - _NAMED
    named += f" and {more} more" if more > 0 else ""
    verb = "looks" if len(names) == 1 else "look"
    return [
        f"{named} {verb} like nothing that this model was trained on, {vocabulary.summary}: expect "
        "little of what is made of it"
    ]


@torch.inference_mode()
def strangeness(model: Model, frames_FCHW: Tensor) -> float:
    """The mean square of the latents, and twice the share of the pixels' variance that does not
    come back from them.

    Args:
        frames_FCHW: uint8 frames of the model's size and rate.
    """
    codecs = model.codecs
    latent_CTHW = codecs.encode_video([frames_FCHW])[0]
    length = len(frames_FCHW) / model.config.geometry.fps
    spec = replace(model.config.geometry.spec, seconds=length)
    back = codecs.decode_video(latent_CTHW, spec).float()
    picture = frames_FCHW.float()
    variance = picture.var(correction=0).clamp_min(1)  # of a plain one, that of rounding
    lost = ((back - picture).square().mean() / variance).clamp(max=1)
    return float(latent_CTHW.square().mean() + _LOST * lost)


def _each(film: object) -> list[object]:
    """One film, or those of a list or of a tensor [P,F,3,H,W]."""
    if isinstance(film, (list, tuple)) or (torch.is_tensor(film) and film.ndim == 5):
        return list(film)
    return [film]


def _beginning(film: object, spec: ClipSpec) -> Tensor:
    """What a model sees of the first seconds of a film."""
    if isinstance(film, (str, Path)):
        from syncflow.data import media

        fps = spec.fps
        frames = media.read_pictures(
            film, fps, seconds=spec.seconds, height=spec.height, width=spec.width
        )
    elif isinstance(film, Clip):
        frames, fps = film.video, film.fps
    else:
        frames, fps = cast(Tensor, film), spec.fps
    most = min(spec.num_frames, max(1, round(len(frames) / fps * spec.fps)))
    step = VIDEO_STRIDE[0]
    return as_seen(frames, fps, replace(spec, seconds=-(-most // step) * step / spec.fps))


def _name(given: object) -> str:
    return f"'{Path(given).name}'" if isinstance(given, (str, Path)) else "the given picture"
