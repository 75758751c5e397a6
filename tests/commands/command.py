"""What the tests of ``syncflow generate`` share."""

from pathlib import Path

import torch

from syncflow.cli import main
from syncflow.data import media

FEW = ("--steps", "1", "--audio-steps", "1", "--no-progress")


def film(path: Path | str, frames: int = 16) -> Path:
    """A small film without sound."""
    video = torch.arange(frames, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 32, 48) * 9
    return media.write(path, video, None)


def run(model: str, *argv: object) -> int:
    """The exit code of ``generate`` with a small model and few steps."""
    return main(["generate", *map(str, argv), "--model", model, "--device", "cpu", *FEW])
