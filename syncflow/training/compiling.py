"""torch.compile of the towers' blocks: a few small graphs for each kind of block.

All blocks of a kind share them, so compiling takes as long as one layer and not as many. A block
that cannot be one graph is an error, not a slower run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from syncflow.training.recompute import learns, towers_blocks
from syncflow.training.settings import LoopConfig

Result = TypeVar("Result")

_BACKEND = "inductor"


def compile_blocks(module: nn.Module, config: LoopConfig) -> int:
    """Has every block run compiled in training, in place, where the config says so; how many there
    are. To be called before ``recompute``, which then computes compiled blocks again.

    Raises:
        ValueError: the module has none.
    """
    if not config.compile:
        return 0
    blocks = towers_blocks(module)
    if not blocks:
        raise ValueError("loop.compile compiles the towers' blocks, and nothing here has any")
    for block in blocks:
        # On the instance, so that the names of the weights stay what they are.
        forward = _compiled(block.forward, learns(block))
        block.forward = forward
    return len(blocks)


def _compiled(forward: Callable[..., Result], with_gradient: bool) -> Callable[..., Result]:
    """Compiled as a step runs it, with a gradient or, frozen, without; validation of what learns
    runs as it is written, or there would be twice the graphs."""
    compiled = torch.compile(forward, fullgraph=True, backend=_BACKEND)

    def run(*arguments: object) -> Result:
        return (compiled if torch.is_grad_enabled() == with_gradient else forward)(*arguments)

    return run
