"""Latents on disk: a folder of safetensors shards, each there whole or not at all.

    manifest.json             there = finished: count, geometry, encoder hashes, statistics, shards,
                              and checksums of the shards' headers and of itself
    shard_00000.safetensors   rows of encoded clips (``latent_rows``)
    .work/                    parts of shards that are not complete yet

A part is one encoded batch. It is written under another name, flushed and renamed, so that a run
which is killed at any moment loses the batch it was working on and nothing else; when the last
part of a shard is there, the parts are joined and removed. Which clips are in which part is fixed
beforehand: any number of processes, cut off any number of times, write the same bytes. A part or
shard that turns out to be damaged before the folder is finished is put aside and made again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from syncflow import durable
from syncflow.data import lock, statistics
from syncflow.data.latent_rows import TAG, Rows, Shard, join, write
from syncflow.data.manifest import MANIFEST, ManifestFile, RecordLine, SkippedLine
from syncflow.data.manifest import read as read_manifest

#: What is made of the lines of what was kept and of what was left out.
Report = Callable[[Sequence[RecordLine], Sequence[SkippedLine]], Mapping[str, object]]
_WORK = ".work"


def write_json(path: Path, value: object) -> None:
    """Writes a JSON file: complete on the disk, or not there."""
    durable.write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n", TAG)


def write_lines(path: Path, values: Sequence[Mapping[str, object]]) -> None:
    """The same for a JSON object per line."""
    lines = [json.dumps(value, ensure_ascii=False) + "\n" for value in values]
    durable.write_text(path, "".join(lines), TAG)


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
        self, facts: Mapping[str, object], report: Report | None = None
    ) -> ManifestFile | None:
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
        self, paths: list[Path], facts: Mapping[str, object], report: Report | None
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
                for shard, lines in zip(shards, records, strict=True)
                if lines
            ],
        }
        durable.write_sealed(self.folder / MANIFEST, facts, TAG)

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
        durable.put_aside(path)
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
