"""torch.compile of the blocks that learn: one small graph for each kind of block.

All blocks of a kind share it, so compiling takes as long as one layer and not as many. A block
that cannot be one graph is an error, not a slower run.
"""

from __future__ import annotations

import torch
from torch import nn

from syncflow.models.adaptor import Adaptor
from syncflow.models.audio_tower import AudioLayer
from syncflow.models.video_tower import Block

_BACKEND = "inductor"


def compile_blocks(module: nn.Module, wanted: bool) -> int:
    """Has every block that learns run compiled, in place; how many there are. To be called before
    ``recompute``, which then computes compiled blocks again."""
    if not wanted:
        return 0
    blocks = [
        block
        for block in module.modules()
        if isinstance(block, (Block, Adaptor, AudioLayer))
        and any(parameter.requires_grad for parameter in block.parameters())
    ]
    for block in blocks:
        # On the instance, so that the names of the weights stay what they are.
        block.forward = torch.compile(block.forward, fullgraph=True, backend=_BACKEND)
    return len(blocks)
