"""Faults of the machine, told apart from those of the code."""

from __future__ import annotations

_WORDS = ("can't allocate memory", "cannot allocate memory", "unable to allocate")


def out_of_memory(error: BaseException) -> bool:
    """Whether there was no memory left: a GPU's, or the system's, for which PyTorch's allocator has
    no class of its own."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _WORDS)
