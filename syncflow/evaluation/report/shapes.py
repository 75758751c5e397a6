"""What the reports hold: the shapes of their JSON files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NotRequired, TypeAlias, TypedDict

from syncflow.json_types import JsonObject

#: Value, and the ends of its interval.
Estimate: TypeAlias = list[float]
#: A line of a table: what was measured, its clips, and a column for every number; which columns
#: there are depends on what was asked for.
Row: TypeAlias = JsonObject
#: Of a run -> loss -> (step, value).
Losses: TypeAlias = dict[str, dict[str, list[tuple[float, float]]]]


class Report(TypedDict):
    """Of any kind. ``facts``: model, data, seed, command and machine."""

    facts: Mapping[str, object]


class Response(TypedDict):
    """How a metric answers to sound that is moved, or is another, or none."""

    label: str
    better: str
    curve: list[Estimate]
    shuffled: Estimate
    silent: Estimate
    fit: bool
    why: str
    resolution_ms: list[int | None]


class Calibration(TypedDict):
    """Of all metrics on real clips; ``what`` these are, where it is a file of its own."""

    what: NotRequired[str]
    clips: int
    offsets_ms: list[int]
    metrics: dict[str, Response]


class Counterfactual(Report):
    """``conflicts``: of picture and caption; ``probes``: facts of those that judged."""

    rows: list[Row]
    conflicts: list[Row]
    probes: Mapping[str, Mapping[str, float | str]]


class Guidance(TypedDict):
    """Rows with their ``options``."""

    rows: list[Row]


class Sweep(Report):
    """Every combination, best first."""

    best: Mapping[str, object]
    rows: list[Row]


class Rule(TypedDict):
    """A criterion of accelerations; ``range``: of its key, from and to."""

    modality: str
    key: str
    what: str
    range: list[float]


class NotRun(TypedDict):
    """A cell that could not be run, and why."""

    cell: str
    why: str


Accelerations = TypedDict(
    "Accelerations",
    {
        "facts": Mapping[str, object],
        "rule": list[Rule],
        "clock": str,
        "rows": list[Row],
        "not_run": list[NotRun],
        "recommended": str | None,
        "recommended for the folder": NotRequired[str | None],
        "written": str | None,
    },
)


class More(TypedDict, total=False):
    """Parts that may be measured apart from a sync report."""

    calibration: dict[str, Calibration]
    guidance: Guidance
    training: Losses


class Sync(Report):
    """Of ``evaluate sync``."""

    rows: list[Row]
    fidelity: dict[str, dict[str, float]]
    detectors: Mapping[str, Mapping[str, float | str]]
    settings: Mapping[str, object]
    notes: dict[str, str]
    training: Losses
    offsets_ms: dict[str, list[float]]
    calibration: dict[str, Calibration]
    recordings: NotRequired[list[Row]]
    guidance: NotRequired[Guidance]
    accelerations: NotRequired[Accelerations]
    counterfactual: NotRequired[Counterfactual]
    sweep: NotRequired[Sweep]


class PaperMetric(TypedDict):
    """Of one system. ``better``: "lower" or "higher"."""

    value: Estimate
    better: str
    clips: int
    facts: Mapping[str, object]


PaperRow = TypedDict(
    "PaperRow",
    {
        "system": str,
        "tables": list[str],
        "at": float | None,
        "not_run": NotRequired[str],
        "clips": NotRequired[int],
        "left_out": NotRequired[dict[str, str]],
        "checkpoints": NotRequired[int],
        "metrics": NotRequired[dict[str, PaperMetric]],
        "metrics_not_run": NotRequired[dict[str, str]],
        "seconds a clip": NotRequired[float],
    },
)


class Paper(Report):
    """Of ``evaluate paper``. ``curves``: run -> loss -> [step, value, low, high]."""

    rows: list[PaperRow]
    curves: dict[str, dict[str, list[list[float]]]]
