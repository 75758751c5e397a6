"""A clip that is being drawn, as far as it is: frames and the loudness of its sound."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from syncflow.generation.remarks.plot import INK, PAPER, WAVE

if TYPE_CHECKING:
    from PIL.Image import Image

_FRAMES, _CELL, _STRIP, _GAP = 8, 96, 48, 4


@dataclass(frozen=True)
class Preview:
    """Clips as they are at one step.

    Attributes:
        step, steps: how many steps are done, and of how many.
        video: uint8 [P, F, 3, H, W], the pictures of P prompts.
        envelope: float32 [P * takes, N], root mean square of the sound, ``rate`` values a second;
            None as long as the sound has not begun.
        fps, rate: frames and values of the envelope to a second.
        latents: what both were made of, normalised: [P, C, T, h, w] and [P * takes, A, D] or None;
            ``model.codecs`` decodes them.
    """

    step: int
    steps: int
    video: Tensor = field(repr=False)
    envelope: Tensor | None = field(repr=False)
    fps: float
    rate: float
    latents: tuple[Tensor, Tensor | None] = field(repr=False)

    def image(self, prompt: int = 0) -> Image:
        """A PIL image: eight frames of a prompt's picture, and below them the envelope of its first
        sound on the same time axis, the loudest moment as high as the strip."""
        from PIL import Image, ImageDraw

        frames = self.video[prompt]
        height = max(1, round(_CELL * frames.shape[2] / frames.shape[3]))
        width = _FRAMES * _CELL
        sheet = Image.new("RGB", (width, height + _GAP + _STRIP), PAPER)
        for column in range(_FRAMES):
            index = int((column + 0.5) / _FRAMES * len(frames))
            picture = Image.fromarray(frames[index].permute(1, 2, 0).numpy())
            sheet.paste(picture.resize((_CELL - 1, height)), (column * _CELL, 0))
        draw = ImageDraw.Draw(sheet)
        floor = height + _GAP + _STRIP - 1
        draw.line((0, floor, width - 1, floor), INK, 1)
        if self.envelope is not None:
            takes = len(self.envelope) // len(self.video)
            loud = self.envelope[prompt * takes].numpy()
            loud = loud / max(float(loud.max()), 1e-4)
            for x, value in enumerate(np.interp(np.arange(width), _at(len(loud), width), loud)):
                draw.line((x, floor - round((_STRIP - 1) * float(value)), x, floor), WAVE, 1)
        return sheet

    def _repr_png_(self) -> bytes:
        """For notebooks."""
        file = io.BytesIO()
        self.image().save(file, "PNG")
        return file.getvalue()


def _at(count: int, width: int) -> np.ndarray:
    """Pixels of the middles of so many values."""
    return (np.arange(count) + 0.5) * width / count


#: What is given each preview; what it raises ends the call.
Show = Callable[[Preview], None]


def in_notebook() -> Show:
    """Shows previews in the output of a notebook's cell, each in place of the one before:
    ``generate(prompt, preview=in_notebook())``.

    Raises:
        ModuleNotFoundError: there is no IPython.
    """
    from IPython.display import display

    cell = None

    def show(preview: Preview) -> None:
        nonlocal cell
        if cell is None:
            cell = display(preview, display_id=True)
        else:
            cell.update(preview)

    return show
