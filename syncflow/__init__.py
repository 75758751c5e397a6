"""SyncFlow: text to a clip whose picture and sound belong together.

    import syncflow
    clip = syncflow.generate("a metal ball bounces three times on stone", seed=7)
    clip.save("out.mp4")

Importing this package builds, downloads and initialises nothing: the names below load what they
need on first use.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from syncflow.clip import Clip
    from syncflow.faults import Cancelled
    from syncflow.generation.pipeline import load
    from syncflow.generation.shipped import generate
    from syncflow.training.prepare import prepare

__version__ = "0.1.0"
__all__ = ["Cancelled", "Clip", "__version__", "generate", "load", "prepare"]

_HOME = {
    "generate": "syncflow.generation.shipped",
    "load": "syncflow.generation.pipeline",
    "prepare": "syncflow.training.prepare",
    "Cancelled": "syncflow.faults",
    "Clip": "syncflow.clip",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'syncflow' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
