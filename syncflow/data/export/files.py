"""Clips into files, each of which is whole or not there: same clip, same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from syncflow.clip import Clip
from syncflow.data import media
from syncflow.data.export import formats, tags

if TYPE_CHECKING:
    from PIL.Image import Image


#: Ending -> container and codec of the sound alone, 16 bits a sample.
_SOUNDS = {".wav": ("wav", "pcm_s16le"), ".flac": ("flac", "flac")}


def save(clip: Clip, path: str | Path) -> Path:
    """Writes what the name asks for; returns it.

    A film (mp4, m4v, mov, mkv, webm), the sound alone (wav, flac), the picture alone (gif) or
    numbered pictures (frame-%04d.png). How the clip was made (``Clip.made``) goes into the file's
    metadata.

    Raises:
        ValueError: the name's format is unknown or cannot hold this clip. OSError: a folder that is
            missing or takes no files.
    """
    path = Path(path)
    formats.check(path)
    formats.check_clip(path, clip.fps, len(clip.video), clip.sample_rate)
    told = tags.of(clip)
    if path.suffix.lower() in formats.SOUNDS:
        return _sound(path, clip.audio, clip.sample_rate, told)
    if path.suffix.lower() == ".gif":
        return _gif(path, clip.video, clip.fps, told)
    if formats.is_frames(path):
        return _frames(path, clip.video, told)
    if clip.picture_file is not None:
        seconds = len(clip.audio) / clip.sample_rate
        return media.add_sound(
            path, clip.picture_file, clip.audio, clip.sample_rate, seconds, tags=told
        )
    return media.write(path, clip.video, clip.audio, clip.fps, clip.sample_rate, tags=told)


def _sound(path: Path, audio_M: Tensor, sample_rate: int, told: Mapping[str, str]) -> Path:
    import av

    container, codec = _SOUNDS[path.suffix.lower()]
    samples = media.whole_samples(audio_M)
    with (
        media.replacing(path) as temporary,
        av.open(str(temporary), "w", format=container, options={"fflags": "+bitexact"}) as out,
    ):
        out.metadata.update(told)
        stream = out.add_stream(codec, rate=sample_rate, layout="mono")
        assert isinstance(stream, av.AudioStream)
        stream.format = av.AudioFormat("s16")
        stream.codec_context.open()
        step = stream.codec_context.frame_size or sample_rate
        for first in range(0, len(samples), step):
            piece = np.ascontiguousarray(samples[None, first : first + step])
            frame = av.AudioFrame.from_ndarray(piece, format="s16", layout="mono")
            frame.sample_rate, frame.pts = sample_rate, first
            frame.time_base = Fraction(1, sample_rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def _gif(path: Path, video_F3HW: Tensor, fps: float, told: Mapping[str, str]) -> Path:
    pictures = _pictures(video_F3HW)
    ends = [round(100 * (index + 1) / fps) for index in range(len(pictures))]
    hundredths = [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
    comment = told.get("comment", "").encode()
    with media.replacing(path) as temporary:
        pictures[0].save(
            temporary,
            "GIF",
            save_all=True,
            append_images=pictures[1:],
            loop=0,
            duration=[10 * length for length in hundredths],
            comment=comment,
        )
    return path


def _frames(pattern: Path, video_F3HW: Tensor, told: Mapping[str, str]) -> Path:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for name, text in told.items():
        info.add_itxt(name.capitalize(), text)  # the words that PNG defines are written so
    with ExitStack() as all_or_none:
        for picture, path in zip(
            _pictures(video_F3HW), formats.files(pattern, len(video_F3HW)), strict=True
        ):
            temporary = all_or_none.enter_context(media.replacing(path))
            picture.save(temporary, "PNG", pnginfo=info)
    return pattern


def _pictures(video_F3HW: Tensor) -> list[Image]:
    from PIL.Image import fromarray

    return [fromarray(pixels) for pixels in video_F3HW.permute(0, 2, 3, 1).cpu().numpy()]
