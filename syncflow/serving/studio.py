"""What the demo's buttons do, without the page: files in, files out, within limits."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack, cast

from syncflow.clip import Clip
from syncflow.data import media
from syncflow.faults import Cancelled
from syncflow.generation import foreign
from syncflow.generation.pipeline import SyncFlow
from syncflow.generation.remarks import vocabulary
from syncflow.generation.remarks.plot import plot
from syncflow.generation.remarks.preview import Show

if TYPE_CHECKING:
    from PIL.Image import Image

    from syncflow.generation.arguments import GenerateOptions


#: What one request may ask for: soundtracks, steps, letters of a text, seconds of a given video,
#: how many times as long as the model's own clips, and bytes of an upload.
MOST_TAKES, MOST_STEPS, MOST_LETTERS, MOST_SECONDS, MOST_TIMES = 4, 200, 500, 20.0, 3
MOST_BYTES = 50 * 2**20
#: Seconds for which files stay, and between two looks for older ones.
KEPT_SECONDS, SWEPT_EVERY = 3600.0, 60.0
#: JavaScript holds whole numbers up to here.
MOST_SEED = 2**53 - 1

#: Steps from one preview to the next.
SHOWN_EVERY = 5

Report = Callable[[float], None]
Look = Callable[["Image"], None]


class Options(TypedDict, total=False):
    """What may be asked for beside a text; None or "" = as the model has it. ``look``: given a
    picture (PIL) of the clip every few steps; ``stop``: ends it with ``Cancelled`` once set."""

    report: Report | None
    look: Look | None
    stop: threading.Event | None
    seed: float
    takes: float
    guidance: float | None
    steps: float | None
    seconds: float | None
    negative_audio_prompt: str
    contacts: str


class _Given(TypedDict, total=False):
    video: str
    image: str


@dataclass(frozen=True)
class Take:
    """A clip's file, the drawing of its sync, and a line about it."""

    clip: Path
    plot: Path
    told: str


