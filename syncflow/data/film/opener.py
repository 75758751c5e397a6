"""The one place where files of people are opened: films by FFmpeg, images by Pillow.

A file decides by its contents which reader it gets, and some readers follow what the contents
name: playlists, lists of files, numbered images, addresses. So only formats that hold their
pictures themselves are read, from one regular file, by no protocol but ``file``.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from syncflow.data.film.limits import MOST_PIXELS, MOST_STREAMS

if TYPE_CHECKING:
    from av.container import InputContainer
    from PIL.Image import Image as Picture


#: FFmpeg's names of containers that hold pictures, and of those that hold sound alone, so that a
#: song is told apart from what is no medium at all.
FORMATS = (
    "mov", "matroska", "mpegts", "mpeg", "avi", "asf", "flv", "ogg", "gif", "apng", "mxf", "nut",
    "ivf", "obu", "h264", "hevc", "m4v", "mpegvideo", "mjpeg", "vc1", "dv", "rm", "wtv",
    "yuv4mpegpipe", "wav", "mp3", "flac", "aac", "ac3", "aiff", "amr", "caf",
)  # fmt: skip
#: Endings of their usual names: where a folder is searched for films, or for sounds too.
FILM_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg",
    ".wmv", ".flv", ".gif",
)  # fmt: skip
SOUND_SUFFIXES = (
    ".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".ac3", ".aif", ".aiff",
    ".caf",
)  # fmt: skip
#: Pillow's names. Not all that it reads: it hands some (EPS) to another program.
IMAGES = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM")
#: How lists of other files begin.
_LISTS = (b"#EXTM3U", b"ffconcat", b"<?xml", b"<MPD", b"[playlist]", b"[reference]")

#: Codecs of which FFmpeg cannot tell from the packets alone in what order they are shown.
_REORDERING = ("h264", "hevc", "vvc")


def url(path: str | Path) -> str:
    """FFmpeg's name of a local file, whatever its name looks like (``concat:a``, ``-i``)."""
    return f"file:{path}"


def regular(path: str | Path, what: str = "file") -> Path:
    """The path, if a regular file is there; a pipe or a device would wait or never end.

    Raises:
        FileNotFoundError: nothing there. PermissionError. ValueError: no regular file.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except PermissionError:
        raise PermissionError(f"no permission to read '{path}'") from None
    except OSError as error:
        raise FileNotFoundError(f"no such {what}: '{path}'") from error
    if stat.S_ISDIR(mode):
        raise ValueError(f"'{path}' is a folder, not a media file")
    if not stat.S_ISREG(mode):
        raise ValueError(f"'{path}' is a pipe or a device, not a file: save what it gives first")
    return path


@contextmanager
def film(path: str | Path, fill_times: bool = False) -> Iterator[InputContainer]:
    """The open container (``av.container.InputContainer``) of a film, or of a sound alone: which
    tracks there are, ``tracks`` says. ``fill_times``: packets that do not say when they are shown
    get a time from those around them where that is certain.

    Raises:
        ValueError: not a film or sound of ``FORMATS``, damaged, or of too many tracks. As
            ``regular``.
    """
    import av
    from av.container import Flags

    path = regular(path)
    options = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"}
    try:
        source = av.open(url(path), container_options=options, metadata_errors="replace")
    except PermissionError as error:
        raise PermissionError(f"no permission to read '{path}'") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        raise ValueError(_why_not(path)) from error
    with source:
        # On by default in PyAV, and wrong for these codecs: H.264 in an avi would be shown in the
        # order of its packets.
        known = [track for track in source.streams.video if track.codec_context is not None]
        reordering = any(track.codec.canonical_name in _REORDERING for track in known)
        if not fill_times or reordering:
            source.flags &= ~cast(int, Flags.gen_pts.value)
        if len(source.streams) > MOST_STREAMS:
            raise ValueError(
                f"'{path}' has {len(source.streams)} tracks, more than {MOST_STREAMS}: "
                "copy the one that is meant to a file of its own"
            )
        yield source


@contextmanager
def decoding(path: str | Path) -> Iterator[None]:
    """Errors of FFmpeg, while the file ``path`` is decoded, are ValueErrors that name it."""
    import av

    try:
        yield
    except av.FFmpegError as error:
        raise ValueError(
            f"cannot decode '{path}', it is damaged or cut short: {error.strerror}"
        ) from error


def _why_not(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(_LISTS):
        return f"'{path}' is a list of other files, not a film: give the film that it names"
    return f"'{path}' is not a media file of a known format, or it is truncated"


def image(path: str | Path) -> Picture | None:
    """The upright RGB picture (``PIL.Image.Image``) of an image file; None where it is no image,
    but may be a film.

    Raises:
        ValueError: too large, or damaged. As ``regular``.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    path = regular(path, "image")
    Image.init()
    known = [name for name in IMAGES if name in Image.OPEN]  # AVIF depends on how it was built
    try:
        with Image.open(path, formats=known) as found:
            if found.width * found.height > MOST_PIXELS:
                raise ValueError(
                    f"'{path}' has {found.width}x{found.height} pixels, more than "
                    f"{MOST_PIXELS / 1e6:.0f} million: make it smaller"
                )
            return ImageOps.exif_transpose(found).convert("RGB")
    except UnidentifiedImageError:
        return None
    except PermissionError:
        raise PermissionError(f"no permission to read '{path}'") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read the image '{path}': {error}") from error
