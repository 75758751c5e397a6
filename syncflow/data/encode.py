"""Pictures and sound into the packets of a file: encoded, or copied from another file.

``media`` opens and closes the files; its counterpart for reading is ``decode``.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

_BT709, _LIMITED_RANGE = 1, 1  # ITU-T H.273, and FFmpeg's AVColorRange


def picture_stream(out: Any, codec: str, options: dict[str, str], size: Any, rate: Any) -> Any:
    """A new stream of ``size`` (height, width) at ``rate`` frames/s, tagged BT.709."""
    stream = out.add_stream(codec, rate=rate, options=options)
    stream.height, stream.width = size
    stream.pix_fmt = "yuv420p"
    stream.thread_count = 1  # the bytes of x264 depend on its number of threads
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _LIMITED_RANGE
    return stream


def sound_stream(out: Any, codec: str, sample_rate: int) -> Any:
    """A new mono stream."""
    options = {"aac_pns": "0"} if codec == "aac" else {}
    stream = out.add_stream(codec, rate=sample_rate, layout="mono", options=options)
    stream.bit_rate = min(192_000, 5 * sample_rate)
    return stream


def video(stream: Any, video_F3HW: Tensor, rate: Fraction) -> Iterator[Any]:
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
        yield from stream.encode(frame)
    yield from stream.encode(None)


def audio(stream: Any, audio_M: Tensor, sample_rate: int, align: bool) -> Iterator[Any]:
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
        yield from stream.encode(frame)
    yield from stream.encode(None)


def copied(source: Any, stream: Any, until: float | None) -> list[Any]:
    """The packets of the picture of ``source`` for ``stream``, its first picture at time zero.

    ``until``: only what is needed for the pictures before that second. Those are whole groups in
    decoding order, so a few later pictures may come along where the kept ones refer to them.
    """
    picture = source.streams.video[0]
    packets = [packet for packet in source.demux(picture) if packet.size]
    if not packets:
        raise ValueError("the file has no video frame")
    for packet in packets:
        if packet.pts is None:
            packet.pts = packet.dts
    if any(packet.dts is None for packet in packets):  # mkv does not keep them
        order = sorted(packet.pts for packet in packets)
        pairs = list(zip(order, packets, strict=True))
        delay = max(time - packet.pts for time, packet in pairs)
        for time, packet in pairs:
            packet.dts = time - delay
    origin = min(packet.pts for packet in packets)
    if until is not None:
        end = origin + float(until / picture.time_base) - 1e-3
        last = max(i for i, packet in enumerate(packets) if packet.pts < end)
        packets = packets[: last + 1]
    for packet in packets:
        packet.pts -= origin
        packet.dts -= origin
        packet.stream = stream
    return packets
