"""Many clips at once: mp4 files or raw shards with their captions and contact times, and the
reader of the shards.

A folder holds `dataset.json` (how it was made), `metadata.jsonl` (one line a clip) and the clips.
A clip's seed is the first seed of its split plus `seed` plus its number, so two folders overlap
exactly where their seed ranges do.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from syncflow import durable
from syncflow.clip import FPS, SAMPLE_RATE, SECONDS
from syncflow.data import impacts_files, json_lines, processes
from syncflow.data.impacts_files import Clip, Plan, array
from syncflow.impacts.render import render
from syncflow.impacts.scene import Scene
from syncflow.impacts.sound import sound
from syncflow.progress import bar
from syncflow.ranges import Whole

_WORKERS = Whole(1, 4096, "processes")


def planned(container: str, **settings: object) -> Plan:
    """The plan of these settings; length and rates are the paper's where they are not among them.

    Raises:
        ValueError: it cannot be made; the message names the setting.
    """
    usual = {"fps": FPS, "seconds": SECONDS, "sample_rate": SAMPLE_RATE}
    plan = Plan.parse({**usual, **settings, "container": container}, "impacts")
    plan.check()
    return plan


def iterate(
    clips: int,
    seed: int = 0,
    level: int = 1,
    split: str = "train",
    height: int = 64,
    width: int = 64,
    fps: float = FPS,
    seconds: float = SECONDS,
    sample_rate: int = SAMPLE_RATE,
) -> Iterator[tuple[Scene, np.ndarray, np.ndarray]]:
    """Clips made on the fly: (scene, video uint8 [F, 3, H, W], audio float32 [M])."""
    plan = planned(
        "shards", clips=clips, seed=seed, level=level, split=split, height=height, width=width,
        fps=fps, seconds=seconds, sample_rate=sample_rate,
    )  # fmt: skip
    for number in range(clips):
        scene = plan.scene(number)
        yield scene, render(scene, height, width), sound(scene)


def write_dataset(
    out: str | os.PathLike[str],
    clips: int,
    seed: int = 0,
    level: int = 1,
    split: str = "train",
    height: int = 64,
    width: int = 64,
    fps: float = FPS,
    seconds: float = SECONDS,
    sample_rate: int = SAMPLE_RATE,
    workers: int | None = None,
    container: str = "mp4",
    progress: bool = True,
    materials: str = "level",
) -> Path:
    """Writes a folder of clips and returns its path; what a cut-off run finished is kept, and
    only the rest is made.

    container: "mp4" for one H.264 + AAC file a clip, or "shards" for raw `shard_00000.video.npy`
    uint8 [N, F, 3, H, W] and `shard_00000.audio.npy` int16 [N, M] of 256 clips each. workers:
    processes, by default one a core; more than one needs the usual `if __name__ == "__main__"` in
    a calling script. materials: "all" has ``impacts.of_any_material`` of level 1's scenes.

    Raises:
        ValueError: settings that cannot be made, or a folder that holds clips of other settings.
    """
    plan = planned(
        container, clips=clips, seed=seed, level=level, split=split, height=height, width=width,
        fps=fps, seconds=seconds, sample_rate=sample_rate, materials=materials,
    )  # fmt: skip
    workers = None if workers is None else _WORKERS.check("workers", workers)
    folder = Path(out)
    _claim(folder, plan)
    jobs = _missing(folder, plan)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers = min(workers or cores or 1, max(len(jobs), 1))
    done = plan.clips - sum(len(job) for job in jobs)
    with bar(total=plan.clips, initial=done, desc="render", unit="clip", shown=progress) as shown:
        if workers == 1:
            for job in jobs:
                shown.update(_make(folder, plan, job))
        else:
            # Closed at once when the bar itself is interrupted.
            with closing(processes.run(partial(_make, folder, plan), jobs, workers)) as results:
                for done in results:
                    shown.update(done)
    _write_metadata(folder)
    return folder


def _claim(folder: Path, plan: Plan) -> None:
    """Makes the folder, or sees that it is a part of the same data set; a greater number of clips
    continues it.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give a folder to write the clips to")
    folder.mkdir(parents=True, exist_ok=True)
    card = folder / "dataset.json"
    wanted = plan.model_dump()
    if card.exists():
        found = Plan.load(card).model_dump()
        other = {k: found.get(k) for k in wanted if k != "clips" and found.get(k) != wanted[k]}
        if other:
            was = ", ".join(f"{k} {v} (now {wanted[k]})" for k, v in other.items())
            raise ValueError(f"{folder} holds clips made with {was}; give another folder")
        wanted["clips"] = max(plan.clips, found["clips"])
    elif any(folder.iterdir()):
        raise ValueError(
            f"{folder} is not empty and was not made by this command; give another folder"
        )
    durable.write_text(card, json.dumps(wanted, indent=1) + "\n")


