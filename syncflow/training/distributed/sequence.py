"""Sequence parallelism: neighbouring processes share the frames of one sample.

    each has     frames T/N, all patches S   video tower but for its temporal attention, adaptors
    exchanged    T/N, S  ->  T, S/N          before temporal attention, and back after it
    exchanged    M/N, H  ->  M, H/N          before an adaptor's attention, and back after it
    gathered     keys and values of M        what the audio layers read; they run everywhere

The exchanges are put on the instances of a model, which itself knows nothing of them. Every process
has the whole loss and its gradient flows back through the exchanges' true adjoints; so the mean of
all processes' gradients, which the engines take anyway, is the gradient.

Axis letters: B batch, T latent frames, S patches, M tokens of an adaptor, H heads, D head dim.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from syncflow.clip import ClipSpec
from syncflow.config import DDiTConfig
from syncflow.models.ddit import DDiT
from syncflow.models.video_tower import TextContext
from syncflow.training.distributed.groups import Group

KeysValues = tuple[Tensor, Tensor]
Gather = Callable[[Tensor, int], Tensor]


class _ExchangeContext(Protocol):
    #: Arguments of the exchange back.
    about: tuple[Group, int, list[int], int, list[int]]


class _GatherContext(Protocol):
    #: The group, the axis and its size here.
    about: tuple[Group, int, int]


def check(config: DDiTConfig, spec: ClipSpec, group: Group) -> None:
    """Raises ValueError where clips of that geometry cannot be shared by the neighbours."""
    N, patch = group.sequence, config.video.patch_size
    frames, height, width = spec.video_latent_shape
    asked = f"loop.sequence_parallel is {N}"
    if frames % (N * patch[0]):
        raise ValueError(
            f"{asked}, and {spec.num_frames} frames are {frames} latent frames, which it does not "
            "divide"
        )
    patches = -(-height // patch[1]) * -(-width // patch[2])
    if patches < N:
        raise ValueError(f"{asked}, and {spec.height}x{spec.width} has {patches} patches alone")
    heads = config.adaptor.num_heads
    if config.adaptor.axis != "none" and config.audio.condition != "text" and heads % N:
        raise ValueError(f"{asked}, which does not divide model.adaptor.num_heads {heads}")


def share(model: DDiT, group: Group) -> None:
    """Has the neighbours of ``group`` compute ``model`` together; call it once, in all of them."""
    if group.sequence == 1:
        return
    gather = partial(_gather, group)
    tower = model.video_tower
    _put(tower, "step", partial(_step, tower.step, group))
    for block in tower.temporal_blocks:
        mixed = _around(block.attn.forward, group, mixed=1, spare=2, joined=2)
        _put(block.attn, "forward", mixed)
    for adaptor in model.adaptors:
        if adaptor.axis != "none":
            adaptor.attend = _around(adaptor.attend, group, mixed=1, spare=3, joined=2)
    for layer in model.audio_tower.layers:
        _put(layer, "reads_video", partial(_reads_video, layer.reads_video, gather))
    if model.upsampler is not None:
        upsample = partial(_upsample, model.upsampler.forward, gather)
        _put(model.upsampler, "forward", upsample)


def _put(module: nn.Module, name: str, method: Callable[..., object]) -> None:
    """In place of a method of this one module; the class is as it was."""
    assert callable(getattr(module, name))
    setattr(module, name, method)


def _step(
    step: Callable[..., tuple[Tensor, list[Tensor]]],
    group: Group,
    x_BCTHW: Tensor,
    t_B: Tensor,
    text: TextContext,
    *,
    frame_mask: Tensor | None = None,
    **geometry: object,
) -> tuple[Tensor, list[Tensor]]:
    """The video tower on this process's frames: the velocity of all, the features of its own."""
    rank = group.rank % group.sequence
    own = x_BCTHW.chunk(group.sequence, 2)[rank]
    if frame_mask is not None:
        frame_mask = frame_mask.chunk(group.sequence, 1)[rank]
    if text.told_BTC is not None:
        text = replace(text, told_BTC=text.told_BTC.chunk(group.sequence, 1)[rank])
    velocity, features = step(own, t_B, text, frame_mask=frame_mask, **geometry)
    return _gather(group, velocity, 2), features


