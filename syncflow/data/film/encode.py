"""Pictures and sound, encoded, into the packets of a file.

``media`` opens and closes the files; its counterpart for reading is ``decode``, and ``copying``
brings over packets of another file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from syncflow.data.film import opener

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.video.stream import VideoStream

    from syncflow.data.film.pyav import Timed


_BT709, _LIMITED_RANGE = 1, 1  # ITU-T H.273, and FFmpeg's AVColorRange


def create(
    path: Path, container: str, sample_rate: int, tags: Mapping[str, str] | None = None
) -> OutputContainer:
    """The open container, to be written, with ``tags`` as its metadata."""
    import av

    options = {"fflags": "+bitexact"}
    if container in ("mp4", "mov"):
        options["movflags"] = "+faststart"
        # The clock of the edit list, milliseconds by default, which no other rate divides.
        options["movie_timescale"] = str(sample_rate)
    out = av.open(opener.url(path), "w", format=container, options=options)
    out.metadata.update(tags or {})
    return out


def check_video(video: Tensor, fps: float) -> None:
    """Raises unless it is uint8 [F,3,H,W] at a rate that films have."""
    if video.dtype != torch.uint8 or video.ndim != 4 or video.shape[1] != 3 or not len(video):
        raise ValueError(f"video must be uint8 [F,3,H,W], got {video.dtype} {list(video.shape)}")
    height, width = video.shape[2:]
    if not height or not width:
        raise ValueError(f"height and width must be positive, got {height}x{width}")
    if not 0 < fps <= 1000:
        raise ValueError(f"fps must be in (0, 1000], got {fps}")


def check_audio(audio: Tensor) -> None:
    """Raises unless it is float [M] and finite."""
    if not audio.is_floating_point() or audio.ndim != 1 or not len(audio):
        raise ValueError(f"audio must be float [M], got {audio.dtype} {list(audio.shape)}")
    if not torch.isfinite(audio).all():
        raise ValueError("audio has values that are not finite")


def picture_stream(
    out: OutputContainer, codec: str, options: dict[str, str], size: tuple[int, int], rate: Fraction
) -> VideoStream:
    """A new stream of ``size`` (height, width) at ``rate`` frames/s, tagged BT.709."""
    stream = cast("VideoStream", out.add_stream(codec, rate=rate, options=options))
    stream.height, stream.width = size
    stream.pix_fmt = "yuv420p"
    stream.thread_count = 1  # the bytes of x264 depend on its number of threads
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _LIMITED_RANGE
    return stream


def sound_stream(out: OutputContainer, codec: str, sample_rate: int) -> AudioStream:
    """A new mono stream."""
    options = {"aac_pns": "0"} if codec == "aac" else {}
    added = out.add_stream(codec, rate=sample_rate, layout="mono", options=options)
    stream = cast("AudioStream", added)
    stream.bit_rate = min(192_000, 5 * sample_rate)
    return stream


def even(video_F3HW: Tensor) -> Tensor:
    """Even sizes, which pictures with half the colour's resolution need: the last row or column
    once more."""
    height, width = video_F3HW.shape[2:]
    if height % 2:
        video_F3HW = torch.cat([video_F3HW, video_F3HW[:, :, -1:]], 2)
    return torch.cat([video_F3HW, video_F3HW[..., -1:]], 3) if width % 2 else video_F3HW


def video(stream: VideoStream, video_F3HW: Tensor, rate: Fraction) -> Iterator[Timed]:
    """The packets of uint8 frames."""
    import av
    from av.video.reformatter import Interpolation

    flags = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP
    for index, pixels in enumerate(video_F3HW.permute(0, 2, 3, 1).contiguous().cpu().numpy()):
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
            format="yuv420p",
            dst_colorspace=_BT709,
            dst_color_range=_LIMITED_RANGE,
            interpolation=flags,
            threads=1,
        )
        frame.pts, frame.time_base = index, 1 / rate
        yield from cast("list[Timed]", stream.encode(frame))
    yield from cast("list[Timed]", stream.encode(None))


def audio(stream: AudioStream, audio_M: Tensor, sample_rate: int, align: bool) -> Iterator[Timed]:
    """The packets of float samples; ``align``: the sound ends exactly where its last frame does."""
    import av

    stream.codec_context.open()
    step = stream.codec_context.frame_size
    # A decoder trims whole samples at the start of an mp4 (its edit list) but only whole AAC frames
    # at its end. Silence before time zero, hidden by the edit list together with the encoder's own
    # priming, makes the last frame end exactly where the sound does.
    lead = -len(audio_M) % step if align else 0
    padded_M = torch.cat([audio_M.new_zeros(lead), audio_M])
    samples = padded_M.detach().cpu().float().clamp(-1, 1).numpy()
    packed = stream.codec_context.format.name == "flt"
    for first in range(0, len(samples), step):
        chunk = samples[None, first : first + step].copy()
        frame = av.AudioFrame.from_ndarray(chunk, format="flt" if packed else "fltp", layout="mono")
        frame.sample_rate, frame.pts = sample_rate, first - lead
        frame.time_base = Fraction(1, sample_rate)
        yield from cast("list[Timed]", stream.encode(frame))
    yield from cast("list[Timed]", stream.encode(None))
