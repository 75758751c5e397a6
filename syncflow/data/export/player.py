"""A clip as a player in a page, for notebooks."""

from __future__ import annotations

import base64
import html
import tempfile
from pathlib import Path

from syncflow.clip import Clip
from syncflow.data import media

#: A notebook keeps its outputs in its own file: longer films would make it unusable.
MOST_BYTES = 8_000_000
_MOST_PIXELS = 400_000_000  # that are encoded at all; about 15 s of 1280x720 at 30 fps
_LEAST_WIDTH = 320  # px; below, the controls cover the picture


def page(clip: Clip) -> str:
    """HTML with the clip inside it as an mp4; a line of text where it is too large or no mp4."""
    title = f"<div>{html.escape(repr(clip))}</div>"
    frames, _, height, width = clip.video.shape
    if frames * height * width > _MOST_PIXELS:
        return title + "<div>too large to be shown here; see Clip.save</div>"
    try:
        film = _encoded(clip)
    except ValueError as error:  # a rate or a size that an mp4 cannot have
        return title + f"<div>{html.escape(str(error))}</div>"
    if len(film) > MOST_BYTES:
        return title + f"<div>{len(film) / 1e6:.0f} MB are not shown here; see Clip.save</div>"
    data = base64.b64encode(film).decode()
    return (
        f'<video controls loop width="{max(width, _LEAST_WIDTH)}" '
        f'src="data:video/mp4;base64,{data}"></video>{title}'
    )


def _encoded(clip: Clip) -> bytes:
    # Encoded anew where the picture is a file's: a browser may not know its codec.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        media.write(path, clip.video, clip.audio, clip.fps, clip.sample_rate)
        return path.read_bytes()