def _around(
    attention: Callable[[Tensor], Tensor], group: Group, mixed: int, spare: int, joined: int
) -> Callable[[Tensor], Tensor]:
    """``attention`` over the whole of axis ``mixed``, of which each process has its part, for a
    part of axis ``spare``, which is ``joined`` in the result."""

    def forward(x: Tensor) -> Tensor:
        N, own = group.sequence, group.rank % group.sequence
        whole = [x.shape[mixed]] * N
        parts = [len(part) for part in torch.arange(x.shape[spare]).tensor_split(N)]
        y = attention(_Exchange.apply(x, group, spare, parts, mixed, whole))
        each = y.shape[joined] // parts[own]  # heads come back as heads x their width
        return _Exchange.apply(y, group, mixed, whole, joined, [each * n for n in parts])

    return forward


def _reads_video(
    reads: Callable[[Tensor], KeysValues], gather: Gather, x_BMC: Tensor
) -> tuple[Tensor, ...]:
    """Keys and values [B, H, M, D] of all tokens, from this process's."""
    return gather(torch.stack(reads(x_BMC)), 3).unbind(0)


def _upsample(
    forward: Callable[[Tensor, ClipSpec], Tensor],
    gather: Gather,
    features_BTSC: Tensor,
    spec: ClipSpec,
) -> Tensor:
    return forward(gather(features_BTSC, 1), spec)


def _gather(group: Group, x: Tensor, axis: int) -> Tensor:
    """Every neighbour's ``x``, one after the other."""
    return _Gather.apply(x, group, axis)


class _Exchange(torch.autograd.Function):
    """Gives neighbour i ``splits[i]`` of axis ``split`` and joins what comes from it, ``joins[i]``
    of axis ``join``. Its adjoint is the exchange back."""

    @staticmethod
    def forward(
        ctx: _ExchangeContext,
        x: Tensor,
        group: Group,
        split: int,
        splits: list[int],
        join: int,
        joins: list[int],
    ) -> Tensor:
        ctx.about = group, join, joins, split, splits
        return _exchanged(x, group, split, splits, join, joins)

    @staticmethod
    def backward(ctx: _ExchangeContext, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _exchanged(grad, *ctx.about), None, None, None, None, None


class _Gather(torch.autograd.Function):
    """Its adjoint sums what the neighbours say of one's own part."""

    @staticmethod
    def forward(ctx: _GatherContext, x: Tensor, group: Group, axis: int) -> Tensor:
        ctx.about = group, axis, x.shape[axis]
        parts = [x.new_empty(x.shape) for _ in range(group.sequence)]
        gather = group.watch.communicating(torch.distributed.all_gather)
        gather(parts, x.contiguous(), group=group.neighbours)
        return torch.cat(parts, axis)

    @staticmethod
    def backward(ctx: _GatherContext, grad: Tensor) -> tuple[Tensor | None, ...]:
        group, axis, size = ctx.about
        parts = grad.split(size, axis)
        return torch.stack(_sent(group, parts, [part.shape for part in parts])).sum(0), None, None


def _exchanged(
    x: Tensor, group: Group, split: int, splits: list[int], join: int, joins: list[int]
) -> Tensor:
    shapes = []
    for size in joins:
        shape = list(x.shape)
        shape[split], shape[join] = splits[group.rank % group.sequence], size
        shapes.append(shape)
    return torch.cat(_sent(group, x.split(splits, split), shapes), join)


def _sent(group: Group, parts: Sequence[Tensor], shapes: Sequence[Sequence[int]]) -> list[Tensor]:
    """What the neighbours send, of these shapes, while part i goes to neighbour i."""
    flat = torch.cat([part.flatten() for part in parts])
    sizes = [math.prod(shape) for shape in shapes]
    received = flat.new_empty(sum(sizes))
    send = group.watch.communicating(torch.distributed.all_to_all_single)
    send(received, flat, sizes, [part.numel() for part in parts], group=group.neighbours)
    return [part.view(*shape) for part, shape in zip(received.split(sizes), shapes, strict=True)]
