"""Weights of other projects as they are found: a file, a folder, a hub id; never executed."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from syncflow.json_types import JsonObject
from syncflow.model_io import hub

_SAFE, _INDEX = ".safetensors", ".index.json"
_PICKLES = tuple(pattern.removeprefix("*") for pattern in hub.PICKLES)
_LICENSE = re.compile(r"\A---\s*\n(?:.*\n)*?license:\s*(\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Source:
    """Where weights lie on this disk and where they came from."""

    #: What the user named, with the commit where it is a hub's.
    name: str
    folder: Path
    #: The weight files, in order.
    files: tuple[Path, ...]
    #: Hub id and commit, or None.
    repo_id: str | None = None
    revision: str | None = None

    @property
    def is_pickled(self) -> bool:
        """Whether it is a PyTorch file and not safetensors."""
        return self.files[0].suffix in _PICKLES

    @property
    def config(self) -> JsonObject:
        """The config.json beside the weights; of a run of this package, what its weights say of
        their model; or nothing."""
        path = self.folder / "config.json"
        if not path.is_file():
            return self._of_run()
        try:
            return dict(json.loads(path.read_text()))
        except (ValueError, TypeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a JSON object: {error}") from None

    def _of_run(self) -> JsonObject:
        if self.files[0].suffix != _SAFE:
            return {}
        try:
            with safe_open(self.files[0], "pt") as file:
                said = json.loads((file.metadata() or {}).get("config", "{}"))
            return dict(said.get("model", {}))
        except (SafetensorError, ValueError, TypeError, AttributeError, OSError):
            return {}  # whoever reads the weights says what is wrong with them

    @property
    def license(self) -> str | None:
        """As the README beside the weights says, where it does."""
        path = self.folder / "README.md"
        found = _LICENSE.match(path.read_text(errors="replace")) if path.is_file() else None
        return found.group(1).strip("'\"") if found else None

    def shards(self) -> Iterator[dict[str, Tensor]]:
        """The tensors of one file after another, mapped from disk where the format allows it."""
        for path in self.files:
            yield _read_pickle(path) if path.suffix in _PICKLES else _read_safetensors(path)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by key.

        Raises:
            ValueError: a file is damaged or no checkpoint, or two shards hold the same key.
        """
        merged: dict[str, Tensor] = {}
        for path, shard in zip(self.files, self.shards(), strict=True):
            for key in shard:
                if key in merged:
                    raise ValueError(f"{path} holds the key {key}, which another shard has too")
            merged.update(shard)
        return merged


def locate(source: str | Path, what: str, allow_pickle: bool = False) -> Source:
    """Finds weights; downloads them where ``source`` is a hub id.

    Args:
        source: a file (safetensors, an index of shards, a torch pickle), a folder with one of
            them, or a hub id, owner/name or owner/name@revision.
        what: they should be, for messages.
        allow_pickle: whether pickles may be read, tensors alone (``weights_only``).

    Raises:
        FileNotFoundError: no such file, or a shard is missing. OSError: the hub does not give it.
        ValueError: it is a pickle and those are not allowed, or it cannot be told which file.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return _at(str(source), path.parent, _files(path), allow_pickle)
    if path.is_dir():
        return _at(str(source), path, _files(_choose(path, what)), allow_pickle)
    repo_id, _, revision = str(source).partition("@")
    if not hub.is_id(repo_id):
        raise FileNotFoundError(
            f"no {what} at '{source}': it is neither a file, a folder nor a hub id"
        )
    folder = hub.fetch(repo_id, revision or None, what=what)
    if allow_pickle and not any(folder.glob(f"*{_SAFE}")):
        folder = hub.fetch(repo_id, folder.name, (*hub.DATA, *hub.PICKLES), what)
    try:
        files = _files(_choose(folder, what))
    except FileNotFoundError:
        if allow_pickle or any(folder.glob(f"*{_SAFE}")):
            raise
        raise FileNotFoundError(
            f"{repo_id} has no safetensors; if it has PyTorch pickles, --allow-pickle reads them"
        ) from None
    name = f"{repo_id}@{folder.name}"
    return _at(name, folder, files, allow_pickle, repo_id, folder.name)


def _at(
    name: str,
    folder: Path,
    files: tuple[Path, ...],
    allow_pickle: bool,
    repo_id: str | None = None,
    revision: str | None = None,
) -> Source:
    source = Source(name, folder, files, repo_id, revision)
    if source.is_pickled and not allow_pickle:
        raise ValueError(
            f"{files[0]} is a PyTorch pickle, a format that can run code when it is read; "
            "--allow-pickle reads only the tensors in it"
        )
    return source


def _choose(folder: Path, what: str) -> Path:
    """The one file of a folder that stands for its weights, safetensors before pickles."""
    for endings in ((_SAFE,), _PICKLES):
        for ending in endings:
            indices = sorted(folder.glob(f"*{ending}{_INDEX}"))
            if len(indices) == 1:
                return indices[0]
        found = sorted(p for p in folder.iterdir() if p.suffix in endings and p.is_file())
        named = [p for p in found if p.stem in ("model", "diffusion_pytorch_model")]
        found = named if len(named) == 1 else found
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(p.name for p in found[:5])
            raise ValueError(f"which of {names} in '{folder}' is the {what}? name the file")
    raise FileNotFoundError(f"no {what} in '{folder}': it holds no safetensors and no pickles")


def _files(path: Path) -> tuple[Path, ...]:
    if not path.name.endswith(_INDEX):
        if path.suffix not in (_SAFE, *_PICKLES):
            raise ValueError(
                f"{path} is neither safetensors nor a PyTorch pickle "
                f"({', '.join((_SAFE, *_PICKLES))})"
            )
        return (path,)
    try:
        names = sorted(set(json.loads(path.read_text())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, UnicodeDecodeError):
        raise ValueError(f"{path} is not a shard index: it has no weight_map") from None
    shards = []
    for name in names:
        # An index comes from outside: it may name its neighbours and nothing else.
        if not isinstance(name, str) or Path(name).name != name:
            raise ValueError(f"{path} names a shard outside its folder: {name!r}")
        if Path(name).suffix not in (_SAFE, *_PICKLES):
            raise ValueError(f"{path} names a shard that holds no weights: {name!r}")
        shards.append(path.with_name(name))
    missing = [shard.name for shard in shards if not shard.is_file()]
    if not shards or missing:
        raise FileNotFoundError(
            f"{path} names {len(shards)} shards; missing: {', '.join(missing) or 'all'}"
        )
    return tuple(shards)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        with path.open("rb") as file:
            start = file.read(40)
        if start.startswith(b"version https://git-lfs"):
            raise ValueError(
                f"{path} is a git-lfs pointer, not the file itself; fetch it with git lfs pull"
            ) from None
        raise ValueError(f"{path} is damaged or not safetensors: {error}") from None


def why_unread(error: Exception) -> str:
    """One line of why ``torch.load`` read no tensors. Its own advice, to read without the check
    that keeps code out, is left away."""
    reason = (str(error) or type(error).__name__).splitlines()[0]
    if "weights_only" not in reason:
        return reason
    return "it holds code (TorchScript or pickled objects); save its state dict as safetensors"


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        try:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # files of before PyTorch 1.6 cannot be mapped
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path} holds more than tensors, possibly code; it was not loaded"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path} is damaged or not a PyTorch checkpoint: {why_unread(error)}"
        ) from None
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not all(torch.is_tensor(v) for v in found.values()):
        raise ValueError(f"{path} is not a state dict: its values are not all tensors")
    return found
