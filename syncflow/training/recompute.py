"""Activation checkpointing: what a block has computed is computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, TypeVar

import torch
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from syncflow.models.adaptor import Adaptor
from syncflow.models.audio_tower import AudioLayer
from syncflow.models.video_tower import Block

Result = TypeVar("Result")

_KEPT = {torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default}


def recompute(module: nn.Module, kind: Literal["none", "blocks", "selective"]) -> int:
    """Has every block that learns recompute its activations; how many there are.

    "blocks" keeps a block's inputs alone; "selective" also the results of its matrix products,
    which are dear to compute and are all that is not elementwise.
    """
    if kind == "none":
        return 0
    twice = partial(checkpoint, use_reentrant=False)
    if kind == "selective":
        contexts = partial(create_selective_checkpoint_contexts, _policy)
        twice = partial(checkpoint, use_reentrant=False, context_fn=contexts)
    blocks = [block for block in towers_blocks(module) if learns(block)]
    for block in blocks:
        # On the instance, so that the names of the weights stay what they are.
        again = partial(twice, partial(_uncached, block.forward))
        block.forward = again
    return len(blocks)


def towers_blocks(module: nn.Module) -> list[nn.Module]:
    """The towers' blocks and the adaptors, in order."""
    return [each for each in module.modules() if isinstance(each, Block | Adaptor | AudioLayer)]


def learns(block: nn.Module) -> bool:
    """Whether anything of it is trained."""
    return any(parameter.requires_grad for parameter in block.parameters())


def _uncached(forward: Callable[..., Result], *arguments: object) -> Result:
    """A weight that autocast had cast for another block is cast again here: otherwise the second
    pass, which finds no such cache, would run other operators than the first."""
    cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        return forward(*arguments)
    finally:
        torch.set_autocast_cache_enabled(cached)


def _policy(
    _: object, operation: object, *arguments: object, **options: object
) -> CheckpointPolicy:
    keep = operation in _KEPT
    return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE
