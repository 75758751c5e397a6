"""The rows of a report's tables: what the observations of a system add up to, group by group."""

from __future__ import annotations

from collections.abc import Sequence

from syncflow.detect import matching
from syncflow.evaluation.report.shapes import Row
from syncflow.evaluation.suites.systems import Case, Observation
from syncflow.impacts.materials import held_out

#: Rounds of shuffling that chance is averaged over.
SHUFFLES = 10


def adherence(
    cases: Sequence[Case], seen: Sequence[Observation], seed: int = 0
) -> dict[str, list[float]]:
    """How often what a caption says is found: ``count_picture``, ``count_sound``, ``material``,
    ``colour`` and ``kind``, each [value, low, high] over the captions that say it; left out where
    none does, the kind where all captions are of one."""
    pairs = list(zip(cases, seen, strict=True))
    right = {
        "count_picture": [len(o.contacts) == c.count for c, o in pairs if c.count is not None],
        "count_sound": [len(o.onsets) == c.count for c, o in pairs if c.count is not None],
        "material": [o.material == c.material for c, o in pairs if c.material is not None],
        "colour": [o.colour == c.colour for c, o in pairs if c.colour is not None],
        "kind": [o.kind == c.kind for c, o in pairs if o.kind is not None],
    }
    return {name: matching.average(hits, seed=seed) for name, hits in right.items() if hits}


def wholly_right(case: Case, o: Observation, second: bool = False) -> bool:
    """Whether a clip is as its caption says and its picture and sound agree: something touches,
    ``every_event_matched``, and count, material, colour and what happens (``kind``) are what the
    caption names. ``second``: by the second detectors."""
    contacts, onsets = _events(o, second)
    return (
        every_event_matched(contacts, onsets)
        and case.count in (None, len(contacts))
        and case.material in (None, o.material)
        and case.colour in (None, o.colour)
        and o.kind in (None, case.kind)
    )


def every_event_matched(contacts: Sequence[float], onsets: Sequence[float]) -> bool:
    """Contacts and onsets one to one within 50 ms, at least one; none is left over."""
    pairs = len(matching.match(contacts, onsets, 0.05))
    return 0 < pairs == len(contacts) == len(onsets)


def _events(o: Observation, second: bool) -> tuple[list[float], list[float]]:
    if not second:
        return o.contacts, o.onsets
    assert o.second is not None
    return o.second


def by_clip(
    cases: Sequence[Case], seen: Sequence[Observation], seed: int = 0
) -> dict[str, list[float]]:
    """What a mean over events hides, each [value, low, high] over clips: ``whole``
    (``wholly_right``), ``all_matched``, ``missed`` contacts without an onset and ``invented``
    onsets without a contact per clip (50 ms), ``no_contact`` the share of clips in which nothing
    is seen to touch; ``f1_50_second`` and ``whole_second`` by the second detectors."""
    pairs = list(zip(cases, seen, strict=True))
    met = [len(matching.match(o.contacts, o.onsets, 0.05)) for o in seen]
    values: dict[str, list[float]] = {
        "whole": [wholly_right(case, o) for case, o in pairs],
        "all_matched": [every_event_matched(o.contacts, o.onsets) for o in seen],
        "missed": [len(o.contacts) - n for o, n in zip(seen, met, strict=True)],
        "invented": [len(o.onsets) - n for o, n in zip(seen, met, strict=True)],
        "no_contact": [not o.contacts for o in seen],
    }
    second = all(o.second is not None for o in seen)
    if second:
        values["whole_second"] = [wholly_right(case, o, second=True) for case, o in pairs]
    result = {name: matching.average(each, seed=seed) for name, each in values.items()}
    if second:
        events = [_events(o, second=True) for o in seen]
        table = matching.measure([a for a, _ in events], [b for _, b in events], seed=seed)
        result["f1_50_second"] = table["f1_50"]
    return result


def groups_of(cases: Sequence[Case]) -> dict[str, list[int]]:
    """All clips, then every level, kind of event, material and colour where there are several, and
    whether training saw the colour and the material together; clips with sounds from outside the
    picture are a group of their own and in no other."""
    inside = [i for i, case in enumerate(cases) if not case.outside]
    outside = [i for i, case in enumerate(cases) if case.outside]
    groups = {"all clips": inside} if inside else {}
    for label, key in (("level", "level"), ("kind", "kind"), ("material", "made_of")):
        values = sorted({getattr(cases[i], key) for i in inside})
        for value in values if len(values) > 1 else []:
            groups[f"{label} {value}"] = [i for i in inside if getattr(cases[i], key) == value]
    for label, value_of in (("colour", _colour), ("colour and material", _together)):
        named = {i: value_of(cases[i]) for i in inside}
        values = sorted({value for value in named.values() if value})
        for value in values if len(values) > 1 else []:
            groups[f"{label} {value}"] = [i for i in inside if named[i] == value]
    if outside:
        groups["with sounds from outside the picture"] = outside
    return groups


def _colour(case: Case) -> str | None:
    """What the caption says."""
    return case.colour


def _together(case: Case) -> str | None:
    """Of captions that say both."""
    if case.colour is None or case.material is None:
        return None
    return "unseen together" if held_out(case.colour, case.material) else "seen together"


def measured(
    name: str, cases: Sequence[Case], seen: Sequence[Observation], seed: int, shuffled: bool = False
) -> list[Row]:
    """One row per group. Shuffled rows are about sync alone, and shuffle within their group."""
    result = []
    for group, members in groups_of(cases).items():
        if shuffled and len(members) < 2:
            continue
        chosen = [seen[i] for i in members]
        table = matching.measure(
            [o.contacts for o in chosen],
            [o.onsets for o in chosen],
            shuffles=SHUFFLES if shuffled else 0,
            seed=seed,
        )
        row = {"system": name, "group": group, "clips": len(members), **table}
        if not shuffled:
            row |= adherence([cases[i] for i in members], chosen, seed)
            row |= by_clip([cases[i] for i in members], chosen, seed)
            row["correlation"] = matching.average([o.correlation for o in chosen], seed=seed)
            row["loudness"] = matching.average([o.loudness for o in chosen], seed=seed)
            row["lufs"] = matching.average([o.lufs for o in chosen], seed=seed)
        result.append(row)
    return result


def records(cases: Sequence[Case], seen: dict[str, list[Observation]]) -> list[Row]:
    """A row of the CSV per clip and system."""
    return [
        {
            "system": name,
            "seed": case.seed,
            "level": case.level,
            "kind": case.kind,
            "made_of": case.made_of,
            "outside": case.outside,
            "prompt": case.prompt,
            "count": case.count,
            "material": case.material,
            "colour": case.colour,
            "contacts": o.contacts,
            "onsets": o.onsets,
            "matched_50": len(matching.match(o.contacts, o.onsets, 0.05)),
            "matched_100": len(matching.match(o.contacts, o.onsets, 0.1)),
            "offsets": [float(v) for v in matching.nearest(o.contacts, o.onsets)],
            "correlation": round(o.correlation, 4),
            "loudness": round(o.loudness, 2),
            "lufs": round(o.lufs, 2),
            "whole": wholly_right(case, o),
            "contacts_second": o.second[0] if o.second else [],
            "onsets_second": o.second[1] if o.second else [],
            "found_material": o.material,
            "found_colour": o.colour,
            **({} if o.kind is None else {"found_kind": o.kind}),
        }
        for name, found in seen.items()
        for case, o in zip(cases, found, strict=True)
    ]
