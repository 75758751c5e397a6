"""What a user gives: checked, and pictures read and brought to the size that the model sees."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from syncflow import flow
from syncflow.clip import VIDEO_STRIDE, Clip, ClipSpec
from syncflow.config import ModelConfig, SamplingConfig
from syncflow.generation.arguments import Part, Size, choose
from syncflow.sampling import OPTIONS, SamplingOptions

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Request:
    """What was asked for, with the model's own settings where nothing was said. ``path``: the two
    clocks, [steps + 1, 2]."""

    path: Tensor
    sampling: SamplingConfig
    guidance: float
    audio_guidance: float


@dataclass(frozen=True)
class GivenVideo:
    """``original`` uint8 [F,3,H,W] at ``fps``, as it is handed back (a file at the size that the
    model sees), for ``seconds`` s; ``frames`` uint8, at the model's rate and size; ``file`` where
    it came from, if a file."""

    original: Tensor
    fps: float
    frames: Tensor
    seconds: float
    file: Path | None


def resolve(
    sampling: SamplingConfig,
    prompts: list[str],
    asked: SamplingOptions,
    *,
    v2a: str = "one-pass",
    rank: str | None = None,
    video: object = None,
    image: object = None,
    extend: object = None,
    retaken: Part | None = None,
    takes: int = 1,
) -> Request:
    """The model's settings with what was ``asked`` for in their place.

    The sound's guidance and steps follow the picture's where neither the call nor the model's
    folder states them. ``retaken``: the part of a clip that is drawn anew; one modality alone moves
    while the other stands at its end.

    Raises:
        ValueError: the request makes no sense; the message holds the value. TypeError: an option
            that does not exist.
    """
    unknown = sorted(asked.keys() - OPTIONS.keys())
    if unknown:
        near = get_close_matches(unknown[0], OPTIONS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise TypeError(f"generate() has no option {unknown[0]!r}{hint}")
    given = {name: value for name, value in asked.items() if value is not None}
    given = {name: OPTIONS[name].check(name, value) for name, value in given.items()}
    used = sampling.model_copy(update=given)
    _check_prompts(prompts, given=video is not None or retaken is not None)
    choose(v2a=v2a, rank=rank, **({} if retaken is None else {"part": retaken}))
    if v2a == "paper" and video is None:
        raise ValueError("v2a 'paper' is a way to read a given video: give video, or leave it out")
    if video is not None or extend is not None or retaken is not None or takes > 1:
        # A folder's own setting is for what it can be used for.
        used = used.model_copy(update={"candidates": given.get("candidates", 1)})
    if used.candidates > 1 and (video is not None or takes > 1):
        what = "a given video stays as it is" if video is not None else "candidates have one take"
        raise ValueError(
            f"candidates is {used.candidates}, and {what}; draw sounds alone with audio_takes, or "
            "leave it out"
        )
    if video is not None and image is not None:
        raise ValueError("give a video or an image, not both: the video has its own first frame")
    if used.eta and used.solver not in flow.NOISY_SOLVERS:
        raise ValueError(
            f"solver {used.solver!r} draws no noise, and eta is {used.eta:g}; "
            f"{' and '.join(flow.NOISY_SOLVERS)} do"
        )
    if used.guidance_start > used.guidance_end:
        raise ValueError(
            f"guidance_start {used.guidance_start:g} is beyond guidance_end {used.guidance_end:g}"
        )
    kind = used.schedule
    if video is not None:
        kind = "joint" if v2a == "paper" else "audio"
    elif retaken in ("audio", "video"):
        kind = retaken
    steps, audio_steps = used.steps, used.audio_steps
    if kind == "joint" and given.get("audio_steps") not in (None, steps, sampling.audio_steps):
        raise ValueError(
            f"audio_steps {audio_steps} is not steps {steps}: video and audio share "
            "their steps here; use schedule 'cascade' to sample them separately"
        )
    audio_guidance = used.guidance if used.audio_guidance is None else used.audio_guidance
    path = flow.schedule(kind, steps, audio_steps, used.shift)
    return Request(path, used, used.guidance, audio_guidance)


def geometry(config: ModelConfig, size: Size, video: object = None) -> ClipSpec:
    """A model's geometry with the ``height``, ``width`` and, unless a video brings its own, the
    ``seconds`` that were asked for.

    Raises:
        ValueError: a size that is none, or that this model does not have.
    """
    spec = config.geometry.spec.with_size(size["height"], size["width"])
    if video is None and size["seconds"] is not None:
        spec = replace(spec, seconds=size["seconds"])
    patches = config.ddit.audio.upsampler_patches
    _, h, w = spec.video_latent_shape
    _, ph, pw = config.ddit.video.patch_size
    found = -(-h // ph) * -(-w // pw)
    if patches and found != patches and config.ddit.audio.condition != "text":
        raise ValueError(
            f"this model's size is fixed to {config.geometry.height}x{config.geometry.width} (or "
            f"another of {patches} patches), got {spec.height}x{spec.width}"
        )
    return spec


def _check_prompts(prompts: list[str], given: bool) -> None:
    if not prompts:
        raise ValueError("no prompt: give a string or a list of strings")
    for prompt in prompts:
        if not prompt.strip() and not given:
            raise ValueError("empty prompt: describe the clip in one sentence")


def given_videos(
    video: object, count: int, spec: ClipSpec, seconds: float | None
) -> tuple[list[GivenVideo], ClipSpec]:
    """One given video per prompt, all of one length, and the geometry that the model works in: that
    length, brought up to whole latent frames by repeating the last picture.

    Args:
        video: a Clip, a path, uint8 [F,3,H,W], uint8 [P,F,3,H,W], or a list with one per prompt;
            a single one serves every prompt.
        count: prompts P.
        spec: rates and size that the model sees.
        seconds: how much of the video; None = all of it.
    """
    several = isinstance(video, (list, tuple)) or (torch.is_tensor(video) and video.ndim == 5)
    items = list(cast("Iterable[object]", video)) if several else [video]
    if several and len(items) != count:
        raise ValueError(f"{len(items)} videos for {count} prompts; give one for all or one each")
    if seconds is not None and not seconds > 0:
        raise ValueError(f"seconds must be positive, got {seconds}")
    sources = [_read_video(item, spec, seconds) for item in items]
    lengths = [length for *_, length in sources]
    if seconds is None:
        seconds = lengths[0]
        if max(lengths) - min(lengths) > 0.5 / spec.fps:
            raise ValueError(
                f"the videos last {min(lengths):.3f} to {max(lengths):.3f} s; one call takes "
                "videos of one length: give seconds, or call for each"
            )
    elif min(lengths) < seconds - 1e-6:
        raise ValueError(f"the video lasts {min(lengths):.3f} s, {seconds} s were asked for")
    spec = replace(spec, seconds=_latent_seconds(seconds, spec.fps))
    out = []
    for original, fps, file, _ in sources:
        kept = original[: max(1, round(seconds * fps))]
        out.append(GivenVideo(kept, fps, as_seen(original, fps, spec), seconds, file))
    return out if several else out * count, spec


def as_seen(frames_FCHW: Tensor, fps: float, spec: ClipSpec) -> Tensor:
    """uint8 frames at ``fps`` -> those that a model of that geometry sees: its length, the last one
    staying, its rate and its size."""
    if not len(frames_FCHW):
        raise ValueError("a film must have pictures, got none")
    index = (torch.arange(spec.num_frames) / spec.fps * fps).round().long()
    return fit(frames_FCHW[index.clamp(max=len(frames_FCHW) - 1)], spec.height, spec.width)


def first_frame(image: object, spec: ClipSpec) -> Tensor:
    """An image (uint8 [3,H,W], a path, or anything like a PIL image) -> uint8 frames of one latent
    frame, at the model's size. Of a film, the first picture."""
    if isinstance(image, (str, Path)):
        image = _read_image(Path(image), spec.fps)
    if not torch.is_tensor(image):
        import numpy as np

        array = np.array(image)
        if array.ndim != 3 or array.shape[-1] != 3:
            raise ValueError(f"image must be RGB, got an array of shape {array.shape}")
        image = torch.from_numpy(array).permute(2, 0, 1)
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"image must be uint8 [3,H,W], got {image.dtype} {list(image.shape)}")
    frames = fit(image[None], spec.height, spec.width)
    return frames.expand(VIDEO_STRIDE[0], -1, -1, -1)


