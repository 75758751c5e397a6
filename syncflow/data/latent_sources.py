"""Where the shards of finished latents lie: in a folder, or in an object store that fsspec knows
(``s3://``, ``gs://``, ``hf://``), of which they are copied here one by one when they are read.

A copy is checked bit for bit before it has its name, is shared by all processes of a machine, and
belongs to one manifest: latents that are made anew under the same address are fetched anew.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

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

    def fetch(self, entry: ShardLine, is_open: Callable[[Path], bool]) -> Path:
        """The file of a shard of the manifest, here; those that are open are not removed."""
        return self.folder / entry["file"]


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
        self.folder.mkdir(parents=True, exist_ok=True)
        with durable.replacing(self.folder / MANIFEST) as partial:
            partial.write_bytes(raw)
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

    def fetch(self, entry: ShardLine, is_open: Callable[[Path], bool]) -> Path:
        path = self.folder / entry["file"]
        if not path.exists():
            with lock.held(self.folder / f".{path.stem}.lock", wait=True):
                if not path.exists():
                    self._make_room(self._sizes[path.name], is_open)
                    self._retried(lambda: self._copy(path, entry.get("header")))
        os.utime(path)  # the one that was read last
        return path

    def _copy(self, path: Path, header: str | None) -> None:
        with durable.replacing(path) as partial:
            self.files.get_file(f"{self.root}/{path.name}", str(partial))
            try:
                Shard(partial, header).verify()
            except ValueError as error:
                reason = str(error).replace(str(partial), path.name)
                raise _Damaged(f"'{self.url}/{path.name}' cannot be used: {reason}") from None

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


class OpenShards:
    """The shards of a folder by their numbers, opened once: all at first, or where they are copied
    each when it is read, by whichever thread.

    Args:
        place: of the shards.
        check: raises ValueError for one that does not belong to the others.
    """

    def __init__(self, place: Folder, check: Callable[[Shard], None]) -> None:
        self.place, self.check = place, check
        self.entries: list[ShardLine] = place.manifest["shards"]
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._lock = threading.Lock()
        self._opening = [threading.Lock() for _ in self.entries]
        for number in range(1 if place.lazy else len(self.entries)):
            self[number]

    def __getitem__(self, number: int) -> Shard:
        with self._opening[number]:
            with self._lock:
                shard = self._open.get(number)
                if shard is not None:
                    self._open.move_to_end(number)
                    return shard
            shard = self._opened(self.entries[number])
            with self._lock:
                self._open[number] = shard
                self._close_some()
            return shard

    def _opened(self, entry: ShardLine) -> Shard:
        for _ in range(3):
            path = self.place.fetch(entry, self._is_open)
            try:
                shard = Shard(path, entry.get("header"))
                break
            except FileNotFoundError:  # another process needed the room
                if not self.place.lazy:
                    raise
        else:
            raise OSError(f"'{path}' is removed as soon as it is there: raise cache.gib")
        if len(shard.tensors["video_mean"]) != entry["count"]:
            raise ValueError(
                f"'{path}' does not have the {entry['count']} rows that its manifest lists"
            )
        self.check(shard)
        return shard

    def _is_open(self, path: Path) -> bool:
        with self._lock:
            return any(shard.path == path for shard in self._open.values())

    def _close_some(self) -> None:
        """Lets go of those that were not read for longest, beyond what may be open."""
        while len(self._open) > 1:
            sizes = [sum(v.nbytes for v in shard.tensors.values()) for shard in self._open.values()]
            if sum(sizes) <= self.place.most_open:
                return
            self._open.popitem(last=False)


def _retried(url: str, function: Callable[[], Result]) -> Result:
    """What a store may fail at for a moment."""
    for wait in (*_WAITS, None):
        try:
            return function()
        except (FileNotFoundError, PermissionError):
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
