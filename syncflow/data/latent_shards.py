"""Latents on disk: a folder of safetensors shards, each there whole or not at all.

    manifest.json             there = finished: count, geometry, encoder hashes, statistics, shards
    shard_00000.safetensors   rows: video_mean, video_std, audio_mean, audio_std [N, ...] float16;
                              captions: text [sum of lengths, E] float16, text_bounds [U+1] and
                              text_of [N] int64; in the header, one record per row
    .work/                    parts of shards that are not complete yet

A part is one encoded batch. It is written under another name, flushed and renamed, so that a run
which is killed at any moment loses the batch it was working on and nothing else; when the last
part of a shard is there, the parts are joined and removed. Which clips are in which part is fixed
beforehand: any number of processes, cut off any number of times, write the same bytes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from syncflow import plain_text
from syncflow.data import lock, manifest
from syncflow.data.manifest import MANIFEST, Header

POSTERIORS = ("video_mean", "video_std", "audio_mean", "audio_std")
Lines = Sequence[dict[str, Any]]
_WORK, _HEADER = ".work", "syncflow"
#: The axis of the channels in a row's video [Cz,T,h,w] and audio [A,D], counted with the rows.
_CHANNEL_AXIS = {"video": 1, "audio": 2}


@dataclass
class Rows:
    """Encoded clips: ``arrays`` of posteriors [N, ...], ``texts`` caption -> [L,E], one record a
    row (with its caption) in ``records``, and what was looked at and left out in ``skipped``."""

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    texts: dict[str, np.ndarray] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)


def join(parts: Sequence[Rows]) -> Rows:
    """The rows of several, in order; a caption that several have is kept once."""
    out = Rows()
    for part in parts:
        out.records += part.records
        out.skipped += part.skipped
        for caption, text in part.texts.items():
            out.texts.setdefault(caption, text)
    for name in POSTERIORS:
        values = [part.arrays[name] for part in parts if part.records]
        if values:
            out.arrays[name] = np.concatenate(values)
    return out


def write(path: Path, rows: Rows) -> None:
    """Writes ``rows`` to ``path``: complete on the disk, or not there."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(value) for name, value in rows.arrays.items()}
    if rows.records:
        number = {caption: index for index, caption in enumerate(rows.texts)}
        lengths = [len(text) for text in rows.texts.values()]
        arrays["text"] = np.concatenate(list(rows.texts.values()))
        arrays["text_bounds"] = np.cumsum([0, *lengths], dtype=np.int64)
        arrays["text_of"] = np.array([number[r["caption"]] for r in rows.records], dtype=np.int64)
    header = {"records": rows.records, "skipped": rows.skipped, "sums": _sums(rows)}
    # One entry: the order in which the library writes several is another one every time.
    said = {_HEADER: json.dumps(header, ensure_ascii=False)}
    with _replacing(path) as partial:
        partial.write_bytes(save(arrays, metadata=said))


def write_json(path: Path, value: Any) -> None:
    """The same for a JSON file."""
    with _replacing(path) as partial:
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        partial.write_text(text, encoding="utf-8")


def write_lines(path: Path, values: Sequence[dict[str, Any]]) -> None:
    """The same for a JSON object per line."""
    with _replacing(path) as partial:
        lines = [json.dumps(value, ensure_ascii=False) + "\n" for value in values]
        partial.write_text("".join(lines), encoding="utf-8")


