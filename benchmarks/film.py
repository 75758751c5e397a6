"""Big Buck Bunny (CC-BY 3.0, Blender Foundation), fetched by package name and never committed.

The whole film, 596 s of 1280x720 at 24 fps with 44.1 kHz stereo sound, lies in a zip file inside
the source distribution of moviepy 2.2.1.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from syncflow import durable

PACKAGE = "moviepy==2.2.1"
FILM_SHA256 = "475fbbf34c4c367998f80c29ea03b15a743941179b12da3373fc6706e68621d0"
CACHE = Path("~/.cache/syncflow")
_ZIP, _MEMBER = "moviepy_10_minutes.zip", "moviepy_10_minutes/resources/bbb.mp4"


def cached(cache: Path = CACHE) -> Path | None:
    """The film in the folder ``cache``, or None where it is missing or not the film we know."""
    path = cache.expanduser() / "big_buck_bunny.mp4"
    return path if path.is_file() and sha256(path) == FILM_SHA256 else None


def fetch(cache: Path = CACHE) -> Path:
    """The film in the folder ``cache``, downloaded (58 MB) unless it is there.

    Raises:
        OSError: pip cannot get the package. ValueError: what it holds is another file.
    """
    found = cached(cache)
    if found is not None:
        return found
    cache = cache.expanduser()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        return extract(_download(Path(folder)), cache / "big_buck_bunny.mp4")


def _download(folder: Path) -> Path:
    # The name of the version is not enough: its wheel has no film, and an isolated build would
    # download setuptools only to read the name.
    options = ["--no-deps", "--no-binary", "moviepy", "--no-build-isolation", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True)
    files = list(folder.glob("*.tar.gz"))
    if done.returncode or not files:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = (lines or done.stderr.splitlines() or ["no output"])[-1].removeprefix("ERROR: ")
        raise OSError(f"pip cannot download {PACKAGE}, which holds the film: {reason}")
    return files[0]


def extract(sdist: Path, path: Path, expected: str = FILM_SHA256) -> Path:
    """Writes the film out of moviepy's source distribution to ``path``; returns it.

    Raises:
        ValueError: the archive holds no film, or one with another SHA-256 than ``expected``.
    """
    with tarfile.open(sdist) as archive:
        name = next((n for n in archive.getnames() if n.endswith("/" + _ZIP)), None)
        if name is None:
            raise ValueError(f"'{sdist.name}' holds no {_ZIP}")
        with (
            zipfile.ZipFile(archive.extractfile(name)) as inner,
            durable.replacing(path) as partial,
        ):
            with inner.open(_MEMBER) as source, partial.open("wb") as target:
                shutil.copyfileobj(source, target)
            got = sha256(partial)
            if got != expected:
                raise ValueError(f"the film in '{sdist.name}' has SHA-256 {got}, not {expected}")
    return path


def sha256(path: Path) -> str:
    """Of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
