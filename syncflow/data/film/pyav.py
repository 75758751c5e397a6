"""PyAV's objects as ``film`` has them, for type checkers alone: an open track and a decoded frame
always have a clock, which PyAV's own types leave open."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fractions import Fraction

    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.packet import Packet
    from av.stream import Stream
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    class PictureTrack(VideoStream):
        time_base: Fraction

    class SoundTrack(AudioStream):
        time_base: Fraction

    class Picture(VideoFrame):
        time_base: Fraction

    class Sound(AudioFrame):
        time_base: Fraction

    class Timed(Packet[Stream]):
        """A packet to be written."""

        pts: int
        dts: int
