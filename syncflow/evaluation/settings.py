"""The detectors' settings: fitted on validation clips, never on test (``detectors.json``)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from syncflow.evaluation.contacts import ContactSettings
from syncflow.evaluation.onsets import OnsetSettings
from syncflow.evaluation.tracking import TrackSettings

PATH = Path(__file__).with_name("detectors.json")


@dataclass(frozen=True)
class Detectors:
    """Settings of both detectors and how they were fitted."""

    contacts: ContactSettings = field(default_factory=ContactSettings)
    onsets: OnsetSettings = field(default_factory=OnsetSettings)
    fitted: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path = PATH) -> None:
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")


def parse(data: dict[str, Any]) -> Detectors:
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
    """The package's own settings."""
    return parse(json.loads(PATH.read_text())) if PATH.exists() else Detectors()
