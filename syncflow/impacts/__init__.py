"""impacts: a procedural world of things that fall, bounce, roll and are struck, with the exact
time of every contact.
"""

from syncflow.impacts.captions import caption
from syncflow.impacts.render import render
from syncflow.impacts.scene import Contact, Scene
from syncflow.impacts.sound import sound
from syncflow.impacts.vary import FACTORS, alike, of_any_material, vary
from syncflow.impacts.world import LEVELS, SEEDS, attribute_names, attribute_values, sample_scene

__all__ = [
    "FACTORS",
    "LEVELS",
    "SEEDS",
    "Contact",
    "Scene",
    "alike",
    "attribute_names",
    "attribute_values",
    "caption",
    "of_any_material",
    "render",
    "sample_scene",
    "sound",
    "vary",
]