class Shard:
    """A shard, or part, opened for reading: tensors are memory-mapped.

    Raises:
        ValueError: the file is damaged, or its tensors do not fit each other.
    """

    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self.path = path
        try:
            with safe_open(path, framework="pt") as file:
                self._header = (file.metadata() or {}).get(_HEADER)
                self.tensors: dict[str, Tensor] = {k: file.get_tensor(k) for k in file.keys()}
        except SafetensorError as error:
            raise self._damaged(str(error)) from None
        if self._header is None:
            raise self._damaged("its header says nothing of its rows")
        self._check_rows()

    def _damaged(self, reason: str) -> ValueError:
        return ValueError(f"'{self.path}' is damaged ({reason}); delete it to make it again")

    def _check_rows(self) -> None:
        """All tensors have a row for each clip, and each clip has its text."""
        tensors = self.tensors
        if not tensors:
            return
        names = (*POSTERIORS, "text", "text_bounds", "text_of")
        missing = [name for name in names if name not in tensors]
        if missing:
            raise self._damaged(f"it has no tensor {missing[0]!r}")
        rows = {name: len(tensors[name]) for name in (*POSTERIORS, "text_of")}
        if len(set(rows.values())) > 1:
            raise self._damaged(f"its tensors have other numbers of rows: {rows}")
        bounds, of = tensors["text_bounds"], tensors["text_of"]
        fits = len(bounds) > 1 and int(bounds[0]) == 0 and int(bounds[-1]) == len(tensors["text"])
        if not fits or (bounds.diff() <= 0).any() or (of < 0).any() or (of > len(bounds) - 2).any():
            raise self._damaged("its captions do not fit its rows")

    def check_finite(self, row: int, *values: Tensor) -> None:
        """Raises ValueError where something of a row is not finite."""
        if not all(bool(value.isfinite().all()) for value in values):
            raise self._damaged(f"row {row} has numbers that are not finite")

    @cached_property
    def _facts(self) -> dict[str, Any]:
        assert self._header is not None
        facts = plain_text.parse_json(self._header, f"the header of '{self.path}'")
        Header.parse(facts, f"the header of '{self.path}'")
        return facts

    @property
    def records(self) -> list[dict[str, Any]]:
        return self._facts["records"]

    @property
    def skipped(self) -> list[dict[str, Any]]:
        return self._facts["skipped"]

    @property
    def sums(self) -> dict[str, Any]:
        return self._facts["sums"]

    def text(self, row: int) -> Tensor:
        """Embedding [L,E] of a row's caption, as long as the caption."""
        index = int(self.tensors["text_of"][row])
        first, last = self.tensors["text_bounds"][index : index + 2].tolist()
        return self.tensors["text"][first:last]

    def rows(self) -> Rows:
        """Everything, in memory."""
        records = self.records
        arrays = {k: self.tensors[k].numpy() for k in POSTERIORS if k in self.tensors}
        texts = {record["caption"]: self.text(i).numpy() for i, record in enumerate(records)}
        return Rows(arrays, texts, records, self.skipped)


