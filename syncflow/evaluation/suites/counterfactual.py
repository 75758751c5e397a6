"""What a model does when one thing changes: does what must change, and does the rest stay?

A pair of scenes differs in one factor: another material, colour or floor of the same ball on the
same path, or another count. The model makes both with the same seed, from the captions (``text to
clip``) or from the real pictures (``video to audio``). The real clips of both scenes are the
ceiling, and clips of one pair's first scene with another pair's second are chance.

Conflicts: the picture of one material and the caption of another; which does the sound follow?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
import torch

from syncflow.clip import Clip
from syncflow.data import media
from syncflow.detect import fidelity, matching
from syncflow.detect.settings import TrackSettings
from syncflow.detect.tracking import foreground
from syncflow.evaluation.probes import floors
from syncflow.evaluation.probes.probe import Probe, ProbeSettings
from syncflow.evaluation.report import table, tables
from syncflow.evaluation.report.shapes import Counterfactual, Row, Sync
from syncflow.evaluation.suites import provenance, systems
from syncflow.evaluation.suites.systems import Case, Model, Observation

#: Onsets further apart than this, in seconds, are no longer the same.
_SAME = 0.05
#: The place of a factor in this order is part of the seed that draws its pairs.
_DRAWN = ("colour", "count", "material", "floor")
#: What stays where a factor changes, beside the onsets; another count has others.
_STAYS: dict[str, tuple[Literal["material", "colour"], ...]] = {
    "material": (),
    "colour": ("material",),
    "count": ("material", "colour"),
    "floor": ("material", "colour"),
}
#: What a column of the tables means.
COLUMNS = {
    "pairs": "pairs of scenes",
    "onsets stay": "share of pairs with the same number of onsets, each within 50 ms of its other",
    "onset_ms": "median distance of matched onsets, ms",
    "picture_db": "PSNR outside both objects, dB: small where the floor must change",
    "sound_db": "distance of the two spectra, dB: small where the sound must stay",
    "changes": "share of pairs in which both clips show what was asked for",
    "right": "share in which what must change changes and what must stay stays",
}


@dataclass(frozen=True)
class Pair:
    """Two cases that differ in ``factor``: ``one`` is the world's own, ``other`` the varied."""

    factor: str
    one: Case
    other: Case


def pairs(factor: str, clips: int, split: str = "test", seed: int = 0) -> list[Pair]:
    """The first ``clips`` scenes of level 1 of a split whose caption says the factor, each with a
    variation drawn by ``seed``.

    A combination of colour and material that the other scene has is one that the split has too.
    """
    from syncflow import impacts
    from syncflow.impacts import world
    from syncflow.impacts.materials import held_out

    values = impacts.attribute_values(1)[factor]
    rng = np.random.default_rng([seed, _DRAWN.index(factor)])
    found: list[Pair] = []
    for number in world.seeds_of(split):
        if len(found) == clips:
            break
        scene = impacts.sample_scene(number, 1, split)
        if factor not in scene.attributes["mentioned"]:
            continue
        said: Mapping[str, object] = {**scene.attributes}
        others = [value for value in values if value != said[factor]]
        other = impacts.vary(scene, factor, others[rng.integers(len(others))])
        kept = [held_out(s.attributes["colour"], s.attributes["material"]) for s in (scene, other)]
        if (kept[1] and not kept[0]) or factor not in other.attributes["mentioned"]:
            continue
        found.append(Pair(factor, systems.case(scene), systems.case(other)))
    return found


class _Making(systems.Making):
    options: Mapping[str, object]


_Share = Literal["onsets stay", "changes", "right"]
_SHARES: tuple[_Share, ...] = ("onsets stay", "changes", "right")
_LEVELS: tuple[Literal["picture_db", "sound_db"], ...] = ("picture_db", "sound_db")

_Compared = TypedDict(
    "_Compared",
    {
        "onsets stay": bool,
        "gaps_ms": list[float],
        "picture_db": float,
        "sound_db": float,
        "changes": bool,
        "right": bool,
    },
)


