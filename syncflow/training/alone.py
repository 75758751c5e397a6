"""A run's folder belongs to one training at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from syncflow.data import lock
from syncflow.training.distributed.groups import Group


@contextmanager
def alone(out: Path, group: Group) -> Iterator[None]:
    """Keeps a second run out of the folder. The process that leads holds it and all give up.

    Raises:
        ValueError: another run is using it.
    """
    with ExitStack() as stack:
        taken = False
        if group.leads:
            try:
                stack.enter_context(lock.held(out / ".lock"))
            except ValueError:
                taken = True
        if group.any(taken)[0]:
            raise ValueError(
                f"another training run is using {out}; wait for it, stop it, or set another out"
            )
        yield
