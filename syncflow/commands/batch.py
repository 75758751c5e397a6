"""What ``syncflow generate`` makes, piece by piece: planned and checked before anything is sampled.

Pieces do not depend on what is there already, so that a run that goes on writes the same bytes as
one that was never interrupted.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from syncflow.clip import FPS, SAMPLE_RATE, VIDEO_STRIDE, Clip
from syncflow.commands import inputs, output_paths
from syncflow.commands.options import MOST_SECONDS
from syncflow.data import media
from syncflow.data.export import formats, loudness, scale, tags
from syncflow.generation import extension, memory, record
from syncflow.generation.pipeline import SyncFlow
from syncflow.json_types import JsonObject


@dataclass(frozen=True)
class Job:
    """One call of ``generate``: ``prompts`` from ``seed`` on, into ``paths``, prompt by prompt and
    take by take; ``video`` the film that gets a sound."""

    prompts: list[str]
    seed: int
    paths: list[Path]
    video: Path | None = None


@dataclass
class Batch:
    """The jobs, where their clips go, the files that are read, and what became of it: clips made,
    films ``given`` to them, files that were ``there`` already, films that were ``refused``, and
    ``facts`` about a clip.

    ``resumes``: files that are there and were made so are left as they are.
    """

    jobs: list[Job]
    plan: output_paths.Plan
    inputs: list[str | Path]
    resumes: bool = False
    count: int = 0
    there: int = 0
    refused: int = 0
    facts: str = ""
    given: list[str | Path] = dataclasses.field(default_factory=list)


def planned(args: argparse.Namespace) -> Batch:
    """What is to be made, as far as it can be told without a model.

    Raises:
        ValueError, OSError: an input is not there or not usable, or an output cannot be written.
    """
    words = inputs.prompts(args.prompts_file) if args.prompts_file else list(args.prompts)
    folder = Path(args.video) if args.video and Path(args.video).is_dir() else None
    films = inputs.films(folder) if folder else None
    prompts = inputs.one_each(words, films) if films else words or [""]
    takes = args.audio_takes
    video = Path(args.video) if args.video and not folder else None
    plan = output_paths.plan(args.out, prompts, takes, args.seed, films, args.sheet, video)
    read: list[str | Path] = [
        given for given in (args.image, args.extend, args.retake) if given is not None
    ]
    if args.prompts_file not in (None, "-"):
        read.append(args.prompts_file)
    if films:
        plan = output_paths.with_endings(plan, films, takes)
        read += films
    elif args.video:
        read.append(args.video)
    for film in (args.video if not films else None, args.extend, args.retake):
        if film:
            media.probe(film)
    plan.check()
    _check_video(args, plan)
    if not args.force:
        plan.check_inputs(read, 1, args.sheet)
    if args.sheet and plan.paths[0].parent.is_dir():
        media.check_folder(plan.sheet)
    scale.check(args.scale, _filter(args))
    if args.scale_filter and args.scale == 1:
        raise ValueError("--scale-filter says how --scale enlarges: give --scale too")
    if args.loudness is not None:
        loudness.check(args.loudness)
        silent = [path for path in plan.paths if not formats.holds_sound(path)]
        if silent:
            raise ValueError(f"--loudness sets that of the sound, and '{silent[0]}' has none")
    resumes = bool(films or args.prompts_file)
    return Batch(_jobs(args, prompts, plan, films), plan, read, resumes)


def _check_video(args: argparse.Namespace, plan: output_paths.Plan) -> None:
    """Raises where the sound made for a given video has no place, or its picture."""
    if not args.video:
        return
    silent = [path for path in plan.paths if not formats.holds_sound(path)]
    if silent:
        raise ValueError(f"'{silent[0]}' has no sound, and nothing else is made for --video")
    if not Path(args.video).is_dir():
        for ending in {path.suffix for path in plan.paths if formats.holds_film(path)}:
            output_paths.check_holds(Path(f"film{ending}"), Path(args.video))


def _jobs(
    args: argparse.Namespace,
    prompts: list[str],
    plan: output_paths.Plan,
    films: list[Path] | None,
) -> list[Job]:
    takes = args.audio_takes
    if args.extend:  # prompts go on in turn, so they are one call
        return [Job(prompts, args.seed, plan.paths)]
    if films:  # each as if it were given alone, so that new films in the folder change no others
        return [
            Job([prompts[i]], args.seed, plan.paths[i * takes : (i + 1) * takes], film)
            for i, film in enumerate(films)
        ]
    video = Path(args.video) if args.video else None
    return [
        Job(
            prompts[first : first + args.batch_size],
            args.seed + first,
            plan.paths[first * takes : (first + args.batch_size) * takes],
            video,
        )
        for first in range(0, len(prompts), args.batch_size)
    ]


def made(model: SyncFlow, work: Batch, options: JsonObject, args: argparse.Namespace) -> list[Clip]:
    """Generates and writes all; returns the clips where a contact sheet is asked for.

    Everything is checked against the model before the first clip is sampled. A film of a folder
    that cannot be used is told and left out.

    Raises:
        ValueError, OSError: as ``generate`` and ``Clip.save``.
    """
    jobs = []
    for job in work.jobs:
        asked = {**options, **({"video": job.video} if job.video else {})}
        wanted = record.planned(model, job.prompts, job.seed, **asked)
        try:
            _check(model, work, job, asked, wanted[0]["sampling"], args)
        except (ValueError, OSError) as error:
            _refuse(work, job, args, error)
            continue
        jobs.append((job, asked, [how | _finish(args) for how in wanted]))
    kept = []
    for job, asked, wanted in jobs:
        left = _left(work, job, wanted, args)
        if not left:
            kept += _finished(job, wanted) if args.sheet else []
            continue
        try:
            clips = model.generate(
                job.prompts, seed=job.seed, progress=not args.no_progress, **asked
            )
        except (ValueError, OSError) as error:
            _refuse(work, job, args, error)
            continue
        films = (job.video, args.extend, args.retake)
        work.given += [film for film in films if film and film not in work.given]
        work.plan.make()
        for clip, path, how in zip(clips, job.paths, wanted, strict=True):
            if path in left:
                _write(clip, path, how, args)
                work.count += 1
        work.facts = work.facts or _facts(clips[0], job, args)
        kept += clips if args.sheet or args.plot else []
    return kept


def _refuse(work: Batch, job: Job, args: argparse.Namespace, error: Exception) -> None:
    """Tells of a film of a folder; alone, it is the command's error."""
    if not (args.video and Path(args.video).is_dir()):
        raise error
    work.refused += 1
    print(f"syncflow: left out '{job.video}': {error}", file=sys.stderr)


