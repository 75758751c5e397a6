"""Rectified flow: paths, loss, times, solvers and guidance (paper sections 3.1, 3.2).

The convention of the whole package, stated here: **t = 0 is noise x_0, t = 1 is data x_1**,

    x_t = (1 - t) x_0 + t x_1,        velocity v = x_1 - x_0.

Two clocks: picture and sound each have a t of their own. A schedule is a path in the unit square of
(t_video, t_audio) from (0, 0) to (1, 1); the paper's is the diagonal. This module knows no network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from syncflow import noise_steps
from syncflow.coupling import Coupling as Coupling
from syncflow.coupling import assign as assign
from syncflow.coupling import conditional_cost as conditional_cost
from syncflow.coupling import couple as couple
from syncflow.coupling import transport_cost as transport_cost
from syncflow.noise_steps import Held

Solver = Literal["euler", "midpoint", "heun", "ab2", "2m"]

SOLVERS = ("euler", "midpoint", "heun", "ab2", "2m")
#: Solvers that can draw noise on their way.
NOISY_SOLVERS = ("euler", "2m")

State = tuple[Tensor, ...]


@dataclass(frozen=True)
class Guided:
    """A velocity whose guidance is yet to be applied, so that a step can do both in one pass."""

    conditional: Tensor
    null: Tensor
    weight: float

    def velocity(self) -> Tensor:
        """The guided velocity, of the conditional one's shape."""
        return guide(self.conditional, self.null, self.weight)


#: velocity(x, t, moving) -> one velocity per part of the state; None where ``moving`` is False.
Velocity = Callable[[State, tuple[float, ...], tuple[bool, ...]], Sequence[Tensor | Guided | None]]
#: advance(x, v, h) -> x + h v.
Advance = Callable[[Tensor, Tensor | Guided, float], Tensor]
#: callback(step, x, t) after every step, step counting from 1.
Callback = Callable[[int, State, tuple[float, ...]], None]
#: noise(part, like) -> standard normal numbers of ``like``'s shape, device and dtype.
Noise = Callable[[int, Tensor], Tensor]


# Training


def interpolate(x_0: Tensor, x_1: Tensor, t_B: Tensor) -> Tensor:
    """x_t = (1 - t) x_0 + t x_1 for a time per sample (paper eq. 1)."""
    t = t_B.reshape(-1, *(1,) * (x_1.ndim - 1)).to(x_1.dtype)
    return torch.lerp(x_0, x_1, t)


def velocity(x_0: Tensor, x_1: Tensor) -> Tensor:
    """The target, x_1 - x_0: constant along the path."""
    return x_1 - x_0


