"""Fits the detectors' settings on validation clips: ``syncflow evaluate fit``.

Half of the clips are as rendered, half are worn (``wear``), because detectors must read generated
clips too. A random search around the defaults keeps the settings with the best mean of F1 at 50 ms
and count accuracy against the true times; then the median signed error on unworn clips becomes
``bias``. Test clips are never touched. ``--check`` fits nothing: it holds the settings that are in
use against the renderer, for every kind of event.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from syncflow.detect import contacts, matching, onsets
from syncflow.detect.settings import ContactSettings, Detectors, OnsetSettings
from syncflow.detect.tracking import tracks
from syncflow.evaluation.probes import wear
from syncflow.evaluation.suites import systems
from syncflow.json_types import JsonObject


@dataclass(frozen=True)
class Sample:
    """A validation clip and its truth: contact times that can be seen, and those that are heard."""

    video: Tensor
    audio: Tensor
    fps: float
    seen: list[float]
    heard: list[float]
    worn: bool


def samples(split: str, clips: int, levels: Sequence[int], size: int = 64) -> list[Sample]:
    """Renders ``clips`` of every level, every second one worn."""
    from syncflow import impacts
    from syncflow.impacts import world

    if split == "test":
        raise ValueError("detectors must not be fitted on test clips; use split 'val' or 'train'")
    result = []
    for level in levels:
        for index, seed in enumerate(world.seeds_of(split)[:clips]):
            scene = impacts.sample_scene(seed, level, split)
            amount = (index % 2) * (0.25 + 0.75 * (index % 7) / 6)
            video = torch.from_numpy(impacts.render(scene, size, size))
            audio = torch.from_numpy(impacts.sound(scene))
            result.append(
                Sample(
                    wear.picture(video, amount, seed),
                    wear.sound(audio, amount, seed),
                    scene.fps,
                    [c.time_s for c in scene.contacts if c.visible],
                    [c.time_s for c in scene.contacts if c.audible],
                    amount > 0,
                )
            )
    return result


Settings = TypeVar("Settings", ContactSettings, OnsetSettings)


def _search(
    start: Settings,
    ranges: dict[str, tuple[float, float]],
    run: Callable[[Settings], list[list[float]]],
    true: list[list[float]],
    trials: int,
    rng: np.random.Generator,
) -> tuple[Settings, float]:
    """Random search in factors around ``start``; the start wins ties."""

    def value(settings: Settings) -> float:
        result = matching.score(run(settings), true)
        return (result["f1_50"] + result["count_accuracy"]) / 2 - 1e-3 * result["median_ms"] / 10

    best, best_value = start, value(start)
    for _ in range(trials):
        factors = {
            name: rng.uniform(np.log(low), np.log(high)) for name, (low, high) in ranges.items()
        }
        trial = replace(
            start, **{n: getattr(start, n) * float(np.exp(f)) for n, f in factors.items()}
        )
        trial_value = value(trial)
        if trial_value > best_value + 1e-4:
            best, best_value = trial, trial_value
    return best, best_value


def _rounded(settings: Settings, names: Sequence[str]) -> Settings:
    rounded: JsonObject = {n: float(f"{getattr(settings, n):.3g}") for n in names}
    return replace(settings, **rounded)


def fit(
    split: str = "val",
    clips: int = 120,
    levels: Sequence[int] = (1,),
    trials: int = 40,
    seed: int = 0,
) -> Detectors:
    """Searches both detectors' settings; the result says what they reach and on what."""
    data = samples(split, clips, levels)
    rng = np.random.default_rng(seed)
    seen, heard = [s.seen for s in data], [s.heard for s in data]

    picture = ContactSettings()
    paths = [tracks(s.video, picture.tracking) for s in data]

    def look(settings: ContactSettings) -> list[list[float]]:
        return [
            [c.time for c in contacts.from_tracks(path, s.fps, height, width, settings)]
            for path, s in zip(paths, data, strict=True)
            for height, width in [s.video.shape[2:]]
        ]

    ranges = {
        "sigma": (0.6, 2.5),
        "penalty": (0.5, 3.0),
        "impulse": (0.5, 2.0),
        "speed": (0.5, 2.5),
    }
    picture, picture_value = _search(picture, ranges, look, seen, trials, rng)
    picture = _rounded(picture, list(ranges))

    def listen(settings: OnsetSettings) -> list[list[float]]:
        return [onsets.times(s.audio, settings=settings) for s in data]

    ranges = {"threshold": (0.5, 2.5), "relative": (0.5, 2.0), "floor": (0.3, 4.0)}
    sound, sound_value = _search(OnsetSettings(), ranges, listen, heard, trials // 2, rng)
    sound = _rounded(sound, list(ranges))

    clean = [i for i, s in enumerate(data) if not s.worn]
    found = look(picture), listen(sound)
    report: JsonObject = {
        "split": split,
        "clips": clips,
        "levels": list(levels),
        "seed": seed,
        "trials": trials,
        "objective": {"contacts": round(picture_value, 4), "onsets": round(sound_value, 4)},
    }
    bias = []
    for name, times, true in zip(("contacts", "onsets"), found, (seen, heard), strict=True):
        for part, rows in (
            ("clean", clean),
            ("worn", [i for i in range(len(data)) if i not in clean]),
        ):
            score = matching.score([times[i] for i in rows], [true[i] for i in rows])
            report[f"{name}_{part}"] = {key: round(value, 4) for key, value in score.items()}
        bias.append(report[f"{name}_clean"]["bias_ms"] / 1000)
    return Detectors(
        replace(picture, bias=round(bias[0], 5)), replace(sound, bias=round(bias[1], 5)), report
    )


def check(clips: int = 40, levels: Sequence[int] = (1,)) -> dict[str, dict[str, dict[str, float]]]:
    """The settings in use against the true times of validation clips as rendered.

    Returns event kind -> "contacts" and "onsets" -> "clips" and the columns of ``matching.score``.
    """
    cases = systems.cases("val", clips, levels)
    kinds: dict[str, list[systems.Case]] = {}
    for case in cases:
        kinds.setdefault(case.kind, []).append(case)
    result = {}
    for kind, group in sorted(kinds.items()):
        rendered = [systems.rendered(case, 64, 64) for case in group]
        seen = contacts.score([clip.video for clip in rendered], [case.seen for case in group])
        heard = onsets.score([clip.audio for clip in rendered], [case.heard for case in group])
        rows = {"contacts": seen, "onsets": heard}
        result[kind] = {name: {"clips": len(group), **row} for name, row in rows.items()}
    return result
