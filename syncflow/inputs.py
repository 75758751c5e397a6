"""What a user gives: checked, and pictures read and brought to the size that the model sees."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from syncflow.clip import VIDEO_STRIDE, Clip, ClipSpec
from syncflow.flow import SOLVERS


@dataclass(frozen=True)
class GivenVideo:
    """``original`` uint8 [F,3,H,W] at ``fps``, as it is handed back; ``frames`` what the model
    sees, uint8, at its own rate and size."""

    original: Tensor
    fps: float
    frames: Tensor


def check_request(
    prompts: list[str],
    steps: int,
    audio_steps: int | None,
    guidance: float,
    audio_guidance: float,
    audio_takes: int,
    v2a: str,
    video: Any,
    image: Any,
    schedule: str,
    solver: str,
) -> None:
    """Raises a ValueError that holds the value, unless the request makes sense."""
    if not prompts:
        raise ValueError("no prompt: give a sentence or a list of sentences")
    for prompt in prompts:
        if not isinstance(prompt, str):
            raise ValueError(f"a prompt must be a string, got {prompt!r}")
        if not prompt.strip() and video is None:
            raise ValueError("empty prompt: say what to make in a sentence")
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
        ("solver", solver, SOLVERS),
    )
    for name, value, known in choices:
        if value not in known:
            raise ValueError(f"unknown {name} {value!r}; known are {', '.join(known)}")
    if video is not None and image is not None:
        raise ValueError("give a video or an image, not both: the video has its own first frame")


def given_videos(
    video: Any, count: int, spec: ClipSpec, seconds: float | None
) -> tuple[list[GivenVideo], ClipSpec]:
    """One given video per prompt, all of one length, and the clips' geometry with that length.

    Args:
        video: a Clip, a path, uint8 [F,3,H,W], uint8 [P,F,3,H,W], or a list with one per prompt;
            a single one serves every prompt.
        count: prompts P.
        spec: rates and size that the model sees.
        seconds: how much of the video; None = as much as latent frames fill.
    """
    several = isinstance(video, (list, tuple)) or (torch.is_tensor(video) and video.ndim == 5)
    items = list(video) if several else [video] * count
    if len(items) != count:
        raise ValueError(f"{len(items)} videos for {count} prompts; give one for all or one each")
    sources = [_read_video(item, spec.fps) for item in items]
    if seconds is None:
        shortest = min(len(frames) / fps for frames, fps in sources)
        # The tolerance keeps 2 s of 30 fps at 16 fps from being one frame short by rounding.
        usable = int(shortest * spec.fps + 1e-6) // VIDEO_STRIDE[0] * VIDEO_STRIDE[0]
        if not usable:
            raise ValueError(
                f"the video is too short: {shortest:.3f} s, "
                f"at least {VIDEO_STRIDE[0] / spec.fps:.3f} s are needed"
            )
        seconds = usable / spec.fps
    spec = replace(spec, seconds=seconds)
    out = []
    for frames, fps in sources:
        if len(frames) / fps < seconds - 1e-6:
            raise ValueError(
                f"the video lasts {len(frames) / fps:.3f} s, {seconds} s were asked for"
            )
        index = (torch.arange(spec.num_frames) * (fps / spec.fps)).round().long()
        seen = fit(frames[index.clamp(max=len(frames) - 1)], spec.height, spec.width)
        out.append(GivenVideo(frames[: round(seconds * fps)], fps, seen))
    return out, spec


def first_frame(image: Any, spec: ClipSpec) -> Tensor:
    """An image (uint8 [3,H,W], a path, or anything like a PIL image) -> uint8 frames of one latent
    frame, at the model's size."""
    if isinstance(image, (str, Path)):
        from syncflow.data import media

        image = media.read(image, fps=spec.fps)[0][0]
    elif not torch.is_tensor(image):
        import numpy as np

        array = np.array(image)
        if array.ndim != 3 or array.shape[-1] != 3:
            raise ValueError(f"image must be RGB, got an array of shape {array.shape}")
        image = torch.from_numpy(array).permute(2, 0, 1)
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"image must be uint8 [3,H,W], got {image.dtype} {list(image.shape)}")
    frames = fit(image[None], spec.height, spec.width)
    return frames.expand(VIDEO_STRIDE[0], -1, -1, -1)


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


def _read_video(video: Any, fps: float) -> tuple[Tensor, float]:
    if isinstance(video, Clip):
        return video.video, video.fps
    if isinstance(video, (str, Path)):
        from syncflow.data import media

        return media.read(video, fps=fps)[0], fps
    if not torch.is_tensor(video):
        raise ValueError(f"video must be a Clip, a path or a tensor, got {type(video).__name__}")
    if video.dtype != torch.uint8 or video.ndim != 4 or video.shape[1] != 3 or not len(video):
        raise ValueError(f"video must be uint8 [F,3,H,W], got {video.dtype} {list(video.shape)}")
    return video, fps
