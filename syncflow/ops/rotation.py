"""Rotary positions as the kernels take them: a table [N, D/2, 2] of (cos, sin) per token and pair.

Pairs of a row of D numbers are (2i, 2i+1) ("interleaved", as the video tower's weights were
trained) or (i, i + D/2). A pair (a, b) turned by an angle is (a cos - b sin, b cos + a sin).
"""

from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from syncflow.ops import native, verify
from syncflow.ops.kept import kept

#: Devices on which a turn that needs a gradient is the kernel's: there launches count.
_WITH_GRADIENT = frozenset({"cuda"})


def rotation_table(angle_NP: Tensor, dtype: torch.dtype) -> Tensor:
    """Angles in radians, [N, D/2], best in float64, -> [N, D/2, 2]."""
    return torch.stack((angle_NP.cos(), angle_NP.sin()), -1).to(dtype)


@kept
def frame_rotation(
    T: int, D: int, theta: float, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Pair i of frame t turned by t * theta^(-2i/D): [T, D/2, 2]; not to be changed."""
    rate_P = theta ** (-torch.arange(0, D, 2, device=device, dtype=torch.float64) / D)
    t_T = torch.arange(T, device=device, dtype=torch.float64)
    return rotation_table(torch.outer(t_T, rate_P), dtype)


def rotate(x_NHD: Tensor, rotation_NP2: Tensor, interleaved: bool) -> Tensor:
    """x [..., N, H, D] with every pair turned; arithmetic in the wider of the two dtypes."""
    cos_N1P, sin_N1P = rotation_NP2[:, None].unbind(-1)
    if interleaved:
        a, b = x_NHD.unflatten(-1, (-1, 2)).unbind(-1)
        turned = (a * cos_N1P - b * sin_N1P, b * cos_N1P + a * sin_N1P)
        return torch.stack(turned, -1).flatten(-2)
    a, b = x_NHD.chunk(2, -1)
    return torch.cat((a * cos_N1P - b * sin_N1P, b * cos_N1P + a * sin_N1P), -1)


def turned(x_BNHD: Tensor, rotation_NP2: Tensor, interleaved: bool) -> Tensor:
    """x [B, N, H, D] with every pair turned, of x's dtype.

    Takes x over: where nothing needs a gradient and there is a kernel, its memory holds the result.
    With a gradient the kernel turns a copy and, in the backward pass, the gradient back.
    """
    # The device first: it costs no call.
    if x_BNHD.device.type in _WITH_GRADIENT and native.differentiable(x_BNHD):
        if _turns_with_gradient(x_BNHD, rotation_NP2, interleaved):
            out: Tensor = _Turn.apply(x_BNHD, rotation_NP2, interleaved)
            return out
    plan = _ROTATE.plan(x_BNHD, rotation_NP2, extra=interleaved)
    if plan is None or x_BNHD.stride(-1) != 1:
        return _turned_reference(x_BNHD, rotation_NP2, interleaved)
    plan[0](x_BNHD, rotation_NP2, interleaved)
    return x_BNHD


def _turns_with_gradient(x_BNHD: Tensor, rotation_NP2: Tensor, interleaved: bool) -> bool:
    """Whether a kernel does; a compiler joins the plain operators by itself."""
    if native.traced():
        return False
    with torch.no_grad():
        return _ROTATE.plan(x_BNHD, rotation_NP2, extra=interleaved) is not None


class _TurnContext(native.Context, Protocol):
    interleaved: bool


class _Turn(torch.autograd.Function):
    """Turning x [B, N, H, D]; its gradient is turned the other way."""

    @staticmethod
    def forward(
        ctx: _TurnContext, x_BNHD: Tensor, rotation_NP2: Tensor, interleaved: bool
    ) -> Tensor:
        ctx.save_for_backward(rotation_NP2)
        ctx.interleaved = interleaved
        own = x_BNHD.clone(memory_format=torch.contiguous_format)
        return turned(own, rotation_NP2, interleaved)

    @staticmethod
    def backward(ctx: _TurnContext, grad_BNHD: Tensor) -> tuple[Tensor, None, None]:
        (rotation_NP2,) = ctx.saved_tensors
        assert rotation_NP2 is not None
        back_NP2 = rotation_NP2.clone()
        back_NP2[..., 1].neg_()
        own = grad_BNHD.clone(memory_format=torch.contiguous_format)
        return turned(own, back_NP2, ctx.interleaved), None, None


def _turned_reference(x_BNHD: Tensor, rotation_NP2: Tensor, interleaved: bool) -> Tensor:
    return rotate(x_BNHD, rotation_NP2, interleaved).to(x_BNHD.dtype)


native.register_fake("rotate_", lambda *arguments: None)


def _problem(x_BNHD: Tensor, rotation_NP2: Tensor, interleaved: bool) -> verify.Problem:
    N, D = min(x_BNHD.shape[1], 5), x_BNHD.shape[-1]
    return verify.Problem(
        [(1, N, 2, D), (N, D // 2, 2)],
        kernel=partial(turned, interleaved=interleaved),
        twin=partial(_turned_reference, interleaved=interleaved),
        kind=interleaved,
    )


_ROTATE: native.Operator[tuple[()], None] = native.Operator(
    "rotate_", plan=lambda *given: (), gradient=lambda device: False, problem=_problem
)
