"""Does the sound happen when the picture says so? A clip's frames, contacts, waveform and onsets on
one time axis, as a PNG; and the pieces that contact sheets are drawn from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from syncflow.clip import Clip
from syncflow.data import media
from syncflow.detect import contacts, onsets

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont


PAPER, INK, WAVE, RULE = (255, 255, 255), (32, 32, 36), (70, 90, 120), (214, 216, 222)
CONTACT, ONSET = (214, 39, 40), (31, 90, 220)
_MARGIN, _GAP, _WIDTH, _FRAMES, _WAVE_HEIGHT, _LINE = 16, 4, 960, 16, 96, 17


def plot(clip: Clip, path: str | Path) -> Path:
    """Draws a clip into the PNG ``path``: contacts seen (red) over the frames and onsets heard
    (blue) over the waveform, on one axis in seconds; returns the path.

    Raises:
        OSError: the folder is missing or takes no files.
    """
    from PIL import Image, ImageDraw, ImageFont

    path = Path(path)
    media.check_folder(path)
    seen = contacts.times(clip.video, clip.fps)
    heard = onsets.times(clip.audio, clip.sample_rate)
    cell = _WIDTH // _FRAMES
    picture = round(cell * clip.video.shape[2] / clip.video.shape[3])
    frames_top = _MARGIN + _LINE + _GAP
    wave_top = frames_top + picture + _GAP
    axis = wave_top + _WAVE_HEIGHT
    size = (_WIDTH + 2 * _MARGIN, axis + _LINE + 2 * _GAP + _MARGIN)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13)
    _legend(draw, font, len(seen), len(heard))
    draw_frames(sheet, clip, _MARGIN, frames_top, _FRAMES, cell, picture)
    draw_wave(draw, clip, _MARGIN, wave_top, _WIDTH, _WAVE_HEIGHT)
    marks = ((CONTACT, seen, frames_top - 3, wave_top), (ONSET, heard, wave_top, axis))
    for colour, times, top, bottom in marks:
        for time in times:
            x = _MARGIN + at(time, clip.seconds, _WIDTH)
            draw.line((x, top, x, bottom), colour, 2)
    for time in _ticks(clip.seconds):
        x = _MARGIN + at(time, clip.seconds, _WIDTH)
        draw.line((x, axis, x, axis + _GAP), INK, 1)
        draw.text((x, axis + _GAP), f"{time:g} s", INK, font, anchor="ma")
    # A name of its own beside the target: an interrupted run leaves the old picture whole.
    with media.replacing(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)
    return path


def at(time: float, seconds: float, width: int) -> int:
    """The pixel of a time on an axis of ``width`` px for ``seconds``."""
    return min(width - 1, max(0, int(time / seconds * width)))


def draw_frames(
    sheet: Image.Image, clip: Clip, left: int, top: int, frames: int, cell: int, height: int
) -> None:
    """``frames`` pictures of a clip at even times into an image, side by side, ``cell`` px each."""
    from PIL import Image

    for column in range(frames):
        # The picture in the middle of this column's share of the time axis.
        index = min(len(clip.video) - 1, int((column + 0.5) / frames * len(clip.video)))
        pixels = clip.video[index].permute(1, 2, 0).contiguous().cpu().numpy()
        shown = max(1, round(cell * pixels.shape[0] / pixels.shape[1]))
        resized = Image.fromarray(pixels).resize((cell - 1, shown), Image.Resampling.LANCZOS)
        sheet.paste(resized, (left + column * cell, top + (height - shown) // 2))


def draw_wave(
    draw: ImageDraw.ImageDraw, clip: Clip, left: int, top: int, width: int, height: int
) -> None:
    """A clip's waveform; ``draw``: of PIL."""
    middle = top + height // 2
    draw.line((left, middle, left + width - 1, middle), RULE, 1)
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
        draw.line(box, WAVE, 1)


def _legend(
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    seen: int,
    heard: int,
) -> None:
    x = _MARGIN
    for colour, count, what, how in (
        (CONTACT, seen, "contact", "seen"),
        (ONSET, heard, "onset", "heard"),
    ):
        text = f"{count} {what}{'' if count == 1 else 's'} {how}"
        draw.line((x + 1, _MARGIN, x + 1, _MARGIN + 13), colour, 2)
        draw.text((x + 8, _MARGIN), text, INK, font)
        x += 24 + round(draw.textlength(text, font))


def _ticks(seconds: float) -> list[float]:
    """Round times, at most 20 of them."""
    steps = [s * 10**power for power in range(-2, 5) for s in (1, 2, 5)]
    step = next(step for step in steps if seconds / step <= 20)
    return [round(step * number, 3) for number in range(int(seconds / step + 1e-6) + 1)]
