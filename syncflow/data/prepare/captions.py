"""What is said about a clip: beside it, in annotations, or by a captioning model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from syncflow import plain_text
from syncflow.data.prepare import lists
from syncflow.json_types import JsonObject
from syncflow.published import NO_CODE, without_code
from syncflow.ranges import Real

if TYPE_CHECKING:
    import torch


#: Longer ones are cut: no text encoder here reads more, and a sidecar may be anything.
_MAX_LETTERS = 2000
#: Bytes of a sidecar: more is something else. A card may carry much beside the caption.
_SIDECAR, _CARD = 1 << 20, 1 << 26
_TIME = Real(0, 1e6, "s")
_ACTIONS = {"hit": "hits", "scratch": "scratches"}
_REACTIONS = {"deform", "rigid-motion", "scatter", "splash", "static"}


def one_line(text: str) -> str:
    """``text`` without line breaks, repeated spaces and marks of an editor."""
    return " ".join(text[:_MAX_LETTERS].replace("\ufeff", " ").split())


def text_of(value: object, what: str = "caption") -> str | None:
    """A caption as a list or card has it; None where it is empty.

    Raises:
        ValueError: it is no text: a number, or a list of several.
    """
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise ValueError(f"the {what} must be text, got {value!r:.80}")
    return one_line(value) or None


def sidecar(file: Path) -> str | None:
    """The caption in ``<name>.txt``, or under "caption" or "text" in ``<name>.json``.

    Raises:
        ValueError: what is there is no text, or no JSON; the message names file and line.
    """
    text = file.with_suffix(".txt")
    if text.is_file():
        return one_line(plain_text.read(text, _SIDECAR)) or None
    card = file.with_suffix(".json")
    if card.is_file():
        found = plain_text.parse_json(plain_text.read(card, _CARD), f"'{card}'")
        if isinstance(found, dict):
            try:
                return text_of(found.get("caption") or found.get("text"))
            except ValueError as error:
                raise ValueError(f"'{card}': {error}") from None
    return None


def metadata(folder: Path) -> dict[str, str]:
    """File name from ``folder`` on -> caption, of its ``metadata.jsonl`` (csv, parquet), as
    `syncflow data impacts` writes it and data sets on the hub have it, in any of their folders.

    Raises:
        ValueError: a line is not a JSON object, or its caption no text.
    """
    out = {}
    for path in (folder / f"metadata{ending}" for ending in lists.READERS):
        if not path.is_file():
            continue
        for where, row in lists.rows(path):
            name = row.get("file") or row.get("file_name")
            try:
                said = text_of(row.get("caption") or row.get("text"))
            except ValueError as error:
                raise ValueError(f"'{path}'{where}: {error}") from None
            if name and said:
                out[str(name)] = said
    return out


def drumstick_events(path: Path) -> tuple[tuple[float, str], ...] | None:
    """Greatest Hits' annotations of a recording as (seconds, "hits metal"); None without a file.

    Raises:
        ValueError: the file is no text.
    """
    if not path.is_file():
        return None
    out = []
    for line in plain_text.lines(plain_text.read(path)):
        time, *words = line.split() or [""]
        try:
            at = _TIME.parse(time)
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

    def __init__(self, folder: str | Path, device: str | torch.device = "cpu") -> None:
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
        options: JsonObject = {"generate_kwargs": {"max_new_tokens": 48, "do_sample": False}}
        if self._chats:
            chats = [
                [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image", "image": image},
                            {"type": "text", "text": self.PROMPT},
                        ],
                    }
                ]
                for image in images
            ]
            options |= {"text": chats, "return_full_text": False}
        else:  # models that only caption take a beginning, here none
            options |= {"images": images, "text": [""] * len(images)}
        answers = self._pipe(**options)
        flat = [answer[0] if isinstance(answer, list) else answer for answer in answers]
        return [one_line(str(answer["generated_text"])) for answer in flat]
