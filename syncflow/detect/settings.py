"""The detectors' settings: fitted on validation clips, never on test (``detectors.json``)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

from syncflow import durable
from syncflow.json_types import JsonObject

PATH = Path(__file__).with_name("detectors.json")


@dataclass(frozen=True)
class TrackSettings:
    """``noise`` is the pixel difference (0..1) below which nothing moved (at least; the clip's own
    noise raises it); ``shadow`` the weight of a pixel that is only darker; ``share`` of the mass
    above the reported row; ``minimum`` mass (share of the clip's typical one) of a frame that shows
    the object; ``tip`` the share for its
    lower end, used where that moves ``swing`` times as far; ``valley`` share of the busiest column
    below which a column parts two objects, and ``other`` share of the greatest object that a second
    one needs; ``slender`` how many times as wide as thick a stick is; ``rest`` share of frames in
    which a pixel must move to be suspected to hide an object that rests or passes often, and of
    frames that then tell its background; ``trust`` the distance (0..1) from the row's colour beyond
    which none of them does."""

    noise: float = 0.06
    shadow: float = 0.15
    share: float = 0.3
    minimum: float = 0.25
    tip: float = 0.85
    swing: float = 1.6
    valley: float = 0.03
    other: float = 0.2
    slender: float = 5.5
    rest: float = 0.15
    trust: float = 0.25


@dataclass(frozen=True)
class ContactSettings:
    """``sigma`` px of track noise in a picture 64 px high; ``penalty`` cost of one more piece (in
    units of sigma^2); ``gravities`` px/frame^2 (at 64 px and 16 fps) that are tried; ``impulse``
    and ``speed``: loss of downward speed and speed before the contact that count, px/frame at 64
    px; ``relative`` share of the clip's strongest impulse that counts; ``gap`` s between contacts;
    ``bias`` s subtracted from every time."""

    sigma: float = 0.5
    penalty: float = 12.0
    gravities: tuple[float, ...] = (
        0.2, 0.25, 0.3, 0.37, 0.46, 0.57, 0.7, 0.86, 1.06, 1.3, 1.6, 2.0, 2.45, 3.0, 3.7, 4.5,
    )  # fmt: skip
    impulse: float = 1.2
    speed: float = 0.5
    relative: float = 0.1
    gap: float = 0.09
    bias: float = 0.0
    tracking: TrackSettings = field(default_factory=TrackSettings)


@dataclass(frozen=True)
class OnsetSettings:
    """``window``, ``hop`` samples at 48 kHz; ``bands`` log-spaced between ``low`` and ``high`` Hz;
    ``floor`` is the amplitude below which a band is silent (absolute; ``noise`` times the band's
    own quiet level is used where that is more); ``hold`` s of the past that a rise must exceed;
    ``threshold`` mean rise (natural log units) and ``relative`` share of the clip's largest rise
    that an onset needs; ``gap`` s between onsets; ``bias`` s subtracted from every time."""

    window: int = 512
    hop: int = 96
    bands: int = 16
    low: float = 80.0
    high: float = 18000.0
    floor: float = 1e-3
    noise: float = 2.0
    hold: float = 0.03
    threshold: float = 0.5
    relative: float = 0.33
    gap: float = 0.08
    bias: float = 0.0


@dataclass(frozen=True)
class Detectors:
    """Settings of both detectors and how they were fitted."""

    contacts: ContactSettings = field(default_factory=ContactSettings)
    onsets: OnsetSettings = field(default_factory=OnsetSettings)
    fitted: JsonObject = field(default_factory=dict)

    def save(self, path: Path = PATH) -> None:
        """Writes them as JSON, whole or not at all."""
        durable.write_text(path, json.dumps(asdict(self), indent=2) + "\n")


def parse(data: JsonObject) -> Detectors:
    """Settings from their JSON; an unknown key is a TypeError naming it."""
    picture = dict(data["contacts"])
    picture["tracking"] = TrackSettings(**picture.pop("tracking", {}))
    if "gravities" in picture:
        picture["gravities"] = tuple(picture["gravities"])
    return Detectors(
        ContactSettings(**picture), OnsetSettings(**data["onsets"]), data.get("fitted", {})
    )


@lru_cache(maxsize=1)
def load() -> Detectors:
    """The package's own settings.

    Raises:
        FileNotFoundError: the package was installed without ``detectors.json``.
    """
    if not PATH.exists():
        raise FileNotFoundError(f"{PATH} is missing; reinstall syncflow")
    return parse(json.loads(PATH.read_text()))