def _missing(folder: Path, plan: Plan) -> list[range]:
    """The clips still to be made: one a job for mp4, one shard a job otherwise."""
    if plan.container == "mp4":
        return [range(i, i + 1) for i in range(plan.clips) if not (folder / plan.file(i)).exists()]
    jobs = []
    for first in range(0, plan.clips, impacts_files.SHARD):
        job = range(first, min(first + impacts_files.SHARD, plan.clips))
        # The sound is renamed last, so a shard with a sound of the right length is complete.
        done = folder / f"{plan.file(first)}.audio.npy"
        if _rows(done, plan) < len(job):
            jobs.append(job)
    return jobs


def _rows(path: Path, plan: Plan) -> int:
    """Of a shard's sounds; 0 where there is none yet, or it is damaged and was put aside."""
    try:
        return len(array(path, np.int16, plan.audio_shape))
    except FileNotFoundError:
        return 0
    except ValueError:
        durable.put_aside(path)
        return 0


def _make(folder: Path, plan: Plan, job: range) -> int:
    if plan.container == "mp4":
        import torch

        from syncflow.data import media

        for number in job:
            processes.check_stopped()
            scene = plan.scene(number)
            video = torch.from_numpy(render(scene, plan.height, plan.width))
            audio = torch.from_numpy(sound(scene))
            media.write(folder / plan.file(number), video, audio, plan.fps, plan.sample_rate)
        return len(job)
    stem = plan.file(job[0])
    with (  # the last to be opened has its name first
        durable.replacing(folder / f"{stem}.audio.npy") as audio_part,
        durable.replacing(folder / f"{stem}.video.npy") as video_part,
    ):
        videos = open_memmap(video_part, "w+", np.uint8, (len(job), *plan.video_shape))
        audios = open_memmap(audio_part, "w+", np.int16, (len(job), *plan.audio_shape))
        for row, number in enumerate(job):
            processes.check_stopped()
            scene = plan.scene(number)
            videos[row] = render(scene, plan.height, plan.width)
            audios[row] = np.rint(sound(scene) * 32767)
        videos.flush()
        audios.flush()
    return len(job)


def _write_metadata(folder: Path) -> None:
    """Of all clips that are there: a run for more of them may have been cut off before."""
    card = folder / "dataset.json"
    plan = Plan.load(card)
    missing = _missing(folder, plan)
    total = missing[0].start if missing else plan.clips
    if total < plan.clips:
        durable.write_text(card, json.dumps({**plan.model_dump(), "clips": total}, indent=1) + "\n")
    lines = []
    for number in range(total):
        scene = plan.scene(number)
        entry: dict[str, object] = {"file": plan.file(number)}
        if plan.container == "shards":
            entry["row"] = number % impacts_files.SHARD
        entry |= {
            "caption": scene.caption,
            "contacts": [dataclasses.asdict(c) for c in scene.contacts],
            "attributes": scene.attributes,
            "seed": scene.seed,
            "level": scene.level,
            "split": scene.split,
        }
        lines.append(json.dumps(entry))
    durable.write_text(folder / "metadata.jsonl", "\n".join(lines) + "\n")


class Shards:
    """A folder of shards, memory-mapped: `len`, and `[i]` as a dict of one clip; nothing is read
    before it is asked for.

    `metadata` is the list of the lines of metadata.jsonl; `video` uint8 [F, 3, H, W] and `audio`
    float32 [M] of a clip are in the order of it. `plan` is what dataset.json says.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        card, lines = self.folder / "dataset.json", self.folder / "metadata.jsonl"
        if not card.exists() or not lines.exists():
            raise ValueError(f"{self.folder} holds no complete data set (no {lines.name})")
        self.plan = Plan.load(card)
        if self.plan.container != "shards":
            raise ValueError(f"{self.folder} holds {self.plan.container} files, not shards")
        self.metadata = list(json_lines.read(lines))
        for number, entry in enumerate(self.metadata, start=1):
            Clip.parse(entry, f"'{lines}', line {number}")
        stems = sorted({entry["file"] for entry in self.metadata})
        self._video = [
            array(self.folder / f"{stem}.video.npy", np.uint8, self.plan.video_shape)
            for stem in stems
        ]
        self._audio = [
            array(self.folder / f"{stem}.audio.npy", np.int16, self.plan.audio_shape)
            for stem in stems
        ]
        for name, arrays in (("pictures", self._video), ("sounds", self._audio)):
            rows = sum(map(len, arrays))
            if rows < len(self.metadata):
                raise ValueError(f"{self.folder} has {rows} {name} for {len(self.metadata)} clips")

    def __len__(self) -> int:
        return len(self.metadata)

    def video(self, index: int) -> np.ndarray:
        """uint8 [F, 3, H, W], a view of the file."""
        shard, row = divmod(index, impacts_files.SHARD)
        return self._video[shard][row]

    def audio(self, index: int) -> np.ndarray:
        """float32 [M] in [-1, 1]."""
        shard, row = divmod(index, impacts_files.SHARD)
        return self._audio[shard][row].astype(np.float32) / 32767

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        return {**self.metadata[index], "video": self.video(index), "audio": self.audio(index)}


def read_shards(folder: str | os.PathLike[str]) -> Shards:
    """Opens what `write_dataset(..., container="shards")` wrote; ValueError where it is not there
    or not finished.
    """
    return Shards(folder)
