"""Where the shards of finished latents lie: in a folder, or in an object store that fsspec knows
(``s3://``, ``gs://``, ``hf://``), of which they are copied here one by one when they are read.

A copy is checked bit for bit before it has its name and once by every process that reads it, is
shared by all processes of a machine, and belongs to one manifest: latents that are made anew under
the same address are fetched anew. So is a copy that is damaged; one that is whole is read wherever
it may be read, whoever owns it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from syncflow import durable, extras
from syncflow.config import paths
from syncflow.data import lock, manifest
from syncflow.data.latent_rows import Shard
from syncflow.data.manifest import MANIFEST, ShardLine

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

Result = TypeVar("Result")
#: Seconds before another try where a store does not answer.
_WAITS = (1.0, 2.0, 4.0, 8.0)
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
_GIB = 2**30
# No store answers so: where a copy cannot be written, it is for want of room here.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


@dataclass(frozen=True)
class Cache:
    """Where copies are kept (None: ``latents`` in syncflow's cache), and how many GiB of them:
    beyond that, those that were not read for longest are removed."""

    folder: Path | None = None
    gib: float | None = None

    def place(self) -> Path:
        """The folder; ValueError where there is to be none."""
        found = self.folder or paths.cache("latents")
        if found is None:
            raise ValueError("SYNCFLOW_CACHE is empty; name a folder (cache.folder in a config)")
        return found.expanduser()


def is_remote(folder: str | Path) -> bool:
    """Whether latents are named by a URL."""
    return "://" in str(folder)


def is_finished(url: str) -> bool:
    """Whether a store has finished latents there.

    Raises:
        ValueError: no store has such addresses. OSError: it cannot be read.
    """
    files, root = _filesystem(url.rstrip("/"))
    return bool(_retried(url, lambda: files.exists(f"{root}/{MANIFEST}")))


def open_folder(folder: str | Path, cache: Cache | None = None) -> Folder:
    """Finished latents, wherever they are.

    Raises:
        FileNotFoundError: there are none. ValueError: their manifest is damaged, or no store has
            such addresses. OSError: they cannot be read.
        ModuleNotFoundError: a package is needed; the message names it.
    """
    if is_remote(folder):
        return RemoteFolder(str(folder), cache or Cache())
    return Folder(Path(folder))


class Folder:
    """Latents on a disk of this machine, or one that it sees as such."""

    #: Whether shards are opened only when they are read.
    lazy = False
    #: Bytes of shards that may be open at once.
    most_open: float = float("inf")

    def require_room(self) -> None:
        """Raises ValueError where all shards cannot be here at once."""

    def __init__(self, folder: Path) -> None:
        if not (folder / MANIFEST).exists():
            raise FileNotFoundError(f"no finished latents in {folder} (no {MANIFEST})")
        self.folder, self.manifest = folder, manifest.read(folder)

    def open(self, entry: ShardLine, is_open: Callable[[Path], bool]) -> Shard:
        """A shard of the manifest; where room is made for it, those that are open stay.

        Raises:
            ValueError: it is damaged. OSError: it cannot be read, or copied to this machine.
        """
        return Shard(self.folder / entry["file"], entry.get("header"))


class RemoteFolder(Folder):
    """Latents in an object store."""

    lazy = True

    def __init__(self, url: str, cache: Cache) -> None:
        self.url, self.cache = url.rstrip("/"), cache
        self.files, self.root = _filesystem(self.url)
        try:
            raw = self._retried(lambda: self.files.cat_file(f"{self.root}/{MANIFEST}"))
        except FileNotFoundError:
            raise FileNotFoundError(f"no finished latents in {url} (no {MANIFEST})") from None
        digest = hashlib.sha256(self.url.encode() + raw).hexdigest()[:32]
        self.folder = cache.place() / digest
        self._keep_manifest(raw)
        self._verified: set[str] = set()
        try:
            self.manifest = manifest.read(self.folder)
        except ValueError as error:
            path = self.folder / MANIFEST
            raise ValueError(str(error).replace(str(path), f"{self.url}/{MANIFEST}")) from None
        self._sizes = self._listed()
        if cache.gib is not None:
            self.most_open = cache.gib * _GIB / 2

    def require_room(self) -> None:
        total, most = sum(self._sizes.values()) / _GIB, self.cache.gib
        if most is not None and total > most:
            raise ValueError(
                f"{self.url} has {total:.3g} GiB and cache.gib is {most:g}: raise it, or set "
                "shuffle_shards, so that an epoch needs so many shards at a time"
            )

    def _listed(self) -> dict[str, int]:
        """Bytes of every shard; ValueError where one is missing."""
        found = self._retried(lambda: self.files.ls(self.root, detail=True))
        sizes = {entry["name"].rpartition("/")[2]: entry["size"] or 0 for entry in found}
        names = [entry["file"] for entry in self.manifest["shards"]]
        missing = [name for name in names if name not in sizes]
        if missing:
            raise ValueError(f"'{self.url}/{missing[0]}' is missing, and {MANIFEST} lists it")
        return {name: sizes[name] for name in names}

    def open(self, entry: ShardLine, is_open: Callable[[Path], bool]) -> Shard:
        path, header = self.folder / entry["file"], entry.get("header")
        for _ in range(3):
            shard = self._whole(path, header)
            if shard is None:
                self._fetch(path, header, is_open)
                shard = self._whole(path, header)
            if shard is not None:
                with suppress(OSError):  # another user's, or no longer there: open all the same
                    os.utime(path)  # the one that was read last
                return shard
        raise OSError(f"'{path}' is removed as soon as it is there: raise cache.gib")

    def _whole(self, path: Path, header: str | None) -> Shard | None:
        """A copy; None where there is none, or a damaged one. Opening it tells a cut one, always;
        all of it is read once by a process."""
        try:
            shard = Shard(path, header)
            if path.name not in self._verified:
                shard.verify()
        except (FileNotFoundError, ValueError):
            return None
        self._verified.add(path.name)
        return shard

    def _fetch(self, path: Path, header: str | None, is_open: Callable[[Path], bool]) -> None:
        """Copies a shard, in place of a damaged copy, unless another process has done so."""
        with ExitStack() as stack:
            with self._writing():
                stack.enter_context(lock.held(self.folder / f".{path.stem}.lock", wait=True))
            if self._whole(path, header) is not None:
                return
            with self._writing():
                self._make_room(self._sizes[path.name], is_open)
            self._retried(lambda: self._copy(path, header))
            self._verified.add(path.name)

    def _copy(self, path: Path, header: str | None) -> None:
        try:
            with self._writing(), durable.replacing(path) as partial:
                try:
                    self.files.get_file(f"{self.root}/{path.name}", str(partial))
                except Exception as error:
                    if _is_of_disk(error, partial):
                        raise
                    raise _OfStoreError from error
                try:
                    Shard(partial, header).verify()
                except ValueError as error:
                    reason = str(error).replace(str(partial), path.name)
                    raise _Damaged(f"'{self.url}/{path.name}' cannot be used: {reason}") from None
        except _OfStoreError as error:
            raise cast(Exception, error.__cause__) from None

    def _keep_manifest(self, raw: bytes) -> None:
        """Writes the copy of the manifest, unless it is there: a cache may be for reading alone."""
        path = self.folder / MANIFEST
        with suppress(OSError):
            if path.read_bytes() == raw:
                return
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            with durable.replacing(path) as partial:
                partial.write_bytes(raw)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Errors of the disk are told as such, with the folder of the copies."""
        try:
            yield
        except OSError as error:
            raise _CacheError(
                f"copies of latents cannot be written to '{self.folder.parent}': "
                f"{error.strerror or error}; make room there or name another folder "
                "(cache.folder in a config)"
            ) from error

    def _make_room(self, size: int, is_open: Callable[[Path], bool]) -> None:
        """Removes copies, of whichever latents, until ``size`` bytes more are within the limit."""
        if self.cache.gib is None:
            return
        there = []
        for path in self.cache.place().glob("*/shard_*.safetensors"):
            try:
                there.append((path.stat().st_mtime_ns, path.stat().st_size, path))
            except FileNotFoundError:  # another process has removed it
                continue
        used = sum(each for _, each, _ in there) + size
        for _, each, path in sorted(there):
            if used <= self.cache.gib * _GIB:
                return
            if not is_open(path):
                path.unlink(missing_ok=True)
                used -= each

    def _retried(self, function: Callable[[], Result]) -> Result:
        return _retried(self.url, function)


class _Damaged(Exception):
    """A copy is not what the manifest says, once more or for good."""


class _OfStoreError(Exception):
    """What the store raised is its cause: between the disk's errors it must not look like one."""


class _CacheError(OSError):
    """This machine cannot keep a copy; asking the store again does not help."""


def _is_of_disk(error: Exception, path: Path) -> bool:
    """Whether copying to ``path`` failed at this end: no room, or a file that cannot be made."""
    if not isinstance(error, OSError):
        return False
    return error.errno in _NO_ROOM or error.filename == str(path)


def _retried(url: str, function: Callable[[], Result]) -> Result:
    """What a store may fail at for a moment."""
    for wait in (*_WAITS, None):
        try:
            return function()
        except (FileNotFoundError, PermissionError, _CacheError):
            raise
        except Exception as error:  # every store's client has errors of its own
            if wait is None:
                if isinstance(error, _Damaged):
                    raise ValueError(str(error)) from None
                reason = " ".join(str(error).split()) or type(error).__name__
                raise OSError(f"'{url}' cannot be read: {reason}") from error
        time.sleep(wait)
    raise AssertionError  # the last try returns or raises


def _filesystem(url: str) -> tuple[AbstractFileSystem, str]:
    """The store of a URL, and what it calls the folder."""
    protocol = url.partition("://")[0]
    package = _PACKAGES.get(protocol)
    if package is not None:
        extras.need(package, f"latents in {protocol}:// need {package}")
    extras.need("fsspec", "latents in an object store need fsspec")
    from fsspec.core import url_to_fs

    try:
        files, root = url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise ValueError(f"'{url}' is in no store that can be read: {error}") from None
    return files, root.rstrip("/")
