"""Latents to tokens and back: the patch embedding with its positions, and its inverse.

A patch is [p, q, r] latents in time, height and width; tokens of a frame go row by row.

    patchify3d      token = weight . patch + bias + positions[place]: a Conv3d of stride [p, q, r]
    unpatchify3d    the numbers of every token back at their places, as float32

Sizes that are no multiple of the patch are padded with zeros at their ends, and cut back.
"""

from functools import partial
from math import prod
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from syncflow.ops import native, verify

Size = tuple[int, int, int]  # in time, height and width
Sizes = tuple[Size, int, Size]  # a patch, the channels to keep, and the size to cut to


def patchify3d(
    x_BZTHW: Tensor,
    weight_CZpqr: Tensor,
    bias_C: Tensor | None = None,
    positions_SC: Tensor | None = None,
) -> Tensor:
    """Tokens [B, T', S, C] of latents, of the weight's dtype.

    Args:
        x_BZTHW: [B, Z, T, H, W].
        weight_CZpqr, bias_C: a Conv3d's.
        positions_SC: added to the tokens of every frame; a table, which gets no gradient.
    """
    device = x_BZTHW.device.type
    # The meta device, on which sizes are counted, knows no autocast.
    if device != "meta" and torch.is_autocast_enabled(device):
        # As linear layers do: the tokens' dtype is that of the whole tower.
        weight_CZpqr = weight_CZpqr.to(torch.get_autocast_dtype(device))
    given = (x_BZTHW, weight_CZpqr, bias_C, positions_SC)
    plan = _PATCHIFY.plan(*given)
    return patchify3d_reference(*given) if plan is None else plan[0](*given)


def patchify3d_reference(
    x_BZTHW: Tensor,
    weight_CZpqr: Tensor,
    bias_C: Tensor | None = None,
    positions_SC: Tensor | None = None,
) -> Tensor:
    """`patchify3d` in plain PyTorch."""
    _check(x_BZTHW, weight_CZpqr, positions_SC)
    patches_BTSK = _patches(x_BZTHW, _patch(weight_CZpqr))
    weight_CK = weight_CZpqr.flatten(1)
    bias_C = None if bias_C is None else bias_C.to(weight_CK.dtype)
    tokens_BTSC = F.linear(patches_BTSK.to(weight_CK.dtype), weight_CK, bias_C)
    if positions_SC is None:
        return tokens_BTSC
    return tokens_BTSC + positions_SC.detach().to(tokens_BTSC.dtype)


def unpatchify3d(tokens_BTSK: Tensor, patch: Size, channels: int, size: Size) -> Tensor:
    """Latents [B, channels, T, H, W] of tokens, float32 (float64 of float64).

    Args:
        tokens_BTSK: K is p * q * r * Z' numbers, channels last, of which the first `channels` of Z'
            are kept.
        patch: (p, q, r).
        size: (T, H, W), what padding is cut back to.
    """
    plan = _UNPATCHIFY.plan(tokens_BTSK, extra=(tuple(patch), channels, tuple(size)))
    if plan is None:
        return unpatchify3d_reference(tokens_BTSK, patch, channels, size)
    return plan[0](tokens_BTSK, patch, channels, size)


