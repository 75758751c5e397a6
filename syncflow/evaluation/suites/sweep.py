"""Which sampling settings are best: every combination of a grid on the same validation captions."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from syncflow.data import media
from syncflow.evaluation.probes.probe import ProbeSettings
from syncflow.evaluation.report import shapes, tables
from syncflow.evaluation.suites import provenance, rows, systems
from syncflow.evaluation.suites.systems import Model
from syncflow.sampling import OPTIONS

Grid = dict[str, Sequence[str | float | bool]]
#: What a sweep tries when it is given no grid.
GRID: Grid = {
    "schedule": ("cascade", "joint"),
    "guidance": (1.0, 2.0, 3.0, 4.5),
    "steps": (10, 25),
}


def sweep(
    model: Model | str | Path | None = None,
    split: str = "val",
    clips: int = 64,
    grid: Grid | Sequence[Grid] | None = None,
    *,
    levels: Sequence[int] = (1,),
    out: str | Path | None = None,
    seed: int = 0,
    batch: int = 16,
    probe_settings: tuple[ProbeSettings, ProbeSettings] | None = None,
    cache: str | Path | None = None,
    progress: bool = True,
) -> shapes.Sweep:
    """Generates the same captions with every combination of ``grid`` (option -> values; or of each
    of several grids) and writes ``sweep.json`` and ``sweep.md``, best first.

    The best has the highest mean of F1 at 50 ms, count in the picture and material. Chosen on the
    validation split, it becomes the model's default; the test split is refused. ``cache``: folder
    of the probes, by default ``probes`` beside ``out``.
    """
    if split == "test":
        raise ValueError("sampling settings must not be chosen on test clips; sweep 'val'")
    grids = [grid] if isinstance(grid, dict) else list(grid or [GRID])
    unknown = sorted({name for each in grids for name in each} - set(OPTIONS))
    if unknown:
        raise ValueError(f"a sweep accepts {', '.join(OPTIONS)}, got {', '.join(unknown)}")
    out = media.make_folder(out if out is not None else "runs/eval", "sweep.json")
    captions = systems.cases(split, clips, levels)
    loaded, named = provenance.load_model(model)
    judges = systems.load_probes(Path(cache or out.parent / "probes"), levels, probe_settings)
    table = []
    combinations = [
        dict(zip(each, values, strict=True))
        for each in grids
        for values in itertools.product(*each.values())
    ]
    for options in combinations:
        label = ", ".join(f"{key} {value}" for key, value in options.items())
        begun = time.perf_counter()
        made = systems.generated(
            loaded,
            [case.prompt for case in captions],
            seed=seed,
            batch=batch,
            options=options,
            label=label,
            progress=progress,
        )
        took = (time.perf_counter() - begun) / len(captions)
        cases, kept, left_out = systems.finite(captions, {label: made})
        row = rows.measured(label, cases, systems.observe(kept[label], *judges), seed)[0]
        if left_out:
            row["left_out"] = left_out
        parts = [row[name][0] for name in ("f1_50", "count_picture", "material") if name in row]
        table.append(row | {"options": options, "seconds": took, "mean": float(np.mean(parts))})
    table.sort(key=lambda row: -row["mean"])
    facts = {
        **named,
        "clips": f"{clips} per level of split {split}",
        "seed": seed,
        **provenance.circumstances(None),
    }
    result: shapes.Sweep = {"facts": facts, "best": table[0]["options"], "rows": table}
    tables.write_json(out / "sweep.json", result)
    lines = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    columns = ("f1_50", "f1_100", "median_ms", "count_picture", "count_sound", "material")
    page = f"# Sampling settings, best first\n\n{lines}\n\n"
    tables.write_text(out / "sweep.md", page + tables.markdown(table, columns, "settings"))
    return result
