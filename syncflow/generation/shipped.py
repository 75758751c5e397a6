"""``syncflow.generate``: the model in the package."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import Literal, Unpack, overload

from syncflow.clip import Clip
from syncflow.generation import foreign
from syncflow.generation.arguments import GenerateOptions
from syncflow.generation.pipeline import SyncFlow, load
from syncflow.generation.remarks import vocabulary


@overload
def generate(
    prompt: str, *, audio_takes: Literal[1] = 1, **options: Unpack[GenerateOptions]
) -> Clip: ...


@overload
def generate(
    prompt: list[str] | tuple[str, ...],
    *,
    audio_takes: int = 1,
    **options: Unpack[GenerateOptions],
) -> list[Clip]: ...


@overload
def generate(
    prompt: str | Sequence[str], *, audio_takes: int = 1, **options: Unpack[GenerateOptions]
) -> Clip | list[Clip]: ...


def generate(
    prompt: str | Sequence[str], *, audio_takes: int = 1, **options: Unpack[GenerateOptions]
) -> Clip | list[Clip]:
    """``SyncFlow.generate`` of the model in the package, which is loaded once and kept.

    Warns of words that it does not know, of clips longer than it was trained on, and of given
    pictures unlike all that it was.
    """
    model = _shipped()
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if isinstance(prompts, (list, tuple)) and all(isinstance(text, str) for text in prompts):
        for line in vocabulary.remarks(model.config, prompts, options.get("seconds")):
            warnings.warn(line.replace("--vocabulary", "model.config.vocabulary"), stacklevel=2)
    made: Clip | list[Clip] = model.generate(prompt, audio_takes=audio_takes, **options)
    films = [options.get(name) for name in ("video", "extend", "retake")]
    for line in foreign.remarks(model, films, options.get("image")):
        warnings.warn(line, stacklevel=2)
    return made


@functools.lru_cache(maxsize=1)
def _shipped() -> SyncFlow:
    return load()