def _read_image(path: Path, fps: float) -> Tensor | Image:
    from syncflow.data import media
    from syncflow.data.film import opener

    image = opener.image(path)
    return media.read_pictures(path, fps, seconds=1 / fps)[0] if image is None else image


def fit(frames_FCHW: Tensor, height: int, width: int) -> Tensor:
    """Crops the centre to the shape and resizes, uint8 -> uint8.

    Raises:
        ValueError: there is not a pixel.
    """
    H, W = frames_FCHW.shape[-2:]
    if not frames_FCHW.numel():
        raise ValueError(f"a picture must have pixels, got {list(frames_FCHW.shape)}")
    if (H, W) == (height, width):
        return frames_FCHW
    scale = min(H / height, W / width)
    h, w = round(height * scale), round(width * scale)
    top, left = (H - h) // 2, (W - w) // 2
    cut = frames_FCHW[..., top : top + h, left : left + w].float()
    sized = F.interpolate(cut, (height, width), mode="bilinear", antialias=True)
    return sized.round().clamp(0, 255).to(torch.uint8)


def _latent_seconds(seconds: float, fps: float) -> float:
    """The length of the whole latent frames that hold ``seconds``."""
    # The tolerance keeps a length of 2.001 s from costing a latent frame more than 2 s.
    stride = VIDEO_STRIDE[0]
    return max(1, -(-int(seconds * fps + 0.9) // stride)) * stride / fps


def _read_video(
    video: object, spec: ClipSpec, seconds: float | None
) -> tuple[Tensor, float, Path | None, float]:
    """Frames, their rate, the file and the length in seconds. A file is read at the size that the
    model sees, and no further than ``seconds`` need; its own picture is copied when it is saved."""
    if isinstance(video, Clip):
        if not video.video.numel():
            raise ValueError(f"video must have a picture, got {list(video.video.shape)}")
        return video.video, video.fps, video.picture_file, video.seconds
    if isinstance(video, (str, Path)):
        from syncflow.data import media

        stated = media.probe(video).seconds
        most = None if seconds is None else _latent_seconds(seconds, spec.fps)
        frames = media.read_pictures(
            video, spec.fps, seconds=most, height=spec.height, width=spec.width
        )
        # What the file says, unless it says nothing or speaks of its sound.
        length = len(frames) / spec.fps
        length = stated if abs(stated - length) <= 1 / spec.fps else length
        return frames, spec.fps, Path(video), length
    if not torch.is_tensor(video):
        raise ValueError(f"video must be a Clip, a path or a tensor, got {type(video).__name__}")
    if video.dtype != torch.uint8 or video.ndim != 4 or video.shape[1] != 3 or not video.numel():
        raise ValueError(f"video must be uint8 [F,3,H,W], got {video.dtype} {list(video.shape)}")
    return video, spec.fps, None, len(video) / spec.fps
