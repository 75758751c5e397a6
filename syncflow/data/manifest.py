"""What the files beside latents say: the manifest of a folder, and the header of each shard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NotRequired, TypedDict, cast

from pydantic import Field, StrictBool, field_validator, model_validator

from syncflow import durable
from syncflow.config import Config, GeometryConfig
from syncflow.config.units import Deviation, Latent, Seconds, Share, Total
from syncflow.data.statistics import Sums as SumsLine
from syncflow.json_types import JsonObject
from syncflow.ranges import SEED, Real, Whole

MANIFEST = "manifest.json"
_Sum = Annotated[float, Real(-1e30, 1e30)]


class Statistics(Config):
    """Mean and standard deviation per latent channel."""

    video_mean: list[Latent] = Field(min_length=1)
    video_std: list[Deviation] = Field(min_length=1)
    audio_mean: list[Latent] = Field(min_length=1)
    audio_std: list[Deviation] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Statistics:
        for kind in ("video", "audio"):
            means, stds = (getattr(self, f"{kind}_{which}") for which in ("mean", "std"))
            if len(means) != len(stds):
                raise ValueError(
                    f"{len(means)} means and {len(stds)} deviations of {kind} latents "
                    f"({kind}_mean, {kind}_std)"
                )
        return self


class ShardEntry(Config):
    """A shard's file, beside the manifest, its rows, and the checksum of its header."""

    file: str
    count: Total
    header: str | None = None

    @field_validator("file")
    @classmethod
    def _beside(cls, name: str) -> str:
        if Path(name).name != name or name in ("", ".", ".."):
            raise ValueError(f"must be the name of a file beside the manifest, got {name!r}")
        return name


class Manifest(Config):
    """``manifest.json`` of a finished folder. ``model_statistics``: those that the model whose
    encoders these are was trained with. ``unknown_words``: share of captions with made-up words.
    """

    count: Annotated[int, Whole(1, 2**53, "clips")]
    encoders: dict[str, str]
    geometry: GeometryConfig
    model: str | None = None
    model_statistics: Statistics | None = None
    unknown_words: Share = 0.0
    text_tokens: Annotated[int, Whole(1, 2**31, "tokens")] | None = None
    statistics: Statistics
    shards: list[ShardEntry] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Manifest:
        listed = sum(shard.count for shard in self.shards)
        if listed != self.count:
            raise ValueError(f"count is {self.count}, and the shards have {listed} rows")
        return self


class MadeManifest(Config):
    """``manifest.json`` of finished latents that a sampler made (``made_latents``): of which clips,
    by which encoder and model, from which flow times on."""

    count: Annotated[int, Whole(1, 2**53, "clips")]
    batch_size: Annotated[int, Whole(1, 1_000_000, "clips")]
    encoder: str
    ddit: str
    data: JsonObject
    sampling: JsonObject
    start: list[Annotated[float, Real(0, 1)]] = Field(min_length=2, max_length=2)
    seed: Annotated[int, SEED]


class Record(Config):
    """What is known of a row: its number among rendered clips, or its file, from ``start`` s on;
    ``contacts``: when things touch in it, in seconds."""

    caption: str
    clip: Total | None = None
    file: str | None = None
    start: Annotated[float, Real(0, 1e7, "s")] | None = None
    seconds: Seconds | None = None
    group: str | None = None
    sound: StrictBool | None = None
    contacts: list[Annotated[float, Real(0, 1e7, "s")]] | None = None


class Skipped(Config):
    """What was left out, and why."""

    file: str | None = None
    start: Annotated[float, Real(0, 1e7, "s")] | None = None
    reason: str
    detail: str = ""


class Sums(Config):
    """Per channel, of draws from the posteriors: how many, their sum and the sum of squares."""

    count: Total
    sum: list[_Sum]
    squares: list[_Sum]


class Header(Config):
    """In the header of a shard: a record for each row, the sums of its latents by kind, and the
    checksum of its tensors."""

    records: list[Record]
    skipped: list[Skipped]
    sums: dict[str, Sums]
    sha256: str | None = None


# The same as they are read and written, without the defaults of what is not there.


class RecordLine(TypedDict):
    """``Record``."""

    caption: str
    clip: NotRequired[int]
    contacts: NotRequired[list[float]]
    file: NotRequired[str]
    start: NotRequired[float]
    seconds: NotRequired[float]
    group: NotRequired[str]
    sound: NotRequired[bool]


class SkippedLine(TypedDict):
    """``Skipped``."""

    file: str | None
    start: float | None
    reason: str
    detail: str


class ShardLine(TypedDict):
    """``ShardEntry``."""

    file: str
    count: int
    header: NotRequired[str]


class Geometry(TypedDict):
    """The arguments of ``ClipSpec``."""

    seconds: float
    fps: float
    height: int
    width: int
    sample_rate: int


class ManifestFile(TypedDict):
    """``Manifest``."""

    count: int
    encoders: dict[str, str]
    geometry: Geometry
    model: NotRequired[str | None]
    model_statistics: NotRequired[dict[str, list[float]] | None]
    text_tokens: NotRequired[int]
    unknown_words: NotRequired[float]
    statistics: dict[str, list[float]]
    shards: list[ShardLine]


class HeaderFile(TypedDict):
    """``Header``."""

    records: list[RecordLine]
    skipped: list[SkippedLine]
    sums: dict[str, SumsLine]
    sha256: NotRequired[str]


def read(folder: Path) -> ManifestFile:
    """The manifest of a folder, as it is written.

    Raises:
        FileNotFoundError: there is none. ValueError: it is damaged; the message names the key.
    """
    path = folder / MANIFEST
    found = durable.read_sealed(path)
    Manifest.parse(found, f"'{path}' is damaged")
    return cast(ManifestFile, found)