def _check(
    model: SyncFlow,
    work: Batch,
    job: Job,
    options: JsonObject,
    sampling: JsonObject,
    args: argparse.Namespace,
) -> None:
    """Raises where a job's clips cannot be made, or not written."""
    spec = model.config.geometry.spec
    seconds = options.get("seconds")
    window = None
    if args.extend or args.retake:
        seconds = media.probe(args.extend or args.retake).seconds
    if args.extend:  # window by window of the model's own length
        window = spec
        more = options.get("seconds") or spec.seconds * (1 - extension.CONTEXT)
        seconds = (seconds or 0.0) + more * len(job.prompts)
    if job.video is not None:
        given = media.probe(job.video)
        if args.video and Path(args.video).is_dir():
            for path in job.paths:
                if formats.holds_film(path):
                    output_paths.check_holds(path, job.video)
        seconds = min(seconds or math.inf, given.seconds)
        if seconds > MOST_SECONDS and not args.force:
            raise ValueError(
                f"'{job.video}' lasts {seconds:.0f} s, and sound is made for at most "
                f"{MOST_SECONDS} s at once: give --seconds"
            )
    if seconds:
        frames = max(1, math.ceil(seconds * spec.fps / VIDEO_STRIDE[0])) * VIDEO_STRIDE[0]
        spec = dataclasses.replace(spec, seconds=frames / spec.fps)
    spec = spec.with_size(options.get("height"), options.get("width"))
    for path in job.paths:
        if path.parent.is_dir() or not formats.is_frames(path):
            formats.check_clip(path, spec.fps, spec.num_frames, spec.sample_rate)
    if not args.force:
        if args.image and any(map(formats.is_frames, job.paths)):  # now their number is known
            work.plan.check_inputs(work.inputs, spec.num_frames, args.sheet)
        guided = any(sampling.get(name, 1) != 1 for name in ("guidance", "audio_guidance"))
        together = 1 if window else len(job.prompts)
        memory.check(model, window or spec, together, args.audio_takes, guided)


