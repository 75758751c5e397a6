"""What a user gives: checked, and pictures read and brought to the size that the model sees."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from syncflow import flow
from syncflow.clip import VIDEO_STRIDE, Clip, ClipSpec
from syncflow.config import SamplingConfig


@dataclass(frozen=True)
class Request:
    """What was asked for, with the model's own settings where nothing was said. ``path``: the two
    clocks, [steps + 1, 2]."""

    path: Tensor
    guidance: float
    audio_guidance: float
    solver: str
    renewal: float


@dataclass(frozen=True)
class GivenVideo:
    """``original`` uint8 [F,3,H,W] at ``fps``, as it is handed back, for ``seconds`` s; ``frames``
    what the model sees, uint8, at its own rate and size; ``file`` where it came from, if a file."""

    original: Tensor
    fps: float
    frames: Tensor
    seconds: float
    file: Path | None


def resolve(
    sampling: SamplingConfig,
    prompts: list[str],
    *,
    steps: int | None = None,
    audio_steps: int | None = None,
    guidance: float | None = None,
    audio_guidance: float | None = None,
    solver: str | None = None,
    schedule: str | None = None,
    shift: float | None = None,
    renewal: float | None = None,
    v2a: str = "one-pass",
    audio_takes: int = 1,
    rank: str | None = None,
    video: Any = None,
    image: Any = None,
) -> Request:
    """Fills in the model's settings; raises a ValueError that holds the value where the request
    makes no sense."""
    if guidance is not None and audio_guidance is None:
        audio_guidance = guidance
    guidance = sampling.guidance if guidance is None else guidance
    if audio_guidance is None:
        audio_guidance = sampling.audio_guidance
    audio_guidance = guidance if audio_guidance is None else audio_guidance
    schedule, solver = schedule or sampling.schedule, solver or sampling.solver
    shift = sampling.shift if shift is None else shift
    renewal = sampling.renewal if renewal is None else renewal
    if not 0 <= renewal <= 1:
        raise ValueError(f"renewal must be between 0 and 1, got {renewal}")
    asked_audio_steps = audio_steps
    if steps is None:
        steps = sampling.steps
        audio_steps = sampling.audio_steps if audio_steps is None else audio_steps
    _check_prompts(prompts, video)
    counts = {"steps": steps, "audio_steps": audio_steps, "audio_takes": audio_takes}
    for name, value in counts.items():
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    for name, weight in (("guidance", guidance), ("audio_guidance", audio_guidance)):
        if not weight >= 0:
            raise ValueError(f"{name} must not be negative, got {weight}")
    choices = (
        ("v2a", v2a, ("one-pass", "paper")),
        ("schedule", schedule, ("joint", "cascade")),
        ("solver", solver, flow.SOLVERS),
        ("rank", rank, ("sync", None)),
    )
    for name, value, known in choices:
        if value not in known:
            raise ValueError(f"unknown {name} {value!r}; known are {', '.join(map(str, known))}")
    if video is not None and image is not None:
        raise ValueError("give a video or an image, not both: the video has its own first frame")
    kind = schedule
    if video is not None:
        kind = "joint" if v2a == "paper" else "audio"
    if kind == "joint" and asked_audio_steps not in (None, steps):
        raise ValueError(
            f"audio_steps {asked_audio_steps} is not steps {steps}: here picture and sound "
            "move together; schedule 'cascade' moves them apart"
        )
    path = flow.schedule(kind, steps, audio_steps, shift)
    return Request(path, guidance, audio_guidance, solver, renewal)


def _check_prompts(prompts: list[str], video: Any) -> None:
    if not prompts:
        raise ValueError("no prompt: give a sentence or a list of sentences")
    for prompt in prompts:
        if not isinstance(prompt, str):
            raise ValueError(f"a prompt must be a string, got {prompt!r}")
        if not prompt.strip() and video is None:
            raise ValueError("empty prompt: say what to make in a sentence")


def given_videos(
    video: Any, count: int, spec: ClipSpec, seconds: float | None
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
    items = list(video) if several else [video]
    if several and len(items) != count:
        raise ValueError(f"{len(items)} videos for {count} prompts; give one for all or one each")
    sources = [_read_video(item, spec.fps) for item in items]
    lengths = [length for *_, length in sources]
    if seconds is None:
        seconds = lengths[0]
        if max(lengths) - min(lengths) > 0.5 / spec.fps:
            raise ValueError(
                f"the videos last {min(lengths):.3f} to {max(lengths):.3f} s; one call takes "
                "videos of one length: give seconds, or call for each"
            )
    elif seconds <= 0 or min(lengths) < seconds - 1e-6:
        raise ValueError(f"the video lasts {min(lengths):.3f} s, {seconds} s were asked for")
    # The tolerance keeps a length of 2.001 s from costing a latent frame more than 2 s.
    stride = VIDEO_STRIDE[0]
    frames = max(1, -(-int(seconds * spec.fps + 0.9) // stride)) * stride
    spec = replace(spec, seconds=frames / spec.fps)
    index = torch.arange(spec.num_frames) / spec.fps
    out = []
    for original, fps, file, _ in sources:
        shown = (index * fps).round().long().clamp(max=len(original) - 1)
        seen = fit(original[shown], spec.height, spec.width)
        kept = original[: max(1, round(seconds * fps))]
        out.append(GivenVideo(kept, fps, seen, seconds, file))
    return out if several else out * count, spec


def first_frame(image: Any, spec: ClipSpec) -> Tensor:
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


def _read_image(path: Path, fps: float) -> Any:
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not path.is_file():
        raise FileNotFoundError(f"no such image: '{path}'")
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError:
        from syncflow.data import media

        return media.read(path, fps=fps, seconds=1 / fps)[0][0]


def fit(frames_FCHW: Tensor, height: int, width: int) -> Tensor:
    """Crops the centre to the shape and resizes, uint8 -> uint8."""
    H, W = frames_FCHW.shape[-2:]
    if (H, W) == (height, width):
        return frames_FCHW
    scale = min(H / height, W / width)
    h, w = round(height * scale), round(width * scale)
    top, left = (H - h) // 2, (W - w) // 2
    cut = frames_FCHW[..., top : top + h, left : left + w].float()
    sized = F.interpolate(cut, (height, width), mode="bilinear", antialias=True)
    return sized.round().clamp(0, 255).to(torch.uint8)


def _read_video(video: Any, fps: float) -> tuple[Tensor, float, Path | None, float]:
    """Frames, their rate, the file and the length in seconds."""
    if isinstance(video, Clip):
        return video.video, video.fps, video.picture_file, video.seconds
    if isinstance(video, (str, Path)):
        from syncflow.data import media

        frames, _ = media.read(video, fps=fps)
        # What the file says, unless it says nothing or speaks of its sound.
        seconds, stated = len(frames) / fps, media.probe(video).seconds
        return frames, fps, Path(video), stated if abs(stated - seconds) <= 1 / fps else seconds
    if not torch.is_tensor(video):
        raise ValueError(f"video must be a Clip, a path or a tensor, got {type(video).__name__}")
    if video.dtype != torch.uint8 or video.ndim != 4 or video.shape[1] != 3 or not len(video):
        raise ValueError(f"video must be uint8 [F,3,H,W], got {video.dtype} {list(video.shape)}")
    return video, fps, None, len(video) / fps
