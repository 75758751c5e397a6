"""Latents on disk: a folder of safetensors shards, each there whole or not at all.

    manifest.json             there = finished: count, geometry, encoder hashes, statistics, shards,
                              and checksums of the shards' headers and of itself
    shard_00000.safetensors   rows: video_mean, video_std, audio_mean, audio_std [N, ...] float16;
                              captions: text [sum of lengths, E] float16, text_bounds [U+1] and
                              text_of [N] int64; in the header, one record per row
                              and the checksum of the tensors
    .work/                    parts of shards that are not complete yet

A part is one encoded batch. It is written under another name, flushed and renamed, so that a run
which is killed at any moment loses the batch it was working on and nothing else; when the last
part of a shard is there, the parts are joined and removed. Which clips are in which part is fixed
beforehand: any number of processes, cut off any number of times, write the same bytes. A part or
shard that turns out to be damaged before the folder is finished is put aside and made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from syncflow import durable, plain_text
from syncflow.data import lock, statistics
from syncflow.data.manifest import MANIFEST, Header
from syncflow.data.manifest import read as read_manifest

POSTERIORS = ("video_mean", "video_std", "audio_mean", "audio_std")
Lines = Sequence[dict[str, Any]]
_WORK, _HEADER = ".work", "syncflow"
# The same at every try: what a killed run left is overwritten.
_TAG = "shard"
_TEXT = ("text", "text_bounds", "text_of")


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
    header = {
        "records": rows.records,
        "skipped": rows.skipped,
        "sums": statistics.sums(rows.arrays if rows.records else {}),
        "sha256": _digest(arrays),
    }
    # One entry: the order in which the library writes several is another one every time.
    said = {_HEADER: json.dumps(header, ensure_ascii=False)}
    with durable.replacing(path, _TAG) as partial:
        partial.write_bytes(save(arrays, metadata=said))


def write_json(path: Path, value: Any) -> None:
    """The same for a JSON file."""
    durable.write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n", _TAG)


def write_lines(path: Path, values: Sequence[dict[str, Any]]) -> None:
    """The same for a JSON object per line."""
    lines = [json.dumps(value, ensure_ascii=False) + "\n" for value in values]
    durable.write_text(path, "".join(lines), _TAG)


class Shard:
    """A shard, or part, opened for reading: tensors are memory-mapped.

    Args:
        path: of the file.
        header: the checksum that its header must have, where it is known.

    Raises:
        FileNotFoundError: there is no such file. OSError: it cannot be read.
        ValueError: the file is damaged.
    """

    def __init__(self, path: Path, header: str | None = None) -> None:
        from safetensors import SafetensorError, safe_open

        self.path = path
        try:
            with safe_open(path, framework="pt") as file:
                self._header = (file.metadata() or {}).get(_HEADER, "")
                self.tensors: dict[str, Tensor] = {k: file.get_tensor(k) for k in file.keys()}
            if header is not None and self.header_digest() != header:
                raise ValueError("its header is not the one that was written")
            self._check()
        except (SafetensorError, ValueError) as error:
            raise ValueError(
                f"'{path}' is damaged ({error}); move it and {MANIFEST} away and run again what "
                "made them: it alone is made anew"
            ) from None

    def header_digest(self) -> str:
        """SHA-256 of the header, which holds names, types, shapes and records."""
        with self.path.open("rb") as file:
            size = file.read(8)
            digest = hashlib.sha256(size + file.read(int.from_bytes(size, "little")))
        return digest.hexdigest()

    def verify(self) -> None:
        """Reads all of it; ValueError where a bit of it is not what was written."""
        arrays = {name: value.numpy() for name, value in self.tensors.items()}
        if self._facts.get("sha256", _digest(arrays)) != _digest(arrays):
            raise ValueError(f"'{self.path}' is damaged (its checksum is that of other tensors)")

    def _check(self) -> None:
        """Raises ValueError where the tensors do not belong together."""
        if not self._header:
            raise ValueError("its header says nothing of its rows")
        facts = self._facts
        if not isinstance(facts, dict) or not isinstance(facts.get("sums"), dict):
            raise ValueError("its header has no sums")
        for lines in (facts.get("records"), facts.get("skipped")):
            if not isinstance(lines, list) or not all(isinstance(line, dict) for line in lines):
                raise ValueError("its header has no records")
        rows = len(facts["records"])
        if not rows and not self.tensors:
            return
        if self.tensors.keys() != {*POSTERIORS, *_TEXT}:
            raise ValueError(f"it holds {', '.join(sorted(self.tensors))}")
        for name, value in self.tensors.items():
            whole = name in ("text_bounds", "text_of")
            if value.dtype != (torch.int64 if whole else torch.float16):
                raise ValueError(f"{name} is {value.dtype}")
            if name not in ("text", "text_bounds") and len(value) != rows:
                raise ValueError(f"{name} has {len(value)} rows for {rows} clips")
        bounds, of = self.tensors["text_bounds"], self.tensors["text_of"]
        text = self.tensors["text"]
        fine = text.ndim == 2 and bounds.ndim == of.ndim == 1 and len(bounds) > 1
        fine = fine and bounds[0] == 0 and bounds[-1] == len(text)
        fine = fine and bool((bounds.diff() > 0).all())
        if not fine or of.min() < 0 or of.max() >= len(bounds) - 1:
            raise ValueError("its captions' places are not within its text")

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
        """The parts still to be made (of ``shards``; default all), leftovers cleared away and what
        is damaged put aside."""
        out: list[int] = []
        for number in range(len(self.shards)) if shards is None else shards:
            if _is_whole(self._shard(number)):
                for part in self.shards[number]:
                    self._part(part).unlink(missing_ok=True)
                continue
            parts = self.shards[number]
            left = {part for part in parts if not _is_whole(self._part(part), every_bit=True)}
            self._left[number] = left
            if not left:
                self._join(number)
            out += sorted(left)
        return out

    def add(self, part: int, rows: Rows) -> None:
        """Keeps a part for good; the last one of a shard completes the shard.

        Raises:
            ValueError: an encoder gave numbers that are not finite; the message names the clip.
        """
        _check_finite(rows)
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
        return read_manifest(self.folder)

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
            "statistics": statistics.joined([shard.sums for shard in shards]),
            "shards": [
                {"file": shard.path.name, "count": len(lines), "header": shard.header_digest()}
                for shard, lines in zip(shards, records, strict=True) if lines
            ],
        }  # fmt: skip
        kept = [line for lines in records for line in lines]
        write_lines(self.folder / "clips.jsonl", kept)
        write_lines(self.folder / "skipped.jsonl", skipped)
        if report is not None:
            write_json(self.folder / "report.json", report(kept, skipped))
        durable.write_sealed(self.folder / MANIFEST, facts, _TAG)

    def _join(self, number: int) -> None:
        parts = [self._part(part) for part in self.shards[number]]
        shards = [Shard(path) for path in parts]
        for shard in shards:
            shard.verify()
        write(self._shard(number), join([shard.rows() for shard in shards]))
        for path in parts:
            path.unlink()

    def _shard(self, number: int) -> Path:
        return self.folder / f"shard_{number:05d}.safetensors"

    def _part(self, number: int) -> Path:
        return self.folder / _WORK / f"part_{number:07d}.safetensors"


def locked(folder: Path, name: str, wait: bool = False) -> AbstractContextManager[None]:
    """Holds the part ``name`` of ``folder`` for one process at a time (``lock.held``)."""
    return lock.held(folder / _WORK / f"lock-{name}", wait)


def _is_whole(path: Path, every_bit: bool = False) -> bool:
    """Whether a shard or part is there and can be used; one that is damaged is renamed, and its
    name is free. ``every_bit``: also read it all."""
    try:
        shard = Shard(path)
        if every_bit:
            shard.verify()
    except FileNotFoundError:
        return False
    except ValueError:
        os.replace(path, path.with_name(f"{path.name}.damaged"))
        return False
    return True


def _check_finite(rows: Rows) -> None:
    for name, value in rows.arrays.items():
        for record, row in zip(rows.records, value, strict=True):
            if not np.isfinite(row).all():
                clip = record.get("file", record.get("clip"))
                raise ValueError(f"the encoders gave numbers that are not finite: {name} of {clip}")
    for caption, text in rows.texts.items():
        if not np.isfinite(text).all():
            raise ValueError(
                f"the text encoder gave numbers that are not finite for {caption[:80]!r}"
            )


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of arrays with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, value in sorted(arrays.items()):
        digest.update(f"{name} {value.dtype} {value.shape} ".encode())
        digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()
