"""Which tracks of an open file are the film and its sound, as a player chooses them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from syncflow.data.film.limits import MOST_PIXELS

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.stream import VideoStream

    from syncflow.data.film.pyav import PictureTrack, SoundTrack


def picture(source: InputContainer, path: object) -> PictureTrack:
    """The film: a video track that is no cover; the default one, then the largest.

    Raises:
        ValueError: there is none, it cannot be decoded, or its pictures are too large.
    """
    from av.stream import Disposition

    still = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails
    films = [track for track in source.streams.video if not track.disposition & still]
    if not films:
        covers = "; the picture in it is a cover" if source.streams.video else ""
        raise ValueError(f"'{path}' has no video stream{covers}")
    known = [track for track in films if track.codec_context is not None]
    if not known:
        raise ValueError(f"'{path}' has video in a format that there is no decoder for")
    chosen = max(known, key=lambda t: (bool(t.disposition & Disposition.default), _pixels(t)))
    if _pixels(chosen) > MOST_PIXELS:
        raise ValueError(
            f"'{path}' says its pictures have {chosen.width}x{chosen.height} pixels, more than "
            f"{MOST_PIXELS / 1e6:.0f} million"
        )
    return cast("PictureTrack", chosen)


def sound(source: InputContainer) -> SoundTrack | None:
    """The default sound track, else the one of most channels, else None. Tracks that describe the
    picture to the blind, or that no decoder knows, come last or not at all."""
    from av.stream import Disposition

    aside = Disposition.visual_impaired | Disposition.hearing_impaired | Disposition.comment
    known = [track for track in source.streams.audio if track.codec_context is not None]

    def rank(track: AudioStream) -> tuple[bool, bool, int]:
        place = track.disposition
        return bool(place & Disposition.default), not place & aside, track.channels or 0

    return cast("SoundTrack | None", max(known, key=rank, default=None))


def _pixels(track: VideoStream) -> int:
    return (track.width or 0) * (track.height or 0)
