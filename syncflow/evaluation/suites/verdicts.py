"""The rule by which an acceleration passes, stated before anything is measured.

Every criterion is a number of a cell beside the full run, over the same captions and seeds, with a
95 % interval (bootstrap over captions, all seeds of one together), and the range that it may have:

- the interval inside the range: **pass**; outside: **fail**; across its end: **undecided**, which
  more captions can change.
- a modality fails if one of its criteria does, and passes if all do.

The ranges. Shares and F1 may fall by .05, the difference that this project counts as none
everywhere else. What differs from the full run, picture or sound, may differ as much as another
seed of the full run does (a tenth more for the sound, a decibel for the picture): a sampler that
draws another clip is no worse for it. Loudness may change by 1 LU and the picture's detail by 1 dB,
about what is noticed side by side; the bias by 10 ms, a fifth of the tolerance of the F1; diversity
may not fall below nine tenths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf

import numpy as np
import torch
from torch import Tensor

from syncflow.clip import Clip
from syncflow.detect import fidelity, matching
from syncflow.evaluation.suites import diversity, rows
from syncflow.evaluation.suites.systems import Case, Observation

#: Fall of a share or of F1 that counts as none.
MARGIN = 0.05
#: Of the sound's distance between two seeds, in dB of spectra, and of the picture's, in dB of PSNR.
FURTHER, DARKER_DB = 0.1, 1.0
LOUDER_LU, DETAIL_DB, BIAS_MS, DIVERSITY = 1.0, 1.0, 10.0, 0.9
RESAMPLES = 1000


@dataclass(frozen=True)
class Criterion:
    """``what`` of a ``modality``: its key in a row, and the range of values that pass."""

    modality: str
    key: str
    what: str
    low: float = -inf
    high: float = inf

    def verdict(self, estimate: Sequence[float]) -> str:
        """Of [value, low, high]."""
        _, low, high = estimate
        if self.low <= low and high <= self.high:
            return "pass"
        return "fail" if high < self.low or low > self.high else "undecided"


#: The whole rule. ``spectral_excess`` is a share of the distance between two seeds.
RULE = (
    Criterion("picture", "picture_right_change", "contact, count and colour as said", -MARGIN),
    Criterion("picture", "psnr_excess", "PSNR to the full run beyond another seed's", -DARKER_DB),
    Criterion("picture", "detail_db", "detail (energy of edges), dB", -DETAIL_DB, DETAIL_DB),
    Criterion("picture", "diversity_picture", "diversity of pictures", DIVERSITY),
    Criterion("sound", "material_change", "material as said", -MARGIN),
    Criterion("sound", "spectral_excess", "spectral distance beyond another seed's", high=FURTHER),
    Criterion("sound", "loudness_lu", "loudness, LU", -LOUDER_LU, LOUDER_LU),
    Criterion("sound", "diversity_sound", "diversity of sounds", DIVERSITY),
    Criterion("sync", "f1_50_change", "F1 at 50 ms", -MARGIN),
    Criterion("sync", "whole_change", "wholly right", -MARGIN),
    Criterion("sync", "bias_ms_change", "bias, ms", -BIAS_MS, BIAS_MS),
)
MODALITIES = tuple(dict.fromkeys(criterion.modality for criterion in RULE))


def verdicts(row: Mapping[str, Sequence[float]]) -> dict[str, str]:
    """Modality -> pass, fail or undecided, of a measured row."""
    result = {}
    for modality in MODALITIES:
        found = [c.verdict(row[c.key]) for c in RULE if c.modality == modality and c.key in row]
        worst = "fail" if "fail" in found else "undecided"
        result[modality] = "pass" if set(found) == {"pass"} else worst
    return result


def reasons(row: Mapping[str, Sequence[float]]) -> list[str]:
    """The criteria that a row does not pass, in words."""
    return [
        f"{c.what}: {c.verdict(row[c.key])}"
        for c in RULE
        if c.key in row and c.verdict(row[c.key]) != "pass"
    ]


class Run:
    """What the clips of a cell are and what is found in them: lists by seed, then caption."""

    def __init__(
        self, cases: Sequence[Case], clips_SN: list[list[Clip]], seen_SN: list[list[Observation]]
    ) -> None:
        self.cases, self.clips, self.seen = cases, clips_SN, seen_SN
        self.spectra = [[fidelity.log_spectrum(c.audio) for c in part] for part in clips_SN]
        pairs = [list(zip(cases, part, strict=True)) for part in seen_SN]
        self.met = self._each(
            lambda o: len(matching.match(o.contacts, o.onsets, matching.TOLERANCES[0]))
        )
        self.events = self._each(lambda o: len(o.contacts) + len(o.onsets))
        self.whole = np.array([[rows.wholly_right(c, o) for c, o in part] for part in pairs], float)
        self.picture_right = np.array(
            [[_picture_right(c, o) for c, o in part] for part in pairs], float
        )
        self.material = np.array(
            [[_agrees(c.material, o.material) for c, o in part] for part in pairs], float
        )
        self.lufs = self._each(lambda o: o.lufs)
        self.detail = np.array([[_detail_db(c.video) for c in part] for part in clips_SN])

    def _each(self, number: Callable[[Observation], float]) -> np.ndarray:
        return np.array([[number(o) for o in part] for part in self.seen], float)

    def distances(self, other: Run, turn: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """PSNR of the pictures and spectral distance of the sounds, [S, N] each, to another run's
        of the same captions, of the seed ``turn`` further on."""
        seeds, captions = range(len(self.clips)), range(len(self.cases))
        psnr_SN, spectral_SN = np.zeros((2, len(seeds), len(captions)))
        for s in seeds:
            t = (s + turn) % len(seeds)
            for n in captions:
                videos = (self.clips[s][n].video.float(), other.clips[t][n].video.float())
                psnr_SN[s, n] = fidelity.psnr(*videos, span=255)
                gap = self.spectra[s][n] - other.spectra[t][n]
                spectral_SN[s, n] = float(gap.abs().mean())
        return psnr_SN, spectral_SN

    @cached_property
    def between_seeds(self) -> tuple[np.ndarray, np.ndarray]:
        """Distances to the clips of the next seed."""
        return self.distances(self, turn=1)

    @cached_property
    def diversity(self) -> tuple[np.ndarray, np.ndarray]:
        """Variance over seeds of pixels and of log spectra, a mean for every caption [N]."""
        captions = list(zip(*self.clips, strict=True))
        pictures, sounds = (
            np.array([variance(part) for part in captions])
            for variance in (diversity.pixel_variance, diversity.spectral_variance)
        )
        return pictures, sounds


def measured(run: Run, full: Run, seed: int = 0) -> dict[str, list[float]]:
    """A row: every number of a run and of its distance from the full one, [value, low, high]."""
    count = len(run.cases)
    drawn_RN = np.concatenate([np.ones((1, count)), matching.resampling(count, RESAMPLES, seed)])

    def estimate(values_R: np.ndarray) -> list[float]:
        return [float(values_R[0]), *matching.interval(values_R[1:])]

    def ratio(above_SN: np.ndarray, below_SN: np.ndarray) -> np.ndarray:
        """Of sums over all seeds, under every resample [R]."""
        above_R, below_R = (drawn_RN @ x.sum(0) for x in (above_SN, below_SN))
        return np.divide(above_R, below_R, out=np.full_like(above_R, np.nan), where=below_R > 0)

    def mean(values_SN: np.ndarray) -> np.ndarray:
        """Over what is not nan."""
        known = ~np.isnan(values_SN)
        return ratio(np.where(known, values_SN, 0.0), known.astype(float))

    row: dict[str, list[float]] = {}
    shares = {
        "f1_50": lambda r: ratio(2 * r.met, r.events),
        "whole": lambda r: mean(r.whole),
        "picture_right": lambda r: mean(r.picture_right),
        "material": lambda r: mean(r.material),
        "bias_ms": lambda r: _bias(r.seen, drawn_RN),
    }
    for name, of in shares.items():
        values_R = of(run)
        row[name] = estimate(values_R)
        row[f"{name}_change"] = estimate(values_R - of(full))
    row["lufs"] = estimate(mean(run.lufs))
    row["loudness_lu"] = estimate(mean(run.lufs - full.lufs))
    row["detail_db"] = estimate(mean(run.detail - full.detail))
    psnr_SN, spectral_SN = run.distances(full)
    row["psnr"], row["spectral_db"] = estimate(mean(psnr_SN)), estimate(mean(spectral_SN))
    if len(run.clips) > 1:
        other_psnr_SN, other_spectral_SN = full.between_seeds
        row["psnr_excess"] = estimate(mean(psnr_SN) - mean(other_psnr_SN))
        with np.errstate(divide="ignore", invalid="ignore"):  # where all seeds are alike
            row["spectral_excess"] = estimate(mean(spectral_SN) / mean(other_spectral_SN) - 1)
        names = ("diversity_picture", "diversity_sound")
        for name, ours_N, theirs_N in zip(names, run.diversity, full.diversity, strict=True):
            row[name] = estimate(ratio(ours_N[None], theirs_N[None]))
    return row


def worst_first(run: Run, full: Run) -> list[tuple[int, int]]:
    """(seed, caption) of every clip, those first that lost most against the full run: wholly right,
    then F1, then the distance of the sounds."""
    _, spectral_SN = run.distances(full)
    pairs = ((full.whole, run.whole), (_f1(full), _f1(run)))
    lost_SN = [before - after for before, after in pairs]
    score_SN = 10 * lost_SN[0] + lost_SN[1] + spectral_SN / 1000
    order = np.argsort(-score_SN, axis=None, kind="stable")
    return [(int(s), int(n)) for s, n in zip(*np.unravel_index(order, score_SN.shape), strict=True)]


def _f1(run: Run) -> np.ndarray:
    return np.divide(2 * run.met, run.events, out=np.zeros_like(run.met), where=run.events > 0)


def _picture_right(case: Case, o: Observation) -> bool:
    """Something touches, and count and colour are what the caption names."""
    counted = case.count in (None, len(o.contacts))
    return bool(o.contacts) and counted and case.colour in (None, o.colour)


def _agrees(said: str | None, found: str) -> float:
    return np.nan if said is None else float(said == found)


def _detail_db(video_FCHW: Tensor) -> float:
    """Mean square of the differences of neighbours: blur takes it away and grain adds to it."""
    x = video_FCHW.float()
    energy = x.diff(dim=-1).square().mean() + x.diff(dim=-2).square().mean()
    return float(10 * torch.log10(energy + 1e-6))


def _bias(seen_SN: Sequence[Sequence[Observation]], drawn_RN: np.ndarray) -> np.ndarray:
    """Median of onset - contact over pairs within 100 ms, in ms, under every resample [R]."""
    gaps: list[float] = []
    captions: list[int] = []
    for part in seen_SN:
        for caption, o in enumerate(part):
            pairs = matching.match(o.contacts, o.onsets, matching.TOLERANCES[-1])
            gaps += [1000 * (o.onsets[j] - o.contacts[i]) for i, j in pairs]
            captions += [caption] * len(pairs)
    return matching.weighted_quantile(np.array(gaps), drawn_RN[:, captions], 0.5)