def unpatchify3d_reference(tokens_BTSK: Tensor, patch: Size, channels: int, size: Size) -> Tensor:
    """`unpatchify3d` in plain PyTorch."""
    _check_tokens(tokens_BTSK, patch, channels, size)
    (p, q, r), (T, H, W) = patch, size
    grid = (-(-T // p), -(-H // q), -(-W // r))
    x = tokens_BTSK.reshape(len(tokens_BTSK), *grid, p, q, r, -1)[..., :channels]
    x = x.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)
    x_BZTHW = x[:, :, :T, :H, :W]
    wide = torch.float64 if x_BZTHW.dtype == torch.float64 else torch.float32
    return x_BZTHW.to(wide)


def _patch(weight_CZpqr: Tensor) -> Size:
    p, q, r = weight_CZpqr.shape[2:]
    return p, q, r


def _patches(x_BZTHW: Tensor, patch: Size) -> Tensor:
    """[B, T', S, Z * p * q * r]."""
    p, q, r = patch
    B, Z, T, H, W = x_BZTHW.shape
    x = F.pad(x_BZTHW, (0, -W % r, 0, -H % q, 0, -T % p))
    x = x.reshape(B, Z, -(-T // p), p, -(-H // q), q, -(-W // r), r)
    return x.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(2, 3)


def _check(x_BZTHW: Tensor, weight_CZpqr: Tensor, positions_SC: Tensor | None) -> None:
    fits = x_BZTHW.ndim == 5 and weight_CZpqr.ndim == 5
    if not fits or weight_CZpqr.shape[1] != x_BZTHW.shape[1]:
        raise ValueError(
            f"x {tuple(x_BZTHW.shape)} and weight {tuple(weight_CZpqr.shape)} must be "
            f"[B, Z, T, H, W] and [C, Z, p, q, r]"
        )
    S = -(-x_BZTHW.shape[3] // weight_CZpqr.shape[3]) * -(
        -x_BZTHW.shape[4] // weight_CZpqr.shape[4]
    )
    if positions_SC is not None and positions_SC.shape != (S, weight_CZpqr.shape[0]):
        raise ValueError(
            f"positions of shape {tuple(positions_SC.shape)} must be [{S}, {len(weight_CZpqr)}]"
        )


def _check_tokens(tokens_BTSK: Tensor, patch: Size, channels: int, size: Size) -> None:
    if min(patch) < 1 or min(size) < 0 or channels < 0:
        raise ValueError(
            f"patch {tuple(patch)} must be positive; size {tuple(size)} and channels {channels} "
            f"not negative"
        )
    T, H, W = (-(-n // k) for n, k in zip(size, patch, strict=True))
    numbers = patch[0] * patch[1] * patch[2]
    shape = tuple(tokens_BTSK.shape)
    if len(shape) != 4 or shape[1:3] != (T, H * W):
        raise ValueError(
            f"tokens of shape {shape} must be [B, {T}, {H * W}, K] for patch {tuple(patch)} and "
            f"size {tuple(size)}"
        )
    if shape[3] % numbers or shape[3] < numbers * channels:
        raise ValueError(
            f"tokens of shape {shape} must end in {numbers} times at least {channels} channels"
        )


# The way back is one product with the patches, and one scatter of patches that autograd knows.


class _PatchifyContext(native.Context, Protocol):
    bias_dtype: torch.dtype | None


class _UnpatchifyContext(native.Context, Protocol):
    patch: Size
    tokens_shape: torch.Size
    dtype: torch.dtype


def _save_patchify(ctx: _PatchifyContext, inputs: native.Inputs, output: Tensor) -> None:
    x, weight, bias, _ = inputs
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.save_for_backward(x, weight)


def _patchify_backward(ctx: _PatchifyContext, grad_BTSC: Tensor) -> tuple[Tensor | None, ...]:
    x_BZTHW, weight_CZpqr = ctx.saved_tensors
    patch, weight_CK = _patch(weight_CZpqr), weight_CZpqr.flatten(1)
    grad_MC = grad_BTSC.flatten(0, 2)
    grad_x = grad_weight = grad_bias = None
    if ctx.needs_input_grad[0]:
        T, H, W = x_BZTHW.shape[2:]
        padded = (T + -T % patch[0], H + -H % patch[1], W + -W % patch[2])
        patches_BTSK = (grad_MC @ weight_CK).view(*grad_BTSC.shape[:3], -1)
        # unpatchify3d has channels last within the patch, the weight has them first.
        patches_BTSK = patches_BTSK.unflatten(-1, (-1, prod(patch))).transpose(-1, -2).flatten(-2)
        grad_x = unpatchify3d_reference(patches_BTSK, patch, x_BZTHW.shape[1], padded)
        grad_x = grad_x[:, :, :T, :H, :W].to(x_BZTHW.dtype)
    if ctx.needs_input_grad[1]:
        patches_MK = _patches(x_BZTHW, patch).flatten(0, 2).to(grad_MC.dtype)
        grad_weight = (grad_MC.T @ patches_MK).view_as(weight_CZpqr)
    if ctx.needs_input_grad[2]:
        grad_bias = grad_MC.sum(0, dtype=ctx.bias_dtype)
    return grad_x, grad_weight, grad_bias, None


def _patchify_fake(
    x: Tensor, weight: Tensor, bias: Tensor | None, positions: Tensor | None
) -> Tensor:
    T, H, W = (-(-n // k) for n, k in zip(x.shape[2:], weight.shape[2:], strict=True))
    return weight.new_empty(len(x), T, H * W, len(weight))


def _save_unpatchify(ctx: _UnpatchifyContext, inputs: native.Inputs, output: Tensor) -> None:
    tokens, ctx.patch, _, _ = inputs
    ctx.tokens_shape, ctx.dtype = tokens.shape, tokens.dtype


def _unpatchify_backward(
    ctx: _UnpatchifyContext, grad_BZTHW: Tensor
) -> tuple[Tensor, None, None, None]:
    B, T, S, K = ctx.tokens_shape
    Z = grad_BZTHW.shape[1]
    p, q, r = ctx.patch
    patches_BTSK = _patches(grad_BZTHW, ctx.patch).unflatten(-1, (Z, p * q * r)).transpose(-1, -2)
    # Channels that were left out get no gradient.
    patches_BTSK = F.pad(patches_BTSK, (0, K // (p * q * r) - Z))
    return patches_BTSK.flatten(-2).to(ctx.dtype), None, None, None


def _unpatchify_fake(tokens: Tensor, patch: Size, channels: int, size: Size) -> Tensor:
    wide = torch.float64 if tokens.dtype == torch.float64 else torch.float32
    return tokens.new_empty(len(tokens), channels, *size, dtype=wide)


native.register(
    "patchify3d", fake=_patchify_fake, backward=_patchify_backward, setup_context=_save_patchify
)
native.register(
    "unpatchify3d",
    fake=_unpatchify_fake,
    backward=_unpatchify_backward,
    setup_context=_save_unpatchify,
)


def _gradient_pays(device: str) -> bool:
    # On the CPU the kernels have no way back of their own: a gradient is PyTorch's work either way.
    return device != "cpu"


def _plan_patchify(
    x_BZTHW: Tensor, weight_CZpqr: Tensor, bias_C: Tensor | None, positions_SC: Tensor | None
) -> tuple[()]:
    _check(x_BZTHW, weight_CZpqr, positions_SC)
    return ()


def _plan_unpatchify(tokens_BTSK: Tensor, sizes: Sizes) -> tuple[()]:
    _check_tokens(tokens_BTSK, *sizes)
    return ()


def _problem_patchify(
    x_BZTHW: Tensor, weight_CZpqr: Tensor, bias_C: Tensor | None, positions_SC: Tensor | None
) -> verify.Problem:
    """Two by three patches of one frame, the last of a row cut short where that can be."""
    C, Z, p, q, r = weight_CZpqr.shape
    shapes = [
        *((1, Z, p, 2 * q, max(1, 3 * r - 1)), (C, Z, p, q, r)),
        None if bias_C is None else (C,),
        None if positions_SC is None else (2 * -(-max(1, 3 * r - 1) // r), C),
    ]
    return verify.Problem(shapes, patchify3d, patchify3d_reference)


def _problem_unpatchify(tokens_BTSK: Tensor, sizes: Sizes) -> verify.Problem:
    (p, q, r), channels, _ = sizes
    small = (p, 2 * q, 3 * r)
    return verify.Problem(
        [(1, 1, 6, tokens_BTSK.shape[3])],
        kernel=partial(unpatchify3d, patch=(p, q, r), channels=channels, size=small),
        twin=partial(unpatchify3d_reference, patch=(p, q, r), channels=channels, size=small),
        kind=((p, q, r), channels, small),
    )


_PATCHIFY: native.Operator[tuple[()], Tensor] = native.Operator(
    "patchify3d", _plan_patchify, gradient=_gradient_pays, problem=_problem_patchify
)
_UNPATCHIFY: native.Operator[tuple[()], Tensor] = native.Operator(
    "unpatchify3d", _plan_unpatchify, gradient=_gradient_pays, problem=_problem_unpatchify
)
