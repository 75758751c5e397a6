"""Ends that are no defect of the code: a machine without memory, somebody who does not wait."""

from __future__ import annotations

_WORDS = ("can't allocate memory", "cannot allocate memory", "unable to allocate")


class Cancelled(Exception):
    """Nobody waits for the rest. Raised in ``callback`` or ``preview`` of ``generate``, it ends the
    call and comes out of it; the model is as before."""


def out_of_memory(error: BaseException) -> bool:
    """Whether there was no memory left: a GPU's, or the system's, for which PyTorch's allocator has
    no class of its own."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _WORDS)
