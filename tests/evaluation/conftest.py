"""Rendered clips that several tests share: small, few, and only from the validation split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from syncflow import impacts
from syncflow.clip import Clip
from syncflow.evaluation.suites import systems
from syncflow.evaluation.suites.systems import Case

CLIPS = 16


@pytest.fixture(scope="session")
def cases() -> list[Case]:
    return systems.cases("val", CLIPS, [1])


@pytest.fixture(scope="session")
def clips(cases: list[Case]) -> list[Clip]:
    return [systems.rendered(case, 64, 64) for case in cases]


@pytest.fixture
def greatest(tmp_path, cases, clips):
    """A folder as the Greatest Hits has it, from rendered clips: two films of two clips each."""
    for film in range(2):
        pair = clips[2 * film : 2 * film + 2]
        video = torch.cat([clip.video for clip in pair])
        audio = torch.cat([clip.audio for clip in pair])
        name = f"2015-02-16-16-49-0{film}"
        Clip(video, audio).save(tmp_path / f"{name}_denoised.mp4")
        (tmp_path / f"{name}_denoised_thumb.mp4").write_bytes(b"a picture for a list")
        lines = []
        for index, case in enumerate(cases[2 * film : 2 * film + 2]):
            lines += [f"{t + 2 * index:.6f} {case.made_of} hit static" for t in case.seen]
        (tmp_path / f"{name}_times.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


class Renderer:
    """A model that answers a caption with the real clip, its sound ``delay`` s late or left out:
    what it does wrong is known exactly."""

    name = "renderer"

    def __init__(self, delay: float = 0.0, silent: bool = False) -> None:
        self.delay, self.silent = delay, silent
        self.calls: list[dict[str, Any]] = []
        self.scenes = {}
        for split in ("val", "test"):
            for seed in impacts.SEEDS[split][:CLIPS]:
                scene = impacts.sample_scene(seed, 1, split)
                self.scenes[scene.caption] = scene

    def generate(
        self, prompts: list[str], video: Sequence[Tensor] | None = None, **options: Any
    ) -> list[Clip]:
        self.calls.append(options | {"video": video is not None, "prompts": len(prompts)})
        if options.get("height", 64) != 64:
            raise ValueError(f"this model is fixed to 64x64, got {options['height']}")
        made = []
        for index, prompt in enumerate(prompts):
            if prompt not in self.scenes:  # a picture that it does not know stays silent
                dark = torch.zeros(32, 3, 64, 64, dtype=torch.uint8)
                made.append(Clip(dark if video is None else video[index], torch.zeros(96000)))
                continue
            scene = self.scenes[prompt]
            audio = torch.from_numpy(impacts.sound(scene))
            late = round(self.delay * scene.sample_rate)
            audio = torch.cat([torch.zeros(late), audio[: len(audio) - late]])
            picture = torch.from_numpy(impacts.render(scene, 64, 64))
            if video is not None:
                picture = video[index]
            made.append(Clip(picture, torch.zeros_like(audio) if self.silent else audio))
            # Takes after the first, the best, are silent.
            rest = range(options.get("audio_takes", 1) - 1)
            made += [Clip(picture, torch.zeros_like(audio)) for _ in rest]
        return made

    def reconstruct(self, clip: Clip) -> Clip:
        return Clip(clip.video, clip.audio * 0.5, clip.fps, clip.sample_rate)


@pytest.fixture(scope="session")
def renderer() -> type[Renderer]:
    return Renderer
