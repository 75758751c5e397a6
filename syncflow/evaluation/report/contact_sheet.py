"""Clips on paper: frames of each clip above its waveform, on one time axis, as a PNG."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from syncflow.clip import Clip
from syncflow.data import media

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

_PAPER, _INK, _WAVE, _RULE = (255, 255, 255), (32, 32, 36), (70, 90, 120), (214, 216, 222)
_CONTACT, _ONSET = (214, 39, 40), (31, 90, 220)
_MARGIN, _GAP = 16, 4

#: Times in seconds: contacts seen in the picture, onsets heard in the sound.
Marks = tuple[Sequence[float], Sequence[float]]


def contact_sheet(
    clips: Sequence[Clip],
    prompts: Sequence[str],
    path: str | Path,
    frames: int = 16,
    columns: int = 2,
    marks: Sequence[Marks | None] | None = None,
    cell: int = 48,
) -> Path:
    """Draws ``clips`` under their ``prompts`` into the PNG ``path``; returns the path.

    Each clip is a caption, a row of ``frames`` pictures taken at even times and its waveform below
    them on the same time axis. ``marks`` gives, per clip, contacts seen (red) and onsets heard
    (blue) in seconds. ``columns`` clips stand side by side, each picture ``cell`` px wide.

    Raises:
        ValueError: no clips, lists of different lengths, a count that is not positive.
        OSError: the folder is missing or takes no files.
    """
    from PIL import Image, ImageDraw, ImageFont

    if not clips or len(clips) != len(prompts) or (marks is not None and len(marks) != len(clips)):
        given = f"{len(clips)} clips, {len(prompts)} prompts"
        given += "" if marks is None else f", {len(marks)} marks"
        raise ValueError(f"a contact sheet needs as many prompts and marks as clips, got {given}")
    if frames < 1 or columns < 1 or cell < 8:
        raise ValueError(
            f"frames and columns must be >= 1 and cell >= 8, got {frames}, {columns} and {cell}"
        )
    path = Path(path)
    media.check_folder(path)
    columns = min(columns, len(clips))
    width = frames * cell
    picture = max(round(cell * clip.video.shape[2] / clip.video.shape[3]) for clip in clips)
    wave = max(32, picture)
    font = ImageFont.load_default(size=13)
    lines = [textwrap.wrap(prompt, max(12, width // 7)) or ["(no prompt)"] for prompt in prompts]
    caption = 17 * max(map(len, lines)) + 4
    block = caption + picture + wave + 2 * _GAP + _MARGIN
    rows = -(-len(clips) // columns)
    size = (columns * (width + _MARGIN) + _MARGIN, rows * block + _MARGIN)
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, clip in enumerate(clips):
        left = _MARGIN + index % columns * (width + _MARGIN)
        top = _MARGIN + index // columns * block
        draw.multiline_text((left, top), "\n".join(lines[index]), _INK, font, spacing=2)
        top += caption
        _draw_frames(sheet, clip, left, top, frames, cell, picture)
        _draw_wave(draw, clip, left, top + picture + _GAP, width, wave)
        seen, heard = (marks[index] if marks else None) or ((), ())
        for colour, times in ((_CONTACT, seen), (_ONSET, heard)):
            for time in times:
                x = left + min(width - 1, max(0, int(time / clip.seconds * width)))
                above = colour == _CONTACT
                y = top - 3 if above else top + picture + _GAP
                draw.line((x, y, x, y + (picture + 3 if above else wave)), colour, 2)
    # A name of its own beside the target: an interrupted run leaves the old sheet whole.
    with media.replacing(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)
    return path


def _draw_frames(
    sheet: Image.Image, clip: Clip, left: int, top: int, frames: int, cell: int, height: int
) -> None:
    from PIL import Image

    for column in range(frames):
        # The picture in the middle of this column's share of the time axis.
        index = min(len(clip.video) - 1, int((column + 0.5) / frames * len(clip.video)))
        pixels = clip.video[index].permute(1, 2, 0).contiguous().cpu().numpy()
        shown = max(1, round(cell * pixels.shape[0] / pixels.shape[1]))
        resized = Image.fromarray(pixels).resize((cell - 1, shown), Image.Resampling.LANCZOS)
        sheet.paste(resized, (left + column * cell, top + (height - shown) // 2))


def _draw_wave(
    draw: ImageDraw.ImageDraw, clip: Clip, left: int, top: int, width: int, height: int
) -> None:
    middle = top + height // 2
    draw.line((left, middle, left + width - 1, middle), _RULE, 1)
    # The sound's own length against the picture's: the two share one time axis.
    samples = clip.audio.detach().cpu().float().numpy()
    wanted = round(clip.seconds * clip.sample_rate)
    samples = np.pad(samples[:wanted], (0, max(0, wanted - len(samples))))
    edges = np.linspace(0, wanted, width + 1).astype(int)
    half = height / 2 - 1
    for x in range(width):
        piece = samples[edges[x] : max(edges[x] + 1, edges[x + 1])]
        high, low = (float(np.clip(value, -1, 1)) for value in (piece.max(), piece.min()))
        box = (left + x, middle - round(high * half), left + x, middle - round(low * half))
        draw.line(box, _WAVE, 1)
