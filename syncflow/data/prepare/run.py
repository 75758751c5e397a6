"""Decode, encode, write, report: what `syncflow prepare` does once everything is known."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from syncflow.clip import ClipSpec
from syncflow.data.encoders import Encoders
from syncflow.data.latent_shards import Rows, ShardWriter, join, locked
from syncflow.data.latents import check_folder, claim
from syncflow.data.manifest import MANIFEST, ManifestFile, RecordLine, SkippedLine
from syncflow.data.manifest import read as read_manifest
from syncflow.data.prepare import decoding, plan, workers
from syncflow.data.prepare.decoding import Decoded, Decoder, Window
from syncflow.data.prepare.films import Films, look
from syncflow.data.prepare.sources import Source
from syncflow.data.prepare_options import BATCH, PARTS, WORKERS, Options
from syncflow.progress import bar
from syncflow.ranges import Whole

#: Seconds of a file that one process reads at once; Greatest Hits' are the paper's (section 4).
_SEGMENT_S = {"greatest-hits": 10.0}
_SEGMENT_DEFAULT_S = 20.0
_OTHER_SPLIT = "in another split"
Captioning = Callable[[list[np.ndarray]], list[str]]


def prepare(
    source: str | Path,
    out: str | Path,
    encoders: Encoders,
    spec: ClipSpec,
    options: Options | None = None,
    captioner: Captioning | None = None,
    model: Mapping[str, object] | None = None,
    num_workers: int = 0,
    batch: int = 16,
    share: tuple[int, int] = (0, 1),
    progress: bool = True,
    films: Films | None = None,
) -> ManifestFile | None:
    """Makes the folder ``out`` of latents that training reads, and returns its manifest.

    A run that was cut off, with kill -9 too, goes on where it was when it is called again with the
    same arguments; files that cannot be read are listed in ``skipped.jsonl`` and counted.

    Args:
        source: a folder, file or list of clips.
        out: the folder to write.
        encoders: of the model that the latents are for.
        spec: geometry of a window.
        options: what to take.
        captioner: pictures uint8 [H,W,3] -> captions, for windows without one.
        model: facts about the model for the manifest.
        num_workers: processes that decode; 0: this one.
        batch: about as many windows are encoded at once.
        share: (i, n): make every n-th shard from the i-th on, so that n machines share the work;
            the one that ends last finishes the folder. None is returned before that.
        progress: show a bar.
        films: what ``films.look`` found, where that was asked before.

    Raises:
        FileNotFoundError, ValueError: the sources or the options are no good, ``out`` holds other
            latents, another process is writing there, or no window was kept.
    """
    options, out = options or Options(), Path(out)
    num_workers = WORKERS.check("workers", num_workers)
    batch = BATCH.check("batch", batch)
    every = PARTS.check("share", share[1])
    first = Whole(0, every - 1).check("share", share[0]) if every > 1 else 0
    films = films or look(source, options, captioner is not None)
    segment_s = options.segment_s or _SEGMENT_S.get(options.layout, _SEGMENT_DEFAULT_S)
    if segment_s < spec.seconds:
        raise ValueError(f"a segment of {segment_s} s is shorter than a window, {spec.seconds} s")
    facts = {"encoders": encoders.hashes(), "geometry": dataclasses.asdict(spec)}
    settings = {
        **facts,
        "clips": _digest(films.chosen),
        "options": json.loads(json.dumps(dataclasses.asdict(options))),
        "captions": "model" if captioner else "given",
    }
    check_folder(out)
    plan.check_same(out, films.chosen)
    if (out / MANIFEST).exists():
        claim(out, settings, {"batch": batch})
        print(f"{out}: finished before, skipped")
        return read_manifest(out)
    with locked(out, "plan", wait=True):
        claim(out, settings, {"batch": batch})
        for note in films.notes:
            print(f"syncflow: {note}", file=sys.stderr, flush=True)
        todo = plan.make(
            films.chosen,
            films.root,
            out,
            spec.seconds,
            segment_s,
            batch,
            options.per_segment,
            num_workers,
        )
    decoder = Decoder(
        films.root,
        spec,
        options.windows == "random",
        options.per_segment,
        options.seed,
        options.keep,
        options.min_motion,
        options.min_db,
        stills=captioner is not None,
    )
    with locked(out, f"{first}-of-{every}"):
        writer = ShardWriter(out, todo.shards)
        missing = writer.missing(range(first, len(todo.shards), every))
        for number, rows in _encoded(
            todo, missing, decoder, encoders, captioner, num_workers, batch, progress
        ):
            writer.add(number, rows)
        model = model or {}
        made_for = {"model": model.get("name"), "model_statistics": model.get("statistics")}
        return writer.finish(
            facts | made_for, lambda kept, skipped: _report(kept, skipped, films, todo)
        )


def _encoded(
    todo: plan.Plan,
    batches: Sequence[int],
    decoder: Decoder,
    encoders: Encoders,
    captioner: Captioning | None,
    num_workers: int,
    size: int,
    progress: bool,
) -> Iterator[tuple[int, Rows]]:
    """The rows of each of ``batches``."""
    segments = [todo.segments[i] for number in batches for i in todo.batches[number]]
    results = workers.ordered(decoder, segments, num_workers, decoding.crashed)
    total = len(todo.segments)
    kept = 0
    with bar(
        total=total,
        initial=total - len(segments),
        desc="prepare",
        unit="segment",
        shown=progress,
        mininterval=1,
    ) as shown:
        for number in batches:
            decoded = []
            for _ in todo.batches[number]:
                decoded.append(next(results))
                shown.update()
            rows = _rows(decoded, encoders, captioner, size)
            kept += len(rows.records)
            shown.set_postfix(windows=kept, refresh=False)
            yield number, rows


def _rows(
    decoded: Sequence[Decoded],
    encoders: Encoders,
    captioner: Captioning | None,
    size: int,
) -> Rows:
    windows = [window for part in decoded for window in part.windows]
    out = Rows(skipped=[line for part in decoded for line in part.skipped])
    windows, silent = _captioned(windows, captioner)
    out.skipped += silent
    parts = [out]
    for first in range(0, len(windows), size):
        group = windows[first : first + size]
        video = torch.from_numpy(np.stack([window.video for window in group]))
        audio = torch.from_numpy(np.stack([window.audio for window in group]))
        parts.append(encoders.rows(video, audio, [window.record for window in group]))
    return join(parts)


def _captioned(
    windows: list[Window], captioner: Captioning | None
) -> tuple[list[Window], list[SkippedLine]]:
    """Windows with the captions that they lacked, and lines about those that still have none."""
    mute = [window for window in windows if window.record["caption"] is None]
    if mute and captioner is not None:
        said = captioner([window.still for window in mute if window.still is not None])
        for window, caption in zip(mute, said, strict=True):
            if caption:
                window.record["caption"] = caption
    lines: list[SkippedLine] = [
        {
            "file": w.record["file"],
            "start": w.record["start"],
            "reason": "no caption",
            "detail": "the captioning model says nothing",
        }
        for w in windows
        if not w.record["caption"]
    ]
    return [window for window in windows if window.record["caption"]], lines


def _report(
    kept: Sequence[RecordLine], skipped: Sequence[SkippedLine], films: Films, todo: plan.Plan
) -> dict[str, object]:
    """Counts: what was there, what was kept, what was left out and why."""
    reasons = Counter(line["reason"] for line in skipped)
    if films.left_out:
        reasons[_OTHER_SPLIT] = films.left_out
    return {
        "files_found": len({source.file for source in films.found}),
        "files_in_split": len({source.file for source in films.chosen}),
        "files_used": len({line["file"] for line in kept}),
        "copies": films.copies,
        "unsupported": films.others,
        "segments": len(todo.segments),
        "windows": len(kept),
        "captions": len({line["caption"] for line in kept}),
        "without_sound": sum(not line["sound"] for line in kept),
        "skipped": dict(reasons.most_common()),
    }


def _digest(chosen: Sequence[Source]) -> str:
    """Sixteen hex digits of everything that is known about the clips."""
    digest = hashlib.sha256()
    for source in chosen:
        *known, problem = dataclasses.astuple(source)
        digest.update(json.dumps(known if problem is None else [*known, problem]).encode())
    return digest.hexdigest()[:16]