def loss(predicted: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean square error of each sample, [B], float32; the caller reduces over samples.

    ``mask`` broadcasts to the target; elements where it is False do not count, and a sample in
    which none counts has loss 0.
    """
    error = (predicted.float() - target.float()).square()
    if mask is None:
        return error.flatten(1).mean(1)
    mask = mask.expand_as(error).to(error.dtype)
    return (error * mask).flatten(1).sum(1) / mask.flatten(1).sum(1).clamp(min=1)


def sample_times(
    num: int,
    kind: Literal["uniform", "logit_normal"] = "uniform",
    *,
    uniform_share: float = 0.0,
    mean: float = 0.0,
    std: float = 1.0,
    shift: float = 1.0,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Training times in [0, 1], [num].

    Args:
        kind: "uniform" is the paper's; "logit_normal" is sigmoid(N(mean, std)) (arXiv 2403.03206).
        uniform_share: of the logit-normal times that are uniform all the same, since it leaves the
            ends of the path nearly without samples.
        shift: see ``shift_times``.
        generator: its device decides where numbers are drawn, so a CPU generator gives the same
            times on every device.
    """
    where = generator.device if generator is not None else device
    t = torch.rand(num, generator=generator, device=where)
    if kind == "logit_normal":
        normal = torch.randn(num, generator=generator, device=where)
        keep = torch.rand(num, generator=generator, device=where) < uniform_share
        t = torch.where(keep, t, torch.sigmoid(mean + std * normal))
    elif kind != "uniform":
        raise ValueError(f"unknown timestep sampler {kind!r}; known are uniform, logit_normal")
    return shift_times(t.to(device or t.device), shift)


def shift_times(t: Tensor, shift: float) -> Tensor:
    """Moves times towards noise by ``shift`` > 1: with s = 1 - t, s' = r s / (1 + (r - 1) s)."""
    if shift <= 0:
        raise ValueError(f"time shift must be positive, got {shift}")
    if shift == 1:
        return t
    noise = 1 - t
    return 1 - shift * noise / (1 + (shift - 1) * noise)


def resolution_shift(height: float, width: float, latent_frames: int) -> float:
    """Open-Sora's shift for a size in pixels: sqrt(H W / 512^2) sqrt(T).

    The original counts ``num_frames // 17 * 5`` latent frames, which is 0 below 17 frames and then
    sends every time to 0; here T is the real number of latent frames.
    """
    return math.sqrt(height * width / 512**2 * latent_frames)


# Sampling


def guide(conditional: Tensor, null: Tensor, weight: float) -> Tensor:
    """Classifier-free guidance: null + weight (conditional - null) (paper eq. 3)."""
    return torch.lerp(null, conditional, weight)


def times(steps: int, shift: float = 1.0) -> Tensor:
    """``steps + 1`` times from 0 to 1 exactly, evenly spaced and then shifted; float64."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    return shift_times(torch.linspace(0, 1, steps + 1, dtype=torch.float64), shift)


def schedule(
    kind: Literal["joint", "cascade", "video", "audio"],
    steps: int,
    audio_steps: int | None = None,
    shift: float = 1.0,
) -> Tensor:
    """The two clocks' path, [N + 1, 2] of (t_video, t_audio).

    "joint" moves both together (the paper's); "cascade" finishes the video in ``steps`` and then
    draws the audio on the clean video in ``audio_steps``; "audio" is that second leg alone, for a
    given video, and "video" moves the picture alone while the audio stands at its end.
    """
    audio_steps = audio_steps or steps
    if kind == "joint":
        t = times(steps, shift)
        return torch.stack([t, t], dim=1)
    t_audio = times(audio_steps)
    audio_leg = torch.stack([torch.ones_like(t_audio), t_audio], dim=1)
    if kind == "audio":
        return audio_leg
    t_video = times(steps, shift)
    if kind == "video":
        return torch.stack([t_video, torch.ones_like(t_video)], dim=1)
    if kind != "cascade":
        raise ValueError(f"unknown schedule {kind!r}; known are joint, cascade, video, audio")
    video_leg = torch.stack([t_video, torch.zeros_like(t_video)], dim=1)
    return torch.cat([video_leg, audio_leg[1:]])


def advance(x: Tensor, v: Tensor | Guided, h: float) -> Tensor:
    """x + h v."""
    return x + h * _applied(v)


def integrate(
    velocity: Velocity,
    x: State,
    path: Tensor,
    solver: Solver = "euler",
    callback: Callback | None = None,
    advance: Advance = advance,
    eta: float | Sequence[float] = 0.0,
    noise: Noise | None = None,
    held: Sequence[Held | None] | None = None,
    eta_start: float = 0.0,
) -> State:
    """Solves dx_m = v_m dt_m along a path of clocks and returns the end state.

    With ``eta`` above 0 it solves a stochastic equation with the same marginals, by the data
    x + (1 - t) v and the noise x - t v that x is made of (``noise_steps``): later steps can mend
    what earlier ones got wrong, and the more noise, the more steps are needed.

    Args:
        velocity: called as ``velocity(x, t, moving)``; a part whose clock stands still in this step
            has ``moving`` False and needs no velocity.
        x: the parts of the state, here (video, audio).
        path: [N + 1, M], the clock of every part at every step.
        solver: "euler" (one call a step), "ab2" (one call; Adams-Bashforth over the last two, Euler
            where a clock starts), "2m" (one call, second order in h), "midpoint" or "heun" (two
            calls).
        callback: ``callback(step, x, t)`` after every step.
        advance: another way to compute ``flow.advance``.
        eta: how much noise is drawn anew, 0 or more, for "euler" and "2m": for all parts, or one
            for each.
        noise: where it comes from.
        held: for each part, what of it is given.
        eta_start: time of a part's own clock from which on noise is drawn anew; steps that begin
            before it have an ``eta`` of 0, which keeps the marginals too.
    """
    if solver not in SOLVERS:
        raise ValueError(f"unknown solver {solver!r}; known are {', '.join(SOLVERS)}")
    if path.ndim != 2 or path.shape[1] != len(x):
        raise ValueError(f"path {list(path.shape)} must be [steps + 1, {len(x)}]")
    etas = noise_steps.etas(eta, len(x), solver, NOISY_SOLVERS, noise is not None)

    def moved(x: State, v: Sequence[Tensor | Guided | None], h: Sequence[float]) -> State:
        parts = zip(x, v, h, strict=True)
        return tuple(
            advance(x_m, v_m, h_m) if h_m and v_m is not None else x_m for x_m, v_m, h_m in parts
        )

    rows = [tuple(row) for row in path.tolist()]
    last: list[noise_steps.Seen | None] = [None] * len(x)
    for step, (t, t_next) in enumerate(zip(rows[:-1], rows[1:], strict=True), start=1):
        h = tuple(b - a for a, b in zip(t, t_next, strict=True))
        moving = tuple(h_m != 0 for h_m in h)
        v = velocity(x, t, moving)
        if solver == "midpoint":
            middle = tuple((a + b) / 2 for a, b in zip(t, t_next, strict=True))
            v = velocity(moved(x, v, tuple(h_m / 2 for h_m in h)), middle, moving)
        elif solver == "heun":
            v_next = velocity(moved(x, v, h), t_next, moving)
            pairs = zip(_plain(v), _plain(v_next), strict=True)
            v = [None if a is None or b is None else (a + b) / 2 for a, b in pairs]
        elif solver == "ab2":
            plain = _plain(v)
            here = [
                (v_m, h_m) if h_m and v_m is not None else None
                for v_m, h_m in zip(plain, h, strict=True)
            ]
            v = [
                v_m
                if v_m is None or now is None or old is None
                else v_m + now[1] / (2 * old[1]) * (v_m - old[0])
                for v_m, now, old in zip(plain, here, last, strict=True)
            ]
            last = here
        if solver == "2m" or any(etas):
            order = 2 if solver == "2m" else 1
            ends, before, last = list(x), last, [None] * len(x)
            for m, (x_m, v_m) in enumerate(zip(x, v, strict=True)):
                if not h[m] or v_m is None:
                    continue
                data, rest = advance(x_m, v_m, 1 - t[m]), advance(x_m, v_m, -t[m])
                eta_m = etas[m] if t[m] >= eta_start else 0.0
                fresh = partial(noise, m) if noise and eta_m else None
                ends[m], last[m] = noise_steps.step(
                    data,
                    rest,
                    t[m],
                    t_next[m],
                    eta=eta_m,
                    noise=fresh,
                    last=before[m],
                    order=order,
                )
            end = tuple(ends)
        else:
            end = moved(x, v, h)
        if held is not None:
            parts = zip(held, x, end, t_next, strict=True)
            end = tuple(
                after if given is None else given.put(before, after, t_m)
                for given, before, after, t_m in parts
            )
        x = end
        if callback is not None:
            callback(step, x, t_next)
    return x


def _applied(v: Tensor | Guided) -> Tensor:
    return v.velocity() if isinstance(v, Guided) else v


def _plain(parts: Sequence[Tensor | Guided | None]) -> list[Tensor | None]:
    return [None if v is None else _applied(v) for v in parts]