class Studio:
    """Makes clips, one request at a time, into a folder of its own.

    ``shows`` tells whether clips can be looked at while they are drawn: whether the model has a
    preview map. Files older than ``kept`` seconds are deleted, uploads among them, and the folder
    by ``close``.
    """

    def __init__(
        self, model: SyncFlow, kept: float = KEPT_SECONDS, every: float = SWEPT_EVERY
    ) -> None:
        self.model, self.kept = model, kept
        self.folder = Path(tempfile.mkdtemp(prefix="syncflow-demo-"))
        #: Where the page puts uploads and what it shows.
        self.uploads = self.folder / "page"
        self._made = self.folder / "made"
        for folder in (self.uploads, self._made):
            folder.mkdir()
        self.shows = _has_previews(model)
        self._count, self._stops = 0, dict[str, threading.Event]()
        self._busy, self._closed = threading.Lock(), threading.Event()
        threading.Thread(target=self._sweep_often, args=(every,), daemon=True).start()

    def close(self) -> None:
        """Removes every file."""
        self._closed.set()
        shutil.rmtree(self.folder, ignore_errors=True)

    def sweep(self) -> None:
        """Removes the files that are older than ``kept`` seconds, and empty folders as old: a
        younger one may be about to get its file."""
        oldest = time.time() - self.kept
        for path in sorted(self.folder.rglob("*"), reverse=True):  # files before their folders
            if path in (self.uploads, self._made):
                continue
            try:
                if path.lstat().st_mtime < oldest:
                    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
            except OSError:  # somebody was faster, or the folder is not empty
                continue

    def _sweep_often(self, every: float) -> None:
        while not self._closed.wait(every):
            self.sweep()

    def stop(self, client: str | None) -> None:
        """Ends what is being made for a client, if anything is."""
        if client is not None and (stop := self._stops.get(client)) is not None:
            stop.set()

    @contextmanager
    def stoppable(self, client: str | None) -> Iterator[threading.Event]:
        """What is set when the client says stop, or leaves this context."""
        stop = threading.Event()
        if client is not None:
            self._stops[client] = stop
        try:
            yield stop
        finally:
            stop.set()
            if client is not None and self._stops.get(client) is stop:
                del self._stops[client]

    def clip(self, prompt: str, **options: Unpack[Options]) -> list[Take]:
        """Clips of a sentence, the best first; ``report`` is told how much is done, 0 to 1.

        Raises:
            ValueError: a text or number out of range, in one line. Cancelled: ``stop`` was set.
        """
        return self._takes(prompt, **options)

    def from_frame(
        self,
        image: str | Path | None,
        prompt: str,
        **options: Unpack[Options],
    ) -> list[Take]:
        """The same, beginning with the picture in a file."""
        return self._takes(prompt, image=self._given(image, "an image"), **options)

    def sound(
        self,
        video: str | Path | None,
        prompt: str,
        **options: Unpack[Options],
    ) -> list[Take]:
        """The video with sounds made for it, its picture copied bit for bit."""
        path = self._given(video, "a video")
        if (media.probe(path).seconds or 0) > MOST_SECONDS:
            options["seconds"] = MOST_SECONDS
        return self._takes(prompt, video=path, **options)

    def _given(self, path: str | Path | None, what: str) -> str:
        if not path:
            raise ValueError(f"choose {what} first")
        if Path(path).stat().st_size > MOST_BYTES:
            raise ValueError(f"the file is larger than {MOST_BYTES // 2**20} MB")
        return str(path)

    def _takes(
        self,
        prompt: str,
        *,
        report: Report | None = None,
        look: Look | None = None,
        stop: threading.Event | None = None,
        seed: float = 0,
        takes: float = 1,
        guidance: float | None = None,
        steps: float | None = None,
        seconds: float | None = None,
        negative_audio_prompt: str = "",
        contacts: str = "",
        **given: Unpack[_Given],
    ) -> list[Take]:
        texts = {
            "prompt": prompt,
            "negative audio prompt": negative_audio_prompt,
            "contacts": contacts,
        }
        for name, text in texts.items():
            if not isinstance(text, str) or len(text) > MOST_LETTERS:
                raise ValueError(f"the {name} must be a text of at most {MOST_LETTERS} characters")
        config, most = self.model.config, MOST_SECONDS
        if "video" not in given:
            most = MOST_TIMES * config.geometry.seconds
        options: dict[str, object] = {
            "seed": _number("seed", seed, 0, MOST_SEED, whole=True),
            "negative_audio_prompt": negative_audio_prompt.strip() or None,
            "progress": False,
        }
        sounds = int(_number("takes", takes, 1, MOST_TAKES, whole=True))
        for name, value, low, high in (
            ("guidance", guidance, 0, 30),
            ("steps", steps, 1, MOST_STEPS),
            ("seconds", seconds, 0.1, most),
        ):
            if value is not None:
                options[name] = _number(name, value, low, high, whole=name == "steps")
        options = {name: value for name, value in options.items() if value is not None}
        if contacts.strip():
            options["contacts"] = _times(contacts)
        if report is not None or stop is not None:
            options["callback"] = _after_step(report, stop)
        if look is not None and self.shows:
            options["preview"] = _shown_to(look)
            options["preview_every"] = SHOWN_EVERY
        prompt = " ".join(prompt.split())
        asked = cast("GenerateOptions", {**options, **given})
        with self._busy:
            made = self.model.generate(prompt, audio_takes=sounds, **asked)
            self._count += 1
            number = self._count
        clips = made if isinstance(made, list) else [made]
        return [self._saved(clip, f"{number}-{take}") for take, clip in enumerate(clips, start=1)]

    def _saved(self, clip: Clip, name: str) -> Take:
        path = self._made / f"{name}.mp4"
        try:
            clip.save(path)
        except ValueError:  # a codec that mp4 cannot hold
            path = clip.save(path.with_suffix(".mkv"))
        scores = ", ".join(f"{key} {value:.2f}" for key, value in (clip.scores or {}).items())
        told = f"{clip.seconds:g} s" + (f", {scores}" if scores else "")
        return Take(path, plot(clip, path.with_suffix(".png")), told)

    def remarks(
        self,
        prompt: str,
        seconds: float | None = None,
        video: str | Path | None = None,
        image: str | Path | None = None,
    ) -> list[str]:
        """What of a request is beyond what the model learned."""
        said = vocabulary.remarks(self.model.config, [prompt], seconds)
        with self._busy:
            said += foreign.remarks(self.model, [video], image)
        return [line.replace("; see --vocabulary", "") for line in said]


def _has_previews(model: SyncFlow) -> bool:
    try:
        model.preview_map()
    except ValueError:
        return False
    return True


def _after_step(report: Report | None, stop: threading.Event | None) -> Callable[..., None]:
    def after(step: int, x: object, t: tuple[float, ...]) -> None:
        if stop is not None and stop.is_set():
            raise Cancelled
        if report is not None:
            report(sum(map(float, t)) / len(t))

    return after


def _shown_to(look: Look) -> Show:
    return lambda preview: look(preview.image())


def _times(text: str) -> list[float]:
    """Seconds with commas between them."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            f"contacts must be seconds with commas between them, such as 0.4, 1.1, got {text!r:.40}"
        ) from None


def _number(name: str, value: object, low: float, high: float, whole: bool = False) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"{name} must be a number from {low:g} to {high:.16g}, got {value!r:.40}")
    if whole and value != int(value):
        raise ValueError(f"{name} must be a whole number, got {value!r:.40}")
    return int(value) if whole else float(value)
