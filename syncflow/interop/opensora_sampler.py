"""Open-Sora v1.2's way from noise to video latents, and its clock, with and without its defects.

Axis letters: B batch, C latent channels, T latent frames, H, W latent size, L text tokens,
E width of the text encoder.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from syncflow import clip, flow
from syncflow.models.video_tower import VideoTower

Compat = Literal["opensora-1.2"]


def timestep_transform(
    t: Tensor, height: float, width: float, num_frames: int, compat: Compat | None = None
) -> Tensor:
    """Open-Sora's shift of its own times, 0..1000 with 1000 = noise, for a size and a length.

    t' = r t / (1 + (r - 1) t) with r = sqrt(H W / 512^2) sqrt(latent frames). Where it computes
    latent frames as ``num_frames // 17 * 5`` the original is right for whole chunks of 17 only: 32
    frames count as 5, and 2 to 16 frames as none, which sends every time to 0 and 1000 to NaN. The
    default counts the latent frames that there are.

    Args:
        t: times, any shape.
        height, width: pixels.
        num_frames: frames of the clip.
        compat: "opensora-1.2" counts as the original does.
    """
    if compat is None:
        shift = flow.resolution_shift(height, width, clip.latent_frames(num_frames))
    else:
        shift = original_shift(height, width, num_frames)
    noise = t / 1000
    return 1000 * shift * noise / (1 + (shift - 1) * noise)


def original_shift(height: float, width: float, num_frames: int) -> float:
    """The r of ``timestep_transform`` as the original computes it; 0 for 2 to 16 frames."""
    latent_frames = 1 if num_frames == 1 else num_frames // 17 * 5
    return math.sqrt(height * width / 512**2 * latent_frames)


def times(
    steps: int, size: tuple[float, float, int] | None = None, compat: Compat | None = None
) -> Tensor:
    """Flow times of ``steps`` steps, 0 = noise to 1 = data, [steps + 1], float64.

    ``size`` is (height, width, num_frames) for the timestep transform; without it the steps are
    even.

    Raises:
        ValueError: compat and 2 to 16 frames, for which the original's times are no path.
    """
    even = flow.times(steps)
    if size is None:
        return even
    shifted = 1 - timestep_transform(1000 * (1 - even), *size, compat=compat) / 1000
    if not shifted.isfinite().all():
        raise ValueError(
            f"Open-Sora's timestep transform has no times for {size[2]} frames (it needs 1 frame, "
            "or 17 and more); leave compat out"
        )
    return shifted


@torch.inference_mode()
def sample(
    tower: VideoTower,
    noise_BCTHW: Tensor,
    text_BLE: Tensor,
    text_mask_BL: Tensor,
    *,
    fps: float | Tensor,
    height: float,
    width: float,
    guidance: float = 7.0,
    path: Tensor | None = None,
    compat: Compat | None = None,
) -> Tensor:
    """Euler steps with classifier-free guidance from noise to video latents, [B, C, T, H, W].

    Args:
        tower: of ``interop.opensora.video_tower``.
        text_BLE, text_mask_BL: of the prompts, True = a token.
        height, width: pixels.
        path: flow times, from ``times``; 30 even steps when not given.
        compat: "opensora-1.2" cuts the null caption to the prompt's tokens, as the original does;
            the default leads away from all of it, so that the unguided branch is one and the same
            whatever the prompt.
    """
    path = times(30) if path is None else path
    kind = "full" if compat is None else "prompt"
    contexts = [
        tower.prepare(text_BLE, text_mask_BL),
        tower.prepare(*tower.unguided_text(text_mask_BL, kind)),
    ]

    def velocity(x: flow.State, t: tuple[float, ...], moving: tuple[bool, ...]) -> flow.State:
        t_B = torch.full((len(noise_BCTHW),), t[0], device=noise_BCTHW.device)
        prompted, unguided = (
            tower.step(x[0], t_B, text, fps=fps, height=height, width=width)[0] for text in contexts
        )
        return (flow.guide(prompted, unguided, guidance),)

    return flow.integrate(velocity, (noise_BCTHW,), path[:, None])[0]
