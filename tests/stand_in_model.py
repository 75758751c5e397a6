"""A model that answers at once with a clip that says what it was asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from syncflow.clip import Clip, ClipSpec
from syncflow.config import ModelConfig
from syncflow.generation.remarks.preview import Preview
from syncflow.model_io import model_folder


class Codecs:
    """Pictures are their own latents, and come back: of a model that knows all of them."""

    def encode_video(self, clips_FCHW: Sequence[Tensor]) -> Tensor:
        return torch.stack([clip.float() / 255 for clip in clips_FCHW])

    def decode_video(self, latent_FCHW: Tensor, spec: ClipSpec) -> Tensor:
        return (255 * latent_FCHW).round().to(torch.uint8)


class Model:
    """``asked``: what it was given; ``most_at_once``: calls that ran beside each other;
    ``seconds``: that a call takes. The grey of a clip is its seed."""

    config = ModelConfig.load(model_folder.SHIPPED / "config.json")
    codecs = Codecs()

    def __init__(self, seconds: float = 0.0) -> None:
        self.asked: list[dict[str, Any]] = []
        self.seconds, self.most_at_once, self.endless = seconds, 0, False
        self._now, self._lock = 0, threading.Lock()

    def preview_map(self) -> object:
        return None

    def _steps(self, options: dict[str, Any]) -> None:
        """Two steps, each shown; the first again and again while it is ``endless``."""
        callback, show = options.get("callback"), options.get("preview")
        step = 1
        while step <= 2:
            if callback:
                callback(step, None, ((0.5, 0.0), (1.0, 1.0))[step - 1])
            if show:
                video = torch.full((1, 8, 3, 16, 16), 100, dtype=torch.uint8)
                loud = torch.ones(1, 10)
                show(Preview(step, 2, video, loud, 8.0, 10.0, latents=(video, None)))
            time.sleep(0.2 if self.endless else 0)
            step += not self.endless

    def generate(self, prompt: str, **options: Any) -> Clip | list[Clip]:
        if not prompt and "video" not in options:
            raise ValueError("empty prompt: describe the clip in one sentence")
        with self._lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            self.asked.append({"prompt": prompt, **options})
        time.sleep(self.seconds)
        try:
            self._steps(options)
        finally:
            with self._lock:
                self._now -= 1
        grey = options["seed"] % 200
        picture = torch.full((16, 3, 32, 32), grey, dtype=torch.uint8)
        clip = Clip(picture, torch.zeros(48000), picture_file=options.get("video"))
        if options.get("audio_takes", 1) == 1:
            return clip
        clip.scores = {"agreement": 0.5}
        return [clip] * options["audio_takes"]
