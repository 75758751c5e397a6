"""Clips of impacts from all cores, through shared memory.

A slot holds a few clips. A worker takes a free one, fills it and says so; whoever reads it gives it
back. The memory is an anonymous mapping that the workers inherit, so pixels are never copied
between processes.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.gpu.small.plan import CAPTIONS, EVENTS, SPEC, Plan
from syncflow import impacts
from syncflow.impacts import unknown_words
from syncflow.impacts.scene import Scene

#: Clips of one slot.
CLIPS = 4
#: Where the training seeds begin that the shipped model has never seen.
FIRST_SEED = 5_000_000
_VIDEO = (SPEC.num_frames, 3, SPEC.height, SPEC.width)
_AUDIO = (SPEC.num_samples,)
_BYTES = CLIPS * (int(np.prod(_VIDEO)) + 2 * int(np.prod(_AUDIO)))
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ of Linux
#: Share of the text encoder's captions in which unknown words stand for some (docs/log.md).
_UNKNOWN = 0.7
_PLAIN_KINDS = ("bounce", "roll", "pair")
_NUMERALS = {
    "once": "1 time",
    "twice": "2 times",
    "thrice": "3 times",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "a single": "one",
}


@dataclass(frozen=True)
class Record:
    """What is known of a clip besides picture and sound: ``captions`` say the same in CAPTIONS
    ways, ``events_s`` are the seconds of the contacts in the picture."""

    level: int
    kind: str
    held_out: bool
    captions: list[str]
    events_s: list[float]


@dataclass(frozen=True)
class Lesson:
    """A caption and the number of each attribute that it mentions, -100 for those it does not."""

    caption: str
    labels: list[int]


@dataclass
class Arrival:
    """A filled slot; ``video`` uint8 [n, F, 3, H, W] and ``audio`` int16 [n, M] are views of it."""

    slot: int
    records: list[Record]
    video: np.ndarray
    audio: np.ndarray


@dataclass
class World:
    """Starts the workers; ``poll`` gives what they have made since, ``release`` its slot back."""

    plan: Plan
    workers: int
    seed: int = 0
    lessons: list[Lesson] = field(default_factory=list)
    waiting: list[Arrival] = field(default_factory=list)
    clips: int = 0

    def start(self) -> World:
        """Forks, so it must come before CUDA and before any thread."""
        context = multiprocessing.get_context("fork")
        self._memory = mmap.mmap(-1, self.plan.slots * _BYTES)
        self._free, self._done = context.SimpleQueue(), context.SimpleQueue()
        # Workers must not wait for a reader that is busy with the GPU for a second or two.
        fcntl.fcntl(self._done._writer.fileno(), _SET_PIPE_SIZE, 1 << 20)
        for slot in range(self.plan.slots):
            self._free.put(slot)
        self._processes = [
            context.Process(target=self._work, args=(number,), daemon=True)
            for number in range(self.workers)
        ]
        for process in self._processes:
            process.start()
        return self

    def poll(self) -> list[Arrival]:
        """Slots filled since the last call; lessons go to ``lessons``.

        Raises:
            RuntimeError: no worker is left; the first failure is in the message.
        """
        arrivals, self.waiting = self.waiting, []
        while not self._done.empty():
            slot, found = self._done.get()
            if slot is None:
                if isinstance(found, str):
                    raise RuntimeError(f"a rendering process failed: {found}")
                self.lessons += found
                continue
            video, audio = _views(self._memory, slot)
            self.clips += len(found)
            arrivals.append(Arrival(slot, found, video[: len(found)], audio[: len(found)]))
        if not any(process.is_alive() for process in self._processes):
            raise RuntimeError("no rendering process is left")
        return arrivals

    def wait(self, ready: Callable[[], bool], seconds: float) -> bool:
        """Polls until something is ``ready``, at most so long; the clips stay in ``waiting``."""
        end = time.monotonic() + seconds
        while not ready() and time.monotonic() < end:
            self.waiting = self.poll()
            time.sleep(0.02)
        return ready()

    def release(self, arrival: Arrival) -> None:
        """Gives an arrival's memory back to the workers."""
        self._free.put(arrival.slot)

    def stop(self) -> None:
        """Ends the workers."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join(timeout=5)

    def _work(self, worker: int) -> None:
        """A worker: lessons, its share of the held-out clips, then training clips without end."""
        _die_with_parent()
        try:
            rng = np.random.default_rng([self.seed, 1, worker])
            count = self.plan.captions_first
            first = FIRST_SEED + (self.seed * self.workers + worker) * count
            self._done.put((None, [lesson(first + i, self.plan.levels, rng) for i in range(count)]))
            mine = range(worker, self.plan.held_out, self.workers)
            for start in range(0, len(mine), CLIPS):
                self._fill([self._held_out(number) for number in mine[start : start + CLIPS]])
            number = worker
            while True:
                scenes = []
                while len(scenes) < CLIPS:
                    scene = self._scene(number)
                    number += self.workers
                    scenes += [scene] if scene is not None else []
                self._fill([(scene, False) for scene in scenes])
        except Exception as error:
            self._done.put((None, f"{type(error).__name__}: {error}"))

    def _held_out(self, number: int) -> tuple[Scene, bool]:
        seed = impacts.SEEDS["val"].start + 200_000 + number
        return impacts.sample_scene(seed, level=1 + number % 4), True

    def _scene(self, number: int) -> Scene | None:
        """A training scene, or None where strikes and splashes are to come more often."""
        rng = np.random.default_rng([self.seed, 2, number])
        level = 1 + int(rng.choice(4, p=self.plan.levels))
        seed = FIRST_SEED + self.seed * 1_000_000 + number
        scene = impacts.sample_scene(seed, level)
        often = scene.attributes["kind"] in _PLAIN_KINDS
        return None if level > 1 and often and rng.random() < 0.25 else scene

    def _fill(self, scenes: list[tuple[Scene, bool]]) -> None:
        slot = self._free.get()
        video, audio = _views(self._memory, slot)
        records = []
        for row, (scene, held_out) in enumerate(scenes):
            video[row] = impacts.render(scene, SPEC.height, SPEC.width)
            wave = np.clip(impacts.sound(scene), -1, 1)
            audio[row] = np.round(32767 * wave).astype(np.int16)
            records.append(record(scene, held_out))
        self._done.put((slot, records))


def record(scene: Scene, held_out: bool = False) -> Record:
    """The record of a scene; its captions are drawn from the scene's own seed."""
    rng = np.random.default_rng([scene.seed, scene.level, 77])
    texts = [scene.caption]
    while len(texts) < CAPTIONS:
        text, _ = impacts.caption(scene.attributes, rng, scene.split)
        texts.append(in_other_words(text, rng))
    times = [contact.time_s for contact in scene.contacts if contact.visible][:EVENTS]
    return Record(scene.level, scene.attributes["kind"], held_out, texts, times)