def run(
    model: Model | str | Path | None = None,
    clips: int = 60,
    split: str = "test",
    out: str | Path | None = None,
    seed: int = 0,
    batch: int = 16,
    *,
    options: Mapping[str, object] | None = None,
    probe_settings: tuple[ProbeSettings, ProbeSettings] | None = None,
    probes: str | Path | None = None,
    command: str | None = None,
    progress: bool = True,
) -> Counterfactual:
    """Measures every factor and the conflicts on ``clips`` pairs each; writes
    ``counterfactual.json`` and ``.md`` into ``out`` (default ``runs/eval``), returns the former.
    ``probes``: the folder that keeps them (default beside ``out``).

    Raises:
        ValueError: fewer than 2 pairs.
    """
    from syncflow import impacts

    if clips < 2:
        raise ValueError(f"clips must be at least 2, got {clips}")
    out = media.make_folder(out if out is not None else "runs/eval", "counterfactual.json")
    loaded, named = provenance.load_model(model)
    kept = out.parent / "probes" if probes is None else Path(probes)
    judges = systems.load_probes(kept, (1,), probe_settings)
    making: _Making = {
        "seed": seed,
        "batch": batch,
        "options": options or {},
        "progress": progress,
    }
    rows: list[Row] = []
    conflicts: list[Row] = []
    for factor in impacts.FACTORS:
        chosen = pairs(factor, clips, split, seed)
        size = loaded.generate([chosen[0].one.prompt], steps=1, progress=False)[0].video.shape[2:]
        real = [[systems.rendered(c, *size) for c in cases] for cases in _sides(chosen)]
        made = {"real": real}
        made["text to clip"] = [
            systems.generated(loaded, [c.prompt for c in cases], label=factor, **making)
            for cases in _sides(chosen)
        ]
        if factor != "count":
            made["video to audio"] = [
                systems.generated(
                    loaded,
                    [""] * len(side),
                    video=[clip.video for clip in side],
                    label=factor,
                    **making,
                )
                for side in real
            ]
        for name, sides in made.items():
            rows += _measured(name, chosen, sides, judges, seed)
        if factor == "material":
            conflicts = _conflicts(loaded, chosen, real[0], judges[0], making)
    report: Counterfactual = {
        "facts": {
            **named,
            "pairs": f"{clips} of every factor, split {split}, level 1",
            "seed": seed,
            "sampling": options or "the model's own defaults",
            **provenance.circumstances(command),
        },
        "rows": rows,
        "conflicts": conflicts,
        "probes": {"material": judges[0].facts, "colour": judges[1].facts},
    }
    tables.write_json(out / "counterfactual.json", report)
    tables.write_text(out / "counterfactual.md", _page(report))
    return report


def add(
    report: Sync,
    model: Model,
    clips: int,
    split: str,
    out: Path,
    seed: int,
    probe_settings: tuple[ProbeSettings, ProbeSettings] | None,
) -> None:
    """Adds what follows where one thing changes, of ``clips`` pairs, to a suite's report in
    ``out``, whose probes it shares; nothing of 0."""
    if clips:
        report["counterfactual"] = run(
            model,
            max(2, clips),
            split,
            out / "counterfactual",
            seed,
            probe_settings=probe_settings,
            probes=out.parent / "probes",
            progress=False,
        )


def _sides(chosen: Sequence[Pair]) -> tuple[list[Case], list[Case]]:
    return [pair.one for pair in chosen], [pair.other for pair in chosen]


def _measured(
    name: str,
    chosen: Sequence[Pair],
    sides: Sequence[Sequence[Clip]],
    probes: systems.Judges,
    seed: int,
) -> list[Row]:
    """The row of a system, and the same with the second clips shuffled: chance."""
    factor = chosen[0].factor
    seen = [systems.observe(side, *probes) for side in sides]
    order = matching.derangement(len(chosen), np.random.default_rng(seed))
    rows = []
    for label, index in ((name, np.arange(len(chosen))), (f"{name}, shuffled", order)):
        found = [
            _compared(pair, (sides[0][i], sides[1][j]), (seen[0][i], seen[1][j]))
            for pair, i, j in zip(chosen, range(len(chosen)), index, strict=True)
        ]
        row: Row = {"factor": factor, "system": label, "pairs": len(found)}
        for share in _SHARES:
            row[share] = matching.average([float(item[share]) for item in found], seed=seed)
        for level in _LEVELS:
            row[level] = matching.average([item[level] for item in found], seed=seed)
        gaps = [gap for item in found for gap in item["gaps_ms"]]
        row["onset_ms"] = float(np.median(gaps)) if gaps else None
        rows.append(row)
    return rows


