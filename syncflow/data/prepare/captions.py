"""What is said about a clip: beside it, in annotations, or by a captioning model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from syncflow.data import json_lines
from syncflow.models.published import NO_CODE, without_code

#: Longer ones are cut: no text encoder here reads more, and a sidecar may be anything.
_MAX_LETTERS = 2000
_ACTIONS = {"hit": "hits", "scratch": "scratches"}
_REACTIONS = {"deform", "rigid-motion", "scatter", "splash", "static"}


def one_line(text: str) -> str:
    """``text`` without line breaks and repeated spaces."""
    return " ".join(text[:_MAX_LETTERS].split())


def sidecar(file: Path) -> str | None:
    """The caption in ``<name>.txt``, or under "caption" or "text" in ``<name>.json``."""
    text = file.with_suffix(".txt")
    if text.is_file():
        return one_line(text.read_text(encoding="utf-8", errors="replace")) or None
    card = file.with_suffix(".json")
    if card.is_file():
        try:
            found = json.loads(card.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError):
            return None
        said = found.get("caption") or found.get("text") if isinstance(found, dict) else None
        return one_line(str(said)) or None if said else None
    return None


def metadata(folder: Path) -> dict[str, str]:
    """File name -> caption of a folder's ``metadata.jsonl``, as `syncflow data impacts` writes it
    and data sets on the hub have it.

    Raises:
        ValueError: a line is not a JSON object.
    """
    path = folder / "metadata.jsonl"
    if not path.is_file():
        return {}
    out = {}
    for row in json_lines.read(path):
        name, said = row.get("file") or row.get("file_name"), row.get("caption") or row.get("text")
        if name and said:
            out[str(name)] = one_line(str(said))
    return out


def drumstick_events(path: Path) -> tuple[tuple[float, str], ...] | None:
    """Greatest Hits' annotations of a recording as (seconds, "hits metal"); None without a file."""
    if not path.is_file():
        return None
    out = []
    for line in path.read_text().splitlines():
        time, *words = line.split() or [""]
        try:
            at = float(time)
        except ValueError:
            continue
        words = [word for word in words if word != "None" and word not in _REACTIONS]
        action = next((_ACTIONS[word] for word in words if word in _ACTIONS), "touches")
        material = next((w for w in words if w not in _ACTIONS and w != "other"), "something")
        out.append((at, f"{action} {material.replace('-', ' ')}"))
    return tuple(sorted(out))


def of_events(events: Sequence[tuple[float, str]], start: float, seconds: float) -> str:
    """The caption of a window of a Greatest Hits recording: what the drumstick does in it."""
    inside = Counter(phrase for time, phrase in events if start <= time < start + seconds)
    # The commonest first; equal ones in the order in which they happen.
    phrases = [phrase for phrase, _ in inside.most_common(3)]
    if not phrases:
        return "a drumstick moves without touching anything"
    return f"a drumstick {' and '.join(phrases)}"


class Captioner:
    """A captioning model of the user's: any folder that transformers' "image-text-to-text" pipeline
    loads. It sees the picture in the middle of a window.

    Raises:
        FileNotFoundError: no such folder. ValueError: it holds no such model.
    """

    PROMPT = "Describe what happens in this video and what it sounds like, in one sentence."

    def __init__(self, folder: str | Path, device: Any = "cpu") -> None:
        folder = Path(folder).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no captioning model folder '{folder}'")
        from transformers import pipeline

        try:
            with without_code(folder):
                self._pipe = pipeline(
                    "image-text-to-text", model=str(folder), device=device, **NO_CODE
                )
        except (ValueError, OSError, KeyError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"'{folder}' is not a captioning model: {reason}") from error
        processor = self._pipe.processor
        self._chats = bool(getattr(processor, "chat_template", None))

    def __call__(self, stills: Sequence[np.ndarray]) -> list[str]:
        """Captions of pictures uint8 [H,W,3]; empty where the model says nothing."""
        from PIL import Image

        images = [Image.fromarray(still) for still in stills]
        options: dict[str, Any] = {"generate_kwargs": {"max_new_tokens": 48, "do_sample": False}}
        if self._chats:
            chats = [
                [{"role": "user", "content": [
                    {"type": "image", "image": image}, {"type": "text", "text": self.PROMPT},
                ]}]
                for image in images
            ]  # fmt: skip
            answers = self._pipe(text=chats, return_full_text=False, **options)
        else:  # models that only caption take a beginning, here none
            answers = self._pipe(images=images, text=[""] * len(images), **options)
        flat = [answer[0] if isinstance(answer, list) else answer for answer in answers]
        return [one_line(str(answer["generated_text"])) for answer in flat]