def lesson(seed: int, levels: tuple[float, ...], rng: np.random.Generator) -> Lesson:
    """A caption of a fresh scene and what it mentions."""
    scene = impacts.sample_scene(seed, level=1 + int(rng.choice(4, p=levels)))
    text, mentioned = impacts.caption(scene.attributes, rng, scene.split)
    if rng.random() < _UNKNOWN:
        text, mentioned = unknown_words.put_in(text, scene.attributes, mentioned, rng)
    labels = [
        values.index(scene.attributes[name])
        if name in mentioned and scene.attributes.get(name) in values
        else -100
        for name, values in impacts.attribute_values(4).items()
    ]
    return Lesson(in_other_words(text, rng), labels)


def in_other_words(text: str, rng: np.random.Generator) -> str:
    """The same sentence, now and then with numerals for number words."""
    if rng.random() < 0.75:
        return text
    words = re.compile(r"\b(" + "|".join(_NUMERALS) + r")\b", re.IGNORECASE)
    return words.sub(lambda found: _NUMERALS[found[0].lower()], text)


def _views(memory: Any, slot: int) -> tuple[np.ndarray, np.ndarray]:
    at, pixels = slot * _BYTES, CLIPS * int(np.prod(_VIDEO))
    video = np.frombuffer(memory, np.uint8, pixels, at).reshape(CLIPS, *_VIDEO)
    audio = np.frombuffer(memory, np.int16, CLIPS * _AUDIO[0], at + pixels)
    return video, audio.reshape(CLIPS, *_AUDIO)


def _die_with_parent() -> None:
    """A worker whose parent was killed must not go on for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    except (OSError, AttributeError):
        return
    if os.getppid() == 1:
        os._exit(1)
