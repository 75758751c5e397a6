"""DeepSpeed as it is used here: what its import and its messages need beside themselves."""

from __future__ import annotations

import sys
import warnings
from functools import partial
from types import ModuleType

import torch

from syncflow import extras
from syncflow.training.distributed.groups import Group

_COLLECTIVES = (
    "all_reduce", "all_reduce_coalesced", "reduce", "reduce_scatter", "reduce_scatter_tensor",
    "broadcast", "all_gather", "all_gather_into_tensor", "all_gather_base", "all_gather_coalesced",
    "all_to_all_single",
)  # fmt: skip
_SHARED_MEMORY = "build_shm_op"  # what compiles DeepSpeed's extension for CPUs


def load() -> ModuleType:
    """The module ``deepspeed``.

    Raises:
        ModuleNotFoundError: it is not installed; the message says how it is.
    """
    try:
        import deepspeed
    except ImportError:
        why = "the config has a deepspeed block and needs DeepSpeed"
        raise extras.missing("deepspeed", why) from None
    # DeepSpeed calls collectives by names that PyTorch now warns of, at every call.
    warnings.filterwarnings(
        "ignore", message=".*(all_gather_into|reduce_scatter)_tensor.*", category=FutureWarning
    )
    # Otherwise the first start on a CPU compiles an extension of which nothing here makes use.
    setattr(sys.modules["deepspeed.comm.torch"], _SHARED_MEMORY, lambda: None)
    return deepspeed


def adjust(group: Group) -> None:
    """What DeepSpeed's backend sends and receives is timed as communication, and waits no longer
    than the loop's messages do; by itself it makes groups of PyTorch's half an hour."""
    backend = sys.modules["deepspeed.comm.comm"].cdb
    for name in _COLLECTIVES:  # from the class: an earlier stage's watch must not count too
        plain = getattr(type(backend), name)
        setattr(backend, name, group.watch.communicating(partial(plain, backend)))
    backend.new_group = partial(torch.distributed.new_group, timeout=group.timeout)
