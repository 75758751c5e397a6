"""Encoded clips in one safetensors file, complete on the disk or not there.

Tensors: video_mean, video_std, audio_mean, audio_std [N, ...] float16; of the captions text [sum of
lengths, E] float16, text_bounds [U+1] and text_of [N] int64. In the header (``manifest.Header``):
one record per row, what was left out, sums, and the checksum of the tensors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from syncflow import durable, plain_text
from syncflow.data import statistics
from syncflow.data.manifest import MANIFEST, Header, HeaderFile, RecordLine, SkippedLine

POSTERIORS = ("video_mean", "video_std", "audio_mean", "audio_std")
#: Of a temporary name, the same at every try: what a killed run left is overwritten.
TAG = "shard"
_HEADER = "syncflow"
#: Of each tensor.
_AXES = {
    "video_mean": 5, "video_std": 5, "audio_mean": 3, "audio_std": 3, "text": 2, "text_bounds": 1,
    "text_of": 1,
}  # fmt: skip


@dataclass
class Rows:
    """Encoded clips: ``arrays`` of posteriors [N, ...], ``texts`` caption -> [L,E], one record a
    row (with its caption) in ``records``, and what was looked at and left out in ``skipped``."""

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    texts: dict[str, np.ndarray] = field(default_factory=dict)
    records: list[RecordLine] = field(default_factory=list)
    skipped: list[SkippedLine] = field(default_factory=list)


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
    with durable.replacing(path, TAG) as partial:
        partial.write_bytes(save(arrays, metadata=said))


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
                said = (file.metadata() or {}).get(_HEADER, "")
                self.tensors: dict[str, Tensor] = {k: file.get_tensor(k) for k in file.keys()}
            if header is not None and self.header_digest() != header:
                raise ValueError("its header is not the one that was written")
            if not said:
                raise ValueError("its header says nothing of its rows")
            self._facts = cast(HeaderFile, plain_text.parse_json(said, f"the header of '{path}'"))
            Header.parse(self._facts, f"the header of '{path}'")
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
        said = self._facts.get("sha256")  # versions before 0.2 wrote none
        if said is not None and said != _digest(arrays):
            raise ValueError(f"'{self.path}' is damaged (its checksum is that of other tensors)")

    def _check(self) -> None:
        """Raises ValueError where the tensors do not belong together, or to the header."""
        rows = len(self.records)
        if self.tensors.keys() != (_AXES.keys() if rows else set()):
            raise ValueError(f"for {rows} clips it holds {', '.join(sorted(self.tensors))}")
        if not rows:
            return
        for name, value in self.tensors.items():
            whole = name in ("text_bounds", "text_of")
            if value.dtype != (torch.int64 if whole else torch.float16):
                raise ValueError(f"{name} is {value.dtype}")
            if value.ndim != _AXES[name]:
                raise ValueError(f"{name} has {value.ndim} axes")
            if name not in ("text", "text_bounds") and len(value) != rows:
                raise ValueError(f"{name} has {len(value)} rows for {rows} clips")
        bounds, of = self.tensors["text_bounds"], self.tensors["text_of"]
        ends = len(bounds) > 1 and bounds[0] == 0 and bounds[-1] == len(self.tensors["text"])
        fine = bool(ends) and bool((bounds.diff() > 0).all())
        if not fine or of.min() < 0 or of.max() >= len(bounds) - 1:
            raise ValueError("its captions' places are not within its text")

    @property
    def records(self) -> list[RecordLine]:
        return self._facts["records"]

    @property
    def skipped(self) -> list[SkippedLine]:
        return self._facts["skipped"]

    @property
    def sums(self) -> dict[str, statistics.Sums]:
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


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of arrays with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, value in sorted(arrays.items()):
        digest.update(f"{name} {value.dtype} {value.shape} ".encode())
        digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()
