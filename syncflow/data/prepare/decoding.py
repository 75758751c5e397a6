"""One segment of a file -> its windows, or why there are none. Runs in worker processes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import torch

from syncflow.clip import ClipSpec
from syncflow.data import media
from syncflow.data.manifest import RecordLine, SkippedLine
from syncflow.data.prepare import captions, filters, windows
from syncflow.data.prepare.cuts import cuts
from syncflow.data.prepare.sources import Source

#: Why a window or a segment was left out.
REASONS = {
    "missing": "there is no such file",
    "damaged": "the file is damaged, cut short or not a video",
    "too short": "shorter than a window",
    "scene cuts": "no window fits between two scene cuts",
    "no caption": "nothing says what is to be seen",
    "unreadable caption": "what should say it is no text",
    "no audio": "the file has no sound",
    "silent": "the window is silent",
    "static": "the picture stands still",
    "not finite": "the encoders gave no finite numbers",
    "crashed": "decoding it ended the process, or took too long",
}
#: Height and width of the picture that a captioning model sees, px.
_STILL = 384


@dataclass
class Window:
    """``video`` uint8 [F,3,H,W], ``audio`` float32 [M], and the record that goes with them; the
    ``still`` uint8 [H,W,3] for a captioning model."""

    video: np.ndarray
    audio: np.ndarray
    record: RecordLine
    still: np.ndarray | None = None


@dataclass
class Decoded:
    windows: list[Window] = field(default_factory=list)
    skipped: list[SkippedLine] = field(default_factory=list)


@dataclass(frozen=True)
class Decoder:
    """Cuts windows out of segments.

    Args:
        root: folder that the sources' file names start from.
        spec: geometry of a window.
        random: windows at random places (by ``seed`` and the segment's name), or at fixed ones.
        per_segment: at most so many windows; None: as many as fit side by side.
        keep: of ``prepare_options.KEEPABLE``, what is not to be left out.
        min_motion, min_db: limits of ``filters``.
        stills: also give a picture for captioning where there is no caption.
    """

    root: Path
    spec: ClipSpec
    random: bool = True
    per_segment: int | None = None
    seed: int = 0
    keep: tuple[str, ...] = ()
    min_motion: float = 8.0
    min_db: float = -50.0
    stills: bool = False

    def __call__(self, source: Source) -> Decoded:
        """The windows of a segment. Never raises for what is wrong with a file."""
        try:
            return self._decode(source)
        except FileNotFoundError as error:
            return _nothing(source, "missing", str(error))
        except Exception as error:  # whatever a broken file makes of a decoder is not our end
            return _nothing(source, "damaged", " ".join(f"{error}".split()) or type(error).__name__)

    def _decode(self, source: Source) -> Decoded:
        if source.problem is not None:
            return _nothing(source, "unreadable caption", source.problem)
        if source.caption is None and source.events is None and not self.stills:
            return _nothing(source, "no caption", "")
        spec, path = self.spec, self.root / source.file
        info = media.probe(path)
        if info.sample_rate is None and "no audio" not in self.keep:
            return _nothing(source, "no audio", "")
        if info.seconds and info.seconds < spec.seconds - 0.5 / spec.fps:
            return _nothing(source, "too short", f"the file says {info.seconds:.2f} s")
        seconds = source.seconds
        if seconds is not None and info.seconds:
            # Lists round: what reaches a little over the end means the end.
            beyond = source.start + seconds - info.seconds
            seconds = None if -0.05 < beyond < 1 else seconds
        video, audio = media.read(
            path, spec.fps, spec.sample_rate, source.start, seconds, spec.height, spec.width
        )
        samples = round(len(video) / spec.fps * spec.sample_rate)
        audio = torch.zeros(samples) if audio is None else audio
        if len(video) < spec.num_frames or len(audio) < spec.num_samples:
            return _nothing(source, "too short", f"{len(video) / spec.fps:.2f} s")
        spans = windows.spans(len(video), cuts(video))
        fit = windows.capacity(spans, spec.num_frames)
        if not fit:
            return _nothing(source, "scene cuts", f"{len(spans) - 1} cuts")
        count = fit if self.per_segment is None else self.per_segment
        out = Decoded()
        for first in windows.place(spans, spec.num_frames, count, self._rng(source)):
            start = source.start + first / spec.fps
            clip = video[first : first + spec.num_frames]
            sample = min(round(first / spec.fps * spec.sample_rate), len(audio) - spec.num_samples)
            sound = audio[sample : sample + spec.num_samples]
            reason, detail = self._dull(clip, sound, info.sample_rate is None)
            if reason:
                out.skipped.append(_skip(source, start, reason, detail))
                continue
            text, still = source.caption, None
            if text is None and source.events is not None:
                text = captions.of_events(source.events, start, spec.seconds)
            if text is None:
                still = self._still(path, start)
            record = {
                "file": source.file,
                "start": round(start, 4),
                "seconds": spec.seconds,
                "caption": text,
                "group": source.group,
                "sound": info.sample_rate is not None,
            }
            arrays = clip.numpy().copy(), sound.numpy().copy()
            out.windows.append(Window(*arrays, cast(RecordLine, record), still))
        return out

    def _dull(self, clip: torch.Tensor, sound: torch.Tensor, mute: bool) -> tuple[str | None, str]:
        if "static" not in self.keep:
            moved = filters.motion(clip)
            if moved < self.min_motion:
                return "static", f"moves {moved:.1f} levels"
        if "silent" not in self.keep and not mute:
            loud = filters.loudness_db(sound, self.spec.sample_rate)
            if loud < self.min_db:
                return "silent", f"{loud:.0f} dB"
        return None, ""

    def _rng(self, source: Source) -> np.random.Generator | None:
        """A function of seed and segment, so that neither order nor restarts matter."""
        if not self.random:
            return None
        name = f"{self.seed}\0{source.file}\0{source.start}".encode()
        return np.random.default_rng(list(hashlib.sha256(name).digest()))

    def _still(self, path: Path, start: float) -> np.ndarray:
        middle = start + self.spec.seconds / 2
        frame, _ = media.read(
            path,
            self.spec.fps,
            start=middle,
            seconds=1 / self.spec.fps,
            height=_STILL,
            width=_STILL,
        )
        return frame[0].permute(1, 2, 0).numpy().copy()


def _skip(source: Source, start: float, reason: str, detail: str) -> SkippedLine:
    return {"file": source.file, "start": round(start, 4), "reason": reason, "detail": detail}


def _nothing(source: Source, reason: str, detail: str) -> Decoded:
    return Decoded(skipped=[_skip(source, source.start, reason, detail)])


def crashed(source: Source) -> Decoded:
    """What becomes of a segment that ended its process."""
    return _nothing(source, "crashed", REASONS["crashed"])