def _compared(
    pair: Pair, clips: tuple[Clip, Clip], seen: tuple[Observation, Observation]
) -> _Compared:
    """One pair: what stays and what changes."""
    heard = [o.onsets for o in seen]
    matched = matching.match(heard[0], heard[1], _SAME)
    onsets_stay = len(matched) == len(heard[0]) == len(heard[1])
    asked = [getattr(case, pair.factor) for case in (pair.one, pair.other)]
    if pair.factor == "count":
        given: list[object] = [len(o.contacts) for o in seen]
    elif pair.factor == "floor":
        given = [*floors.predict([clip.video for clip in clips])]
    else:
        given = [getattr(o, pair.factor) for o in seen]
    stays = (onsets_stay or pair.factor == "count") and all(
        getattr(seen[0], name) == getattr(seen[1], name) for name in _STAYS[pair.factor]
    )
    changes = given == asked
    return {
        "onsets stay": onsets_stay,
        "gaps_ms": [1000 * abs(heard[0][i] - heard[1][j]) for i, j in matched],
        "picture_db": _outside(clips[0], clips[1]),
        "sound_db": fidelity.spectral_distance(clips[0].audio, clips[1].audio),
        "changes": changes,
        "right": changes and stays,
    }


def _outside(one: Clip, other: Clip) -> float:
    """PSNR of two pictures where neither has its object, dB."""
    videos = [clip.video.float() / 255 for clip in (one, other)]
    weights = [foreground(video, TrackSettings())[0] for video in videos]
    free = (torch.maximum(*weights) < 0.1)[:, None].expand_as(videos[0])
    if not free.any():
        return 0.0
    error = (videos[0] - videos[1])[free].square().mean()
    return float(-10 * torch.log10(error + 1e-10))


def _conflicts(
    model: Model, chosen: Sequence[Pair], real: Sequence[Clip], probe: Probe, making: _Making
) -> list[Row]:
    """Which of picture and caption the sound's material follows, where they differ and where not;
    ``by chance`` is how often the probe says it of sounds of other clips."""
    from syncflow.evaluation.probes import materials

    rows = []
    pictures = [clip.video for clip in real]
    for label, side in (("they agree", 0), ("they differ", 1)):
        prompts = [(pair.one, pair.other)[side].prompt for pair in chosen]
        made = systems.generated(model, prompts, video=pictures, label=label, **making)
        found = materials.predict(probe, [clip.audio for clip in made])
        shown = [pair.one.material for pair in chosen]
        said = [(pair.one, pair.other)[side].material for pair in chosen]
        order = matching.derangement(len(chosen), np.random.default_rng(making["seed"]))
        hits = {
            "follows the picture": [f == a for f, a in zip(found, shown, strict=True)],
            "follows the caption": [f == b for f, b in zip(found, said, strict=True)],
            "neither": [f not in (a, b) for f, a, b in zip(found, shown, said, strict=True)],
            "by chance, the picture": [found[j] == a for j, a in zip(order, shown, strict=True)],
        }
        shares = {key: matching.average([float(v) for v in of]) for key, of in hits.items()}
        rows.append({"picture and caption": label, "pairs": len(made), **shares})
    return rows


def _page(report: Counterfactual) -> str:
    lines: list[list[str | table.Cell]] = [["factor", "system", *COLUMNS]]
    lines += [
        [row["factor"], row["system"], *(_cell(row[key]) for key in COLUMNS)]
        for row in report["rows"]
    ]
    keys: list[str] = list(report["conflicts"][0])
    conflict: list[list[str | table.Cell]] = [
        [*keys],
        *([_cell(row[key]) for key in keys] for row in report["conflicts"]),
    ]
    facts = "\n".join(f"- {key}: {value}" for key, value in report["facts"].items())
    legend = "\n".join(f"- {key}: {text}" for key, text in COLUMNS.items())
    return (
        f"# Counterfactuals\n\n{facts}\n\n{table.markdown(lines)}\n{legend}\n\n"
        f"## Conflicts of picture and caption\n\n{table.markdown(conflict)}"
    )


def _cell(value: str | float | Sequence[float | None] | None) -> str | table.Cell:
    if isinstance(value, (str, int)):
        return str(value)
    return table.cell(value)