class ShardWriter:
    """Puts numbered parts together to shards, and shards to a finished folder.

    Args:
        folder: where.
        shards: the numbers of the parts of each shard; they count on from 0.
    """

    def __init__(self, folder: Path, shards: Sequence[range]) -> None:
        self.folder, self.shards = folder, list(shards)
        self._shard_of = {part: s for s, parts in enumerate(self.shards) for part in parts}
        self._left: dict[int, set[int]] = {}
        (folder / _WORK).mkdir(parents=True, exist_ok=True)

    def missing(self, shards: Sequence[int] | None = None) -> list[int]:
        """The parts still to be made (of ``shards``; default all), leftovers cleared away."""
        out: list[int] = []
        for number in range(len(self.shards)) if shards is None else shards:
            if self._shard(number).exists():
                for part in self.shards[number]:
                    self._part(part).unlink(missing_ok=True)
                continue
            left = {part for part in self.shards[number] if not self._part(part).exists()}
            self._left[number] = left
            if not left:
                self._join(number)
            out += sorted(left)
        return out

    def add(self, part: int, rows: Rows) -> None:
        """Keeps a part for good; the last one of a shard completes the shard."""
        write(self._part(part), rows)
        number = self._shard_of[part]
        self._left[number].discard(part)
        if not self._left[number]:
            self._join(number)

    def finish(
        self, facts: dict[str, Any], report: Callable[[Lines, Lines], dict[str, Any]] | None = None
    ) -> dict[str, Any] | None:
        """Writes ``clips.jsonl`` and ``skipped.jsonl``, to look things up in, ``report.json`` if a
        report is to be made of the two, and at last the manifest, which is returned; None while
        another process still has shards to make.

        Raises:
            ValueError: a shard is damaged, or there is no row in any of them.
        """
        paths = [self._shard(number) for number in range(len(self.shards))]
        if not all(path.exists() for path in paths):
            return None
        with locked(self.folder, "finish", wait=True):
            if not (self.folder / MANIFEST).exists():
                self._finish(paths, facts, report)
        shutil.rmtree(self.folder / _WORK, ignore_errors=True)
        return manifest.read(self.folder)

    def _finish(
        self,
        paths: list[Path],
        facts: dict[str, Any],
        report: Callable[[Lines, Lines], dict[str, Any]] | None,
    ) -> None:
        shards = [Shard(path) for path in paths]
        records = [shard.records for shard in shards]
        skipped = [line for shard in shards for line in shard.skipped]
        kept = [line for lines in records for line in lines]
        write_lines(self.folder / "clips.jsonl", kept)
        write_lines(self.folder / "skipped.jsonl", skipped)
        if report is not None:
            write_json(self.folder / "report.json", report(kept, skipped))
        if not kept:
            reasons = sorted({line["reason"] for line in skipped})
            raise ValueError(
                f"no clip was left in {self.folder}: {', '.join(reasons) or 'none'}; see "
                f"{self.folder / 'skipped.jsonl'}"
            )
        facts = {
            "count": sum(map(len, records)),
            **facts,
            "text_tokens": max(
                int(s.tensors["text_bounds"].diff().max()) for s in shards if "text" in s.tensors
            ),
            "statistics": _statistics([shard.sums for shard in shards]),
            "shards": [
                {"file": path.name, "count": len(lines)}
                for path, lines in zip(paths, records, strict=True) if lines
            ],
        }  # fmt: skip
        write_json(self.folder / MANIFEST, facts)

    def _join(self, number: int) -> None:
        parts = [self._part(part) for part in self.shards[number]]
        write(self._shard(number), join([Shard(path).rows() for path in parts]))
        for path in parts:
            path.unlink()

    def _shard(self, number: int) -> Path:
        return self.folder / f"shard_{number:05d}.safetensors"

    def _part(self, number: int) -> Path:
        return self.folder / _WORK / f"part_{number:07d}.safetensors"


def locked(folder: Path, name: str, wait: bool = False) -> AbstractContextManager[None]:
    """Holds the part ``name`` of ``folder`` for one process at a time (``lock.held``)."""
    return lock.held(folder / _WORK / f"lock-{name}", wait)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    # The same name at every try: what a killed run left is overwritten.
    partial = path.with_name(f".{path.name}.partial")
    yield partial
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def _sums(rows: Rows) -> dict[str, Any]:
    """Per channel, of draws from the posteriors: how many, their sum and the sum of squares."""
    out: dict[str, Any] = {}
    if not rows.records:
        return out
    for kind, axis in _CHANNEL_AXIS.items():
        mean = rows.arrays[f"{kind}_mean"].astype(np.float64)
        std = rows.arrays[f"{kind}_std"].astype(np.float64)
        others = tuple(i for i in range(mean.ndim) if i != axis)
        out[kind] = {
            "count": mean.size // mean.shape[axis],
            "sum": mean.sum(others).tolist(),
            "squares": (mean**2 + std**2).sum(others).tolist(),
        }
    return out


def _statistics(sums: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Mean and standard deviation per channel of what a draw from the posteriors looks like."""
    out: dict[str, list[float]] = {}
    for kind in _CHANNEL_AXIS:
        each = [part[kind] for part in sums if kind in part]
        count = sum(part["count"] for part in each)
        mean = np.sum([part["sum"] for part in each], axis=0) / count
        square = np.sum([part["squares"] for part in each], axis=0) / count
        out[f"{kind}_mean"] = mean.tolist()
        # Never zero: a channel that does not vary (all silence) must not divide by nothing.
        out[f"{kind}_std"] = np.sqrt(np.maximum(square - mean**2, 1e-8)).tolist()
    return out
