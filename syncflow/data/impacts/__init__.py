"""impacts: a procedural world of things that fall, bounce, roll and are struck, with the exact
time of every contact.
"""

from syncflow.data.impacts.captions import caption
from syncflow.data.impacts.dataset import iterate, read_shards, write_dataset
from syncflow.data.impacts.render import render
from syncflow.data.impacts.scene import Contact, Scene
from syncflow.data.impacts.sound import sound
from syncflow.data.impacts.world import (
    LEVELS,
    SEEDS,
    attribute_names,
    attribute_values,
    sample_scene,
)

__all__ = [
    "LEVELS",
    "SEEDS",
    "Contact",
    "Scene",
    "attribute_names",
    "attribute_values",
    "caption",
    "iterate",
    "read_shards",
    "render",
    "sample_scene",
    "sound",
    "write_dataset",
]