def _filter(args: argparse.Namespace) -> scale.Filter:
    return args.scale_filter or scale.FILTERS[0]


def _finish(args: argparse.Namespace) -> record.Record:
    """What is done to a clip before it is written, as its file tells it."""
    told: record.Record = {}
    if args.scale > 1:
        told |= {"scale": args.scale, "scale_filter": _filter(args)}
    if args.loudness is not None:
        told["loudness"] = args.loudness
    return told


def _left(
    work: Batch, job: Job, wanted: list[record.Record], args: argparse.Namespace
) -> set[Path]:
    """The files of a job that are not there, or were made in another way."""
    if not work.resumes:
        return set(job.paths)
    left = set()
    for path, how in zip(job.paths, wanted, strict=True):
        first = formats.files(path, 1)[0]
        try:
            same = first.exists() and (args.no_metadata or tags.read(first) == how)
        except (ValueError, OSError):
            same = False
        if not same:
            left.add(path)
    work.there += len(job.paths) - len(left)
    return left


def _finished(job: Job, wanted: list[record.Record]) -> list[Clip]:
    """The clips of a job that is done, for the contact sheet, as their files have them; what is no
    film is told and left out."""
    clips = []
    for path, how in zip(job.paths, wanted, strict=True):
        try:
            told = media.probe(path)
            clip = Clip.load(path, told.fps or FPS, told.sample_rate or SAMPLE_RATE)
        except (ValueError, OSError):  # sound or picture alone, or damaged
            print(f"note: the contact sheet lacks '{path}', which was there", file=sys.stderr)
            continue
        clips.append(dataclasses.replace(clip, prompt=how["prompt"] or None))
    return clips


def _write(clip: Clip, path: Path, how: record.Record, args: argparse.Namespace) -> None:
    picture, sound, told = clip.video, clip.audio, ""
    if args.scale > 1:
        picture = scale.enlarge(picture, args.scale, _filter(args))
    if args.loudness is not None:
        sound, reached = loudness.normalise(sound, clip.sample_rate, args.loudness)
        if reached == -math.inf:
            told = f"{path}: silent or shorter than 0.4 s, so of no loudness"
        elif reached < args.loudness - 0.05:
            told = f"{path}: {reached:.1f} LUFS; louder, its peaks would clip"
    written = None if args.no_metadata else how
    dataclasses.replace(clip, video=picture, audio=sound, made=written).save(path)
    if told:
        print(told, file=sys.stderr)
    found = clip.scores or {}
    if "candidate" in found:
        print(_drawn(found, path), file=sys.stderr)
        found = {}
    scores = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
    print(f"{path}  {scores}" if scores else path, flush=True)


def _drawn(scores: Mapping[str, float], path: Path) -> str:
    """Which candidate a clip is, in words."""
    verdict = "agrees" if scores["agrees"] else "is the nearest; none agreed"
    return (
        f"{path}: candidate {scores['candidate']:.0f} {verdict}: {scores['contacts']:.0f} contacts "
        f"seen, {scores['onsets']:.0f} onsets heard, agreement {scores['agreement']:.2f}"
    )


def _facts(clip: Clip, job: Job, args: argparse.Namespace) -> str:
    height, width = (size * args.scale for size in clip.video.shape[2:])
    length, fps = clip.seconds, clip.fps
    if clip.picture_file is not None and formats.holds_sound(job.paths[0]):
        given = media.probe(clip.picture_file)  # copied at its own rate and size, not the model's
        height, width = given.height, given.width
        length, fps = args.seconds or given.seconds or length, given.fps or fps
    return f"{length:g} s, {width}x{height} at {fps:g} fps, {clip.sample_rate} Hz"
