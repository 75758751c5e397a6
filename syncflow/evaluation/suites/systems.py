"""What a report compares: captions of the world, and the clips that each system makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypedDict, Unpack, cast

import torch
from torch import Tensor

from syncflow.clip import Clip
from syncflow.data.export.loudness import SILENCE
from syncflow.data.export.loudness import lufs as measured_lufs
from syncflow.detect import contacts, envelopes, onsets, second
from syncflow.evaluation.probes import kinds, looks, materials
from syncflow.evaluation.probes.probe import Probe, ProbeSettings
from syncflow.generation.arguments import GenerateOptions
from syncflow.progress import bar

if TYPE_CHECKING:
    from syncflow.impacts.scene import Attributes, Scene


class Model(Protocol):
    """What is asked of a model: ``syncflow.load`` returns one."""

    def generate(self, prompt: list[str], /, **options: Unpack[GenerateOptions]) -> list[Clip]:
        """A clip for every prompt."""

    def reconstruct(self, clip: Clip) -> Clip:
        """What its VAEs leave of a clip."""


class Making(TypedDict):
    """How clips are drawn, whatever they are of."""

    seed: int
    batch: int
    progress: bool


class _Said(TypedDict):
    count: int | None
    material: str | None
    colour: str | None
    floor: str | None


@dataclass(frozen=True)
class Case:
    """One caption and what it says; ``None`` where the caption leaves it open.

    ``seen`` and ``heard`` are the renderer's times (s): only detectors are judged by them, never
    a model. ``made_of`` is what the thing is made of, said or not; ``outside`` whether something
    sounds that is not in the picture: its onsets have no contact to meet.
    """

    seed: int
    level: int
    kind: str
    prompt: str
    seen: tuple[float, ...]
    heard: tuple[float, ...]
    scene: Scene
    count: int | None
    material: str | None
    colour: str | None
    floor: str | None
    made_of: str
    outside: bool


@dataclass(frozen=True)
class Observation:
    """What the detectors and probes find in one clip; times in seconds. ``correlation``: of the
    curves of picture and sound (``envelopes``); ``loudness`` dB full scale, RMS; ``lufs`` as heard
    (ITU-R BS.1770); ``second``: contacts and onsets of the second detectors, None where librosa is
    missing; ``kind``: what happens, None where all captions are of one kind."""

    contacts: list[float]
    onsets: list[float]
    material: str
    colour: str
    correlation: float
    loudness: float
    lufs: float = SILENCE
    second: tuple[list[float], list[float]] | None = None
    kind: str | None = None


class Judges(NamedTuple):
    """What reads from a clip what it is of; ``kind`` None where all captions are of one."""

    material: Probe
    colour: Probe
    kind: Probe | None = None

    @property
    def facts(self) -> dict[str, Mapping[str, float | str]]:
        """Settings and accuracy of each."""
        named = self._asdict().items()
        return {f"{name} probe": probe.facts for name, probe in named if probe is not None}


def cases(split: str, clips: int, levels: Sequence[int]) -> list[Case]:
    """The first ``clips`` captions of every level of a split, rendered nowhere yet.

    Raises:
        ValueError: fewer than 2 clips, no level, or a split or level that there is not.
    """
    from syncflow import impacts
    from syncflow.impacts import world

    if clips < 2:
        raise ValueError(f"a report needs at least 2 clips (one is shuffled), got {clips}")
    if not levels:
        raise ValueError(f"levels must name at least one level of impacts, got {levels!r}")
    return [
        case(impacts.sample_scene(seed, level, split))
        for level in levels
        for seed in world.seeds_of(split)[:clips]
    ]


def case(scene: Scene) -> Case:
    """What the caption of a scene says, and what the renderer knows."""
    return Case(
        scene.seed,
        scene.level,
        scene.attributes["kind"],
        scene.caption,
        tuple(c.time_s for c in scene.contacts if c.visible),
        tuple(c.time_s for c in scene.contacts if c.audible),
        scene,
        **_said(scene.attributes),
        made_of=_made_of(scene.attributes),
        outside=any(c.audible and not c.visible for c in scene.contacts),
    )


def _said(attributes: Attributes) -> _Said:
    """Count, material, colour and floor as far as the caption mentions them; two things add up, and
    have no one material or colour, and a splash sounds of water."""
    mentioned = attributes["mentioned"]
    said: _Said = {
        "count": attributes["count"] if "count" in mentioned else None,
        "material": attributes["material"] if "material" in mentioned else None,
        "colour": attributes["colour"] if "colour" in mentioned else None,
        "floor": attributes["floor"] if "floor" in mentioned else None,
    }
    if "second" in attributes:
        if said["count"] is not None:
            said["count"] += attributes["second"]["count"]
        said["colour"] = None
    if "second" in attributes or attributes["kind"] == "splash":
        said["material"] = None
    return said


def _made_of(attributes: Attributes) -> str:
    if "second" in attributes:
        return "two things"
    return "water" if attributes["kind"] == "splash" else attributes["material"]


def rendered(case: Case, height: int, width: int) -> Clip:
    """The real clip of a case."""
    from syncflow import impacts

    return Clip(
        torch.from_numpy(impacts.render(case.scene, height, width)),
        torch.from_numpy(impacts.sound(case.scene)),
        case.scene.fps,
        case.scene.sample_rate,
        case.prompt,
    )


def _steps(count: int, batch: int, label: str, progress: bool) -> Iterable[int]:
    return bar(range(0, count, batch), desc=label, shown=progress, leave=False)


def generated(
    model: Model,
    prompts: Sequence[str],
    *,
    seed: int,
    batch: int,
    options: Mapping[str, object],
    video: Sequence[Tensor] | None = None,
    times: Sequence[Sequence[float]] | None = None,
    label: str = "generate",
    progress: bool = True,
) -> list[Clip]:
    """Clips of ``prompts`` in batches; every batch has the seed ``seed + its first index``.

    ``video``: pictures to set to sound (uint8 [F,3,H,W], one per prompt) instead. ``times``: of
    contacts, that each prompt's clip is asked for. Of several takes the first, which is the best.
    """
    clips: list[Clip] = []
    takes = cast(int, options.get("audio_takes", 1))
    for first in _steps(len(prompts), batch, label, progress):
        part = slice(first, first + batch)
        extra: dict[str, object] = {} if video is None else {"video": list(video[part])}
        if times is not None:
            extra["contacts"] = [list(asked) for asked in times[part]]
        given = {**options, **extra, "seed": seed + first, "progress": False}
        made = model.generate(list(prompts[part]), **cast("GenerateOptions", given))
        if len(made) != takes * len(prompts[part]):
            raise ValueError(f"asked for {len(prompts[part])} clips, the model made {len(made)}")
        clips += made[::takes]
    return clips


def reconstructed(model: Model, clips: Sequence[Clip], progress: bool = True) -> list[Clip]:
    """Every clip through both VAEs and back."""
    return [model.reconstruct(clips[i]) for i in _steps(len(clips), 1, "reconstruct", progress)]


def is_finite(clip: Clip) -> bool:
    """Whether every sample of a clip's sound is a number: what is none would pass for silence."""
    return bool(torch.isfinite(clip.audio).all())


