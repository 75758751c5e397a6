"""Clips on paper: frames of each clip above its waveform, on one time axis, as a PNG."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from syncflow import durable
from syncflow.clip import Clip
from syncflow.data import media
from syncflow.generation.remarks.plot import CONTACT, INK, ONSET, PAPER, at, draw_frames, draw_wave

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
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, clip in enumerate(clips):
        left = _MARGIN + index % columns * (width + _MARGIN)
        top = _MARGIN + index // columns * block
        draw.multiline_text((left, top), "\n".join(lines[index]), INK, font, spacing=2)
        top += caption
        draw_frames(sheet, clip, left, top, frames, cell, picture)
        draw_wave(draw, clip, left, top + picture + _GAP, width, wave)
        seen, heard = (marks[index] if marks else None) or ((), ())
        for colour, times in ((CONTACT, seen), (ONSET, heard)):
            for time in times:
                x = left + at(time, clip.seconds, width)
                above = colour == CONTACT
                y = top - 3 if above else top + picture + _GAP
                draw.line((x, y, x, y + (picture + 3 if above else wave)), colour, 2)
    # A name of its own beside the target: an interrupted run leaves the old sheet whole.
    with durable.replacing(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)
    return path
