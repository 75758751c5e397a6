"""Clips with the additions of a low-rank fine-tuning: ``generate(lora=FILE, strength=0.8)``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from syncflow.model_io import lora as low_rank


class _Model(Protocol):
    ddit: nn.Module


def with_additions(method: Callable[..., Any]) -> Callable[..., Any]:
    """A model's method that also takes ``lora`` and ``strength``, and has the additions in the
    d-DiT's weights while it runs."""

    @functools.wraps(method)
    def wrapped(
        self: _Model,
        *arguments: Any,
        lora: str | Path | None = None,
        strength: float = 1.0,
        **options: Any,
    ) -> Any:
        with low_rank.applied(self.ddit, lora, strength):
            clips = method(self, *arguments, **options)
        if lora is not None:
            for clip in clips if isinstance(clips, list) else [clips]:
                clip.made = (clip.made or {}) | {"lora": Path(lora).name, "strength": strength}
        return clips

    plain, own = inspect.signature(method), inspect.signature(wrapped, follow_wrapped=False)
    known = list(plain.parameters.values())
    known[-1:-1] = [own.parameters["lora"], own.parameters["strength"]]
    wrapped.__dict__["__signature__"] = plain.replace(parameters=known)
    return wrapped