def finite(
    cases: Sequence[Case], made: Mapping[str, Sequence[Clip]]
) -> tuple[list[Case], dict[str, list[Clip]], dict[str, str]]:
    """The cases whose sound is finite in every system, and their clips; of the others, level and
    seed -> whose is not.

    Raises:
        ValueError: fewer than two are left.
    """
    wrong = {
        index: [name for name, clips in made.items() if not is_finite(clips[index])]
        for index in range(len(cases))
    }
    left = [index for index, names in wrong.items() if not names]
    left_out = {
        f"level {cases[index].level}, seed {cases[index].seed}": f"not finite: {', '.join(names)}"
        for index, names in wrong.items()
        if names
    }
    if len(left) < 2:
        where, why = next(iter(left_out.items()))
        raise ValueError(f"{len(left)} of {len(cases)} clips can be measured; {where}: {why}")
    part = {name: [clips[index] for index in left] for name, clips in made.items()}
    return [cases[index] for index in left], part, left_out


def load_probes(
    cache: Path, levels: Sequence[int], given: tuple[ProbeSettings, ProbeSettings] | None = None
) -> Judges:
    """The probes of material, colour and kind, kept in the folder ``cache`` so that reports share
    them; ``given``: settings of the first two, of which the third follows the first."""
    plain = ProbeSettings(levels=tuple(levels))
    if max(levels) == 1:
        first, second = given or (plain, replace(plain, clips=800, epochs=20, rate=5e-3))
    else:
        first, second = given or (plain, replace(plain, clips=500, epochs=10, rate=4e-3))
    third = first if given else replace(first, clips=800, epochs=8)
    return Judges(materials.load(cache, first), looks.load(cache, second), kinds.load(cache, third))


