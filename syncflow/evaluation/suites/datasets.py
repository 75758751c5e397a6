"""What a system is measured on: captions and the real clips that belong to them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from syncflow import extras, plain_text
from syncflow.clip import FPS, SAMPLE_RATE, SECONDS, Clip
from syncflow.data import json_lines
from syncflow.evaluation.suites import systems

#: What is told in a report and does not end it.
USER_ERRORS = (ValueError, OSError, ModuleNotFoundError)

#: How films of a folder end.
MEDIA = (".mp4", ".mkv", ".webm", ".mov", ".m4v")


@dataclass(frozen=True)
class Item:
    """A caption, a ``key`` that names its files, and ``real(height, width)``, its real clip."""

    key: str
    prompt: str
    real: Callable[[int, int], Clip]


def impacts(split: str, clips: int, levels: Sequence[int]) -> list[Item]:
    """The first ``clips`` captions of every level of the synthetic world, rendered when asked."""
    return [
        Item(f"{case.level}-{case.seed:08d}", case.prompt, _renderer(case))
        for case in systems.cases(split, clips, levels)
    ]


def _renderer(case: systems.Case) -> Callable[[int, int], Clip]:
    return lambda height, width: systems.rendered(case, height, width)


def folder(
    path: str | Path,
    clips: int | None = None,
    seconds: float = SECONDS,
    fps: float = FPS,
    sample_rate: int = SAMPLE_RATE,
) -> list[Item]:
    """Clips of a folder: the first ``seconds`` s of each, at ``fps`` and ``sample_rate``, the
    centre cut to the size that is asked for (paper section 4).

    Captions are in ``metadata.jsonl`` (a line {"file": ..., "caption": ...} each) or beside the
    clip, ``name.mp4`` and ``name.txt``.

    Raises:
        FileNotFoundError: no such folder, no clips, or a clip without caption.
        ValueError: a metadata file that cannot be read.
    """
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"no such folder: '{path}'")
    lines = path / "metadata.jsonl"
    captions = _lines(lines) if lines.is_file() else _beside(path)
    if not captions:
        raise FileNotFoundError(f"no clips with captions in '{path}'")
    items = []
    for name, caption in list(captions.items())[:clips]:
        file = path / name
        if not file.resolve().is_relative_to(path.resolve()):
            raise ValueError(f"'{lines}' names a file outside its folder: {name}")
        if not file.is_file():
            raise FileNotFoundError(f"no such file: '{file}'")

        def real(height: int, width: int, file: Path = file) -> Clip:
            return Clip.load(file, fps, sample_rate, 0.0, seconds, height, width)

        items.append(Item(file.stem, caption, real))
    return items


def _lines(path: Path) -> dict[str, str]:
    captions = {}
    for row in json_lines.read(path):
        if not (row.get("file") and row.get("caption")):
            raise ValueError(f"'{path}' has a line without file or caption: {json.dumps(row)}")
        captions[str(row["file"])] = str(row["caption"])
    return captions


def _beside(path: Path) -> dict[str, str]:
    captions = {}
    for file in sorted(path.iterdir()):
        if file.suffix.lower() in MEDIA:
            text = file.with_suffix(".txt")
            if not text.is_file():
                raise FileNotFoundError(f"no caption for '{file}': write it into '{text.name}'")
            captions[file.name] = plain_text.read(text).strip()
    return captions


def readable(
    items: Sequence[Item], size: tuple[int, int], left_out: dict[str, str]
) -> list[tuple[Item, Clip]]:
    """Those of the items whose real clip can be read and heard; the others, with the reason, go
    into ``left_out``."""
    there = []
    for item in items:
        try:
            clip = item.real(*size)
            if not systems.is_finite(clip):
                raise ValueError("its sound has values that are not finite")
            there.append((item, clip))
        except USER_ERRORS as error:
            left_out[item.key] = reason(error)
    return there


def reason(error: BaseException) -> str:
    """Why something was not run, in a line."""
    if isinstance(error, ModuleNotFoundError):
        return f"needs the package {error.name} ({extras.advice(error.name or '')})"
    return " ".join(str(error).split())
