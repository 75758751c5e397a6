"""How a clip was made, in the metadata of its file and back.

One JSON text as the comment and the prompt as the title: the two fields that every container here
has and every player shows.
"""

from __future__ import annotations

import json
from pathlib import Path

from syncflow.clip import Clip
from syncflow.data import media
from syncflow.data.export import formats
from syncflow.json_types import JsonObject

_KEY = "syncflow"  # the version; a comment without it is somebody else's


def of(clip: Clip) -> dict[str, str]:
    """Names and texts for a file's metadata; none where nothing is known."""
    if clip.made is None:
        return {}
    told = {"comment": json.dumps(clip.made, ensure_ascii=False, sort_keys=True)}
    if clip.prompt:
        told["title"] = clip.prompt.replace("\0", " ")  # where C ends a text
    # A command line of other bytes than UTF-8 gives what no file can hold.
    return {name: text.encode(errors="replace").decode() for name, text in told.items()}


def read(path: str | Path) -> JsonObject | None:
    """``Clip.made`` of the file ``path``; None where it says nothing of the kind.

    Raises:
        FileNotFoundError: no such file. ValueError: not a file that can be read.
    """
    return parse(facts(path).get("comment"))


def parse(comment: object) -> JsonObject | None:
    """The JSON object of a comment, if it is one of ours."""
    try:
        found = json.loads(comment) if isinstance(comment, str) else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and _KEY in found else None


def facts(path: str | Path) -> dict[str, str | None]:
    """What a file says about itself, by name, and its "comment".

    Raises:
        FileNotFoundError: no such file. ValueError: not a file that can be read.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such file: '{path}'")
    if not path.is_file():
        raise ValueError(f"'{path}' is not a file")
    ending = path.suffix.lower()
    if ending in formats.SOUNDS:
        return _of_sound(path)
    return _of_picture(path) if ending in formats.PICTURES else _of_film(path)


def _of_film(path: Path) -> dict[str, str | None]:
    info = media.probe(path)
    sound = f"{info.audio_codec}, {info.sample_rate} Hz, {info.channels} channels"
    return {
        "container": info.container,
        "length": f"{info.seconds:g} s",
        "picture": f"{info.video_codec}, {info.width}x{info.height} at {info.fps:g} fps",
        "sound": sound if info.audio_codec else None,
        "title": info.tags.get("title"),
        "comment": info.tags.get("comment"),
    }


def _of_sound(path: Path) -> dict[str, str | None]:
    import av

    container = path.suffix.lower()[1:]
    try:
        # The format by its name, so that no other opens other files.
        with av.open(f"file:{path}", format=container) as source:
            sound, told = source.streams.audio[0], dict(source.metadata)
            length = None
            if sound.duration is not None and sound.time_base is not None:
                length = float(sound.duration * sound.time_base)
            codec, rate = sound.codec_context.name, sound.rate
        if not rate:  # anything at all can be opened as flac
            raise IndexError
    except (av.FFmpegError, OSError, IndexError) as error:
        raise ValueError(f"'{path}' is not a {container} file, or it is damaged") from error
    told = {name.lower(): text for name, text in told.items()}
    return {
        "container": container,
        "length": None if length is None else f"{length:g} s",
        "sound": f"{codec}, {rate} Hz",
        "title": told.get("title"),
        "comment": told.get("comment"),
    }


def _of_picture(path: Path) -> dict[str, str | None]:
    from PIL import Image, UnidentifiedImageError

    kind = path.suffix.upper()[1:]
    try:
        with Image.open(path, formats=[kind]) as image:
            size, told = image.size, dict(image.info)
            count = getattr(image, "n_frames", 1)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError) as error:
        raise ValueError(f"'{path}' is not a {kind.lower()} file, or it is damaged") from error
    comment = told.get("comment", told.get("Comment"))
    if isinstance(comment, bytes):
        comment = comment.decode("utf-8", "replace")
    return {
        "container": kind.lower(),
        "picture": f"{size[0]}x{size[1]}" + (f", {count} frames" if count > 1 else ""),
        "title": told.get("Title"),
        "comment": comment,
    }