def observe(
    clips: Sequence[Clip], material: Probe, colour: Probe, kind: Probe | None = None
) -> list[Observation]:
    """Contacts, onsets, material, colour and kind of every clip, from pixels and samples alone."""
    heard = materials.predict(material, [clip.audio for clip in clips])
    seen = looks.predict(colour, [clip.video for clip in clips])
    happens = kinds.predict(kind, [clip.video for clip in clips]) if kind else None
    return [
        Observation(
            contacts.times(clip.video, clip.fps),
            onsets.times(clip.audio, clip.sample_rate),
            heard[index],
            seen[index],
            envelopes.correlation(
                envelopes.picture(clip.video, clip.fps),
                envelopes.sound(clip.audio, clip.sample_rate, clip.fps),
            ),
            float(20 * torch.log10(clip.audio.float().square().mean().sqrt() + 1e-6)),
            measured_lufs(clip.audio, clip.sample_rate),
            (
                second.contacts(clip.video, clip.fps),
                second.onsets(clip.audio, clip.sample_rate),
            )
            if second.installed()
            else None,
            happens[index] if happens else None,
        )
        for index, clip in enumerate(clips)
    ]


def media_files(media: Sequence[str | Path], seconds: float) -> list[Path]:
    """The files ``media``, and those of the folders among them, each of at least ``seconds`` s.

    Raises:
        FileNotFoundError: a path that does not exist, or nothing that can be read. ValueError: a
            file that is no film, or too short.
    """
    from syncflow.data import media as containers

    for path in map(Path, media):
        if not path.exists():
            raise FileNotFoundError(f"no such file or folder: '{path}'")
    files = [
        file
        for path in map(Path, media)
        for file in (sorted(path.iterdir()) if path.is_dir() else [path])
        if file.suffix.lower() in (".mp4", ".mkv", ".webm", ".mov")
    ]
    if not files:
        raise FileNotFoundError(f"no mp4, mkv, webm or mov among {[str(m) for m in media]}")
    for file in files:
        length = containers.probe(file).seconds
        if length < seconds - 0.05:
            raise ValueError(f"'{file}' lasts {length:.2f} s; at least {seconds:g} s are needed")
    return files


def windows(media: Sequence[str | Path], count: int, clip: Clip) -> list[Clip]:
    """``count`` windows, evenly spread over the files ``media`` (or the files of a folder), cut to
    the length, rate and size of ``clip``."""
    from syncflow.data import media as containers

    files = media_files(media, clip.seconds)
    result = []
    height, width = clip.video.shape[2:]
    for index, file in enumerate(files):
        share = count // len(files) + (index < count % len(files))
        room = max(0.0, containers.probe(file).seconds - clip.seconds)
        for part in range(share):
            start = room * (part + 0.5) / share
            result.append(
                Clip.load(file, clip.fps, clip.sample_rate, start, clip.seconds, height, width)
            )
    return result
