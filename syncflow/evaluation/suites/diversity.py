"""Is there as much of the world in a caption's clips as the caption leaves open?

Several clips of one caption differ in what it does not say: background, place, height, the time of
the first contact. Each caption's clips are compared with as many real ones of which the caption is
as true, by the variance of pixels and of log spectra and the spread of the first contact's time. A
model that plays safe has too little of it, one that adds noise too much; another draw of real clips
says how far chance goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from syncflow.clip import Clip
from syncflow.data import media
from syncflow.detect import contacts, fidelity, matching
from syncflow.evaluation.report import table, tables
from syncflow.evaluation.report.shapes import Report, Row
from syncflow.evaluation.suites import provenance, systems
from syncflow.evaluation.suites.systems import Model
from syncflow.progress import bar

RESAMPLES = 1000
#: Clips by draw, then caption.
Draws = list[list[Clip]]


def pixel_variance(clips: Sequence[Clip]) -> float:
    """Of pixels in [0, 1], over clips of one caption."""
    videos = torch.stack([clip.video.float() / 255 for clip in clips])
    return float(videos.var(0).mean())


def spectral_variance(clips: Sequence[Clip]) -> float:
    """Of log spectra (dB), over clips of one caption."""
    return float(torch.stack([fidelity.log_spectrum(clip.audio) for clip in clips]).var(0).mean())


def first_contact_variance(clips: Sequence[Clip]) -> float:
    """Of the time at which something first touches, in s^2; nan where fewer than two show it."""
    seen = [contacts.times(clip.video, clip.fps) for clip in clips]
    first = [times[0] for times in seen if times]
    return float(np.var(first, ddof=1)) if len(first) > 1 else float("nan")


#: What is compared: a name, its words, and the variance over the clips of a caption.
VARIANCES: dict[str, tuple[str, Callable[[Sequence[Clip]], float]]] = {
    "picture": ("variance of pixels", pixel_variance),
    "sound": ("variance of log spectra", spectral_variance),
    "first_contact": ("variance of the first contact's time", first_contact_variance),
}


class _Report(Report):
    rows: list[Row]


def run(
    model: Model | str | Path | None = None,
    clips: int = 48,
    draws: int = 4,
    split: str = "test",
    out: str | Path | None = None,
    seed: int = 0,
    batch: int = 16,
    *,
    options: Mapping[str, object] | None = None,
    command: str | None = None,
    progress: bool = True,
) -> _Report:
    """Makes ``draws`` clips of each of ``clips`` captions of level 1 and compares them with real
    ones; writes ``diversity.json`` and ``.md`` into ``out`` (default ``runs/eval``), returns the
    former.

    Raises:
        ValueError: fewer than 2 clips or draws, or a split that there is not.
    """
    from syncflow import impacts

    if draws < 2:
        raise ValueError(f"draws must be at least 2: they are compared, got {draws}")
    out = media.make_folder(out if out is not None else "runs/eval", "diversity.json")
    cases = systems.cases(split, clips, [1])
    loaded, named = provenance.load_model(model)
    prompts = [case.prompt for case in cases]
    generated = [
        systems.generated(
            loaded,
            prompts,
            seed=seed + draw * len(cases),
            batch=batch,
            options=options or {},
            progress=progress,
        )
        for draw in range(draws)
    ]
    height, width = generated[0][0].video.shape[2:]
    real: Draws = [[] for _ in range(2 * draws)]
    for case in bar(cases, desc="real", shown=progress):
        for part, scene in zip(real, islice(impacts.alike(case.scene), 2 * draws), strict=True):
            part.append(systems.rendered(systems.case(scene), height, width))
    worn = [systems.reconstructed(loaded, part, progress=False) for part in real[:draws]]
    beside = {"generated": generated, "real, after the VAEs": worn, "real, again": real[draws:]}
    of_real = variances(real[:draws])
    report: _Report = {
        "facts": {
            **named,
            "clips": f"{draws} of each of {clips} captions of split {split}, level 1",
            "seed": seed,
            "sampling": options or "the model's own defaults",
            **provenance.circumstances(command),
        },
        "rows": [
            {"clips": name, **ratios(variances(part), of_real, seed)}
            for name, part in beside.items()
        ],
    }
    tables.write_json(out / "diversity.json", report)
    tables.write_text(out / "diversity.md", _page(report))
    return report


def variances(clips_SN: Draws) -> dict[str, np.ndarray]:
    """Each of ``VARIANCES`` for every caption, [N]."""
    captions = list(zip(*clips_SN, strict=True))
    return {
        name: np.array([variance(part) for part in captions])
        for name, (_, variance) in VARIANCES.items()
    }


def ratios(
    ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], seed: int
) -> dict[str, list[float]]:
    """Of the sums over captions, [value, low, high]; a caption without a number on either side is
    left out of both, and without any left all are nan."""
    out = {}
    for name in VARIANCES:
        known = ~(np.isnan(ours[name]) | np.isnan(theirs[name]))
        above_N, below_N = ours[name][known], theirs[name][known]
        if not len(above_N):
            out[name] = [float("nan")] * 3
            continue
        drawn_RN = matching.resampling(len(above_N), RESAMPLES, seed)
        values_R = (drawn_RN @ above_N) / (drawn_RN @ below_N)
        value = float(above_N.sum() / below_N.sum())
        out[name] = [value, *matching.interval(values_R)]
    return out


def _page(report: _Report) -> str:
    lines: list[list[str | table.Cell]] = [["clips", *(words for words, _ in VARIANCES.values())]]
    lines += [
        [row["clips"], *(table.cell(row[name], 2) for name in VARIANCES)] for row in report["rows"]
    ]
    facts = "\n".join(f"- {key}: {value}" for key, value in report["facts"].items())
    return (
        "# Diversity within a caption, as a share of real's\n\n"
        f"{facts}\n\n{table.markdown(lines)}\n"
        "1 is as much as in real clips of which the caption is as true.\n"
    )
