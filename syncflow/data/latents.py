"""Clips as latents and text embeddings, so that flow training runs neither a VAE nor T5.

Mean and standard deviation of both posteriors (so that every epoch draws afresh) and the captions'
embeddings, each as long as its caption, in shards (``latent_shards``) with ``manifest.json``:
geometry, encoder hashes, per-channel statistics. A reader refuses a manifest of another geometry
or encoder. ``encode`` makes them from raw shards, ``prepare`` from ordinary video files.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from syncflow.clip import ClipSpec
from syncflow.data.encoders import Encoders
from syncflow.data.latent_rows import POSTERIORS, Shard
from syncflow.data.latent_shards import ShardWriter, claim, locked
from syncflow.data.latent_sources import Cache, open_folder
from syncflow.data.manifest import MANIFEST, ManifestFile, RecordLine, Statistics
from syncflow.data.open_shards import OpenShards
from syncflow.data.shards import ClipShards
from syncflow.impacts import unknown_words as reworded
from syncflow.models.codec import AudioCodec, VideoCodec
from syncflow.models.latent_space import Scale
from syncflow.models.text.encoder import TextEncoder
from syncflow.progress import bar

#: About as many clips in a shard of raw clips' latents.
_SHARD = 256


def encode(
    clips: ClipShards,
    video_vae: VideoCodec,
    audio_vae: AudioCodec,
    text_encoder: TextEncoder,
    out: str | Path,
    batch_size: int = 16,
    progress: bool = True,
    device: torch.device | str = "cpu",
    unknown_words: float = 0.0,
) -> Path:
    """Encodes every clip into ``out``; a cut-off run goes on where it was.

    Args:
        clips: raw, with their captions.
        video_vae, audio_vae, text_encoder: what encodes them.
        out: the folder that is made.
        batch_size: clips encoded at once.
        progress: show a progress bar.
        device: where the encoders run.
        unknown_words: share of the captions in which made-up words stand for some
            (``impacts.unknown_words``).

    Raises:
        ValueError: ``out`` holds latents of other encoders or clips.
    """
    out = Path(out)
    encoders = Encoders(video_vae, audio_vae, text_encoder, device)
    facts = {
        "encoders": encoders.hashes(),
        "geometry": clips.geometry,
        "unknown_words": unknown_words,
    }
    if claim(out, {"count": len(clips), **facts}, {"batch_size": batch_size}):
        print(f"{out}: finished before, skipped")
        return out
    batches = [
        range(first, min(first + batch_size, len(clips)))
        for first in range(0, len(clips), batch_size)
    ]
    step = max(1, _SHARD // batch_size)
    shards = [
        range(first, min(first + step, len(batches))) for first in range(0, len(batches), step)
    ]
    with locked(out, "all"):
        writer = ShardWriter(out, shards)
        missing = writer.missing()
        left = sum(len(batches[number]) for number in missing)
        shown = bar(
            total=len(clips),
            initial=len(clips) - left,
            desc=out.name,
            shown=progress,
            mininterval=2,
        )
        with shown:
            for number in missing:
                rows = batches[number]
                video = torch.from_numpy(np.stack([clips.video(i) for i in rows]))
                audio = torch.from_numpy(np.stack([clips.audio(i) for i in rows]))
                records = [_record(clips, i, unknown_words) for i in rows]
                writer.add(number, encoders.rows(video, audio, records))
                shown.update(len(rows))
        writer.finish(facts)
    return out


def _record(clips: ClipShards, index: int, unknown: float) -> RecordLine:
    caption = clips.caption(index)
    if unknown:
        caption, _ = reworded.put_in_some(caption, clips.attributes(index), unknown, index)
    return {"clip": index, "caption": caption, "contacts": clips.contact_times(index)}


class Latents:
    """Reader of such a folder; rows are numbered through all shards.

    Args:
        folder: with ``manifest.json``; a path, or a URL of an object store ("s3://bucket/latents"),
            whose shards are copied to this machine when they are first read.
        expected: a manifest whose encoders and geometry this one must have, and whose statistics
            normalise these latents too.
        statistics: normalise with these instead, as a model that is trained further needs its own
            (``manifest["model_statistics"]``).
        window: s; of each clip a part so long is given, its place drawn anew every time.
        cache: where copies of shards are kept.

    Raises:
        FileNotFoundError: no finished latents there.
        ValueError: ``expected`` differs, the manifest or a shard is damaged, or rows are missing;
            a window that clips cannot have.
        OSError: they cannot be read.
    """

    def __init__(
        self,
        folder: str | Path,
        expected: ManifestFile | None = None,
        statistics: dict[str, list[float]] | None = None,
        window: float | None = None,
        cache: Cache | None = None,
    ) -> None:
        self.place = open_folder(folder, cache)
        self.manifest = self.place.manifest
        if expected:
            self.require(folder, expected, "encoders", "geometry")
        self._whole = ClipSpec(**self.manifest["geometry"])
        self._shards = OpenShards(self.place, self._check)
        self.counts = tuple(entry["count"] for entry in self.manifest["shards"])
        self._ends = list(accumulate(self.counts))
        #: Of what ``batch`` gives: whole clips, or windows of them.
        self.spec = self._whole
        self._starts = [(0, 0)]
        if window is not None:
            try:
                self._starts = self._whole.windows(window)
            except ValueError as error:
                step, most = self._whole.seconds_per_latent_frame, self._whole.seconds
                raise ValueError(
                    f"window is {window:g}, which clips of {folder} cannot have: {error}; "
                    f"take a multiple of {step:g} s, {most:g} at most"
                ) from None
            self.spec = replace(self._whole, seconds=window)
        known = expected.get("statistics") if expected else None
        self.normalise(statistics or known or self.manifest["statistics"])

    def require(
        self, folder: str | Path, expected: ManifestFile, *keys: Literal["encoders", "geometry"]
    ) -> None:
        """Raises ValueError where these keys of the manifest are not the expected one's."""
        for key in keys:
            if self.manifest[key] != expected[key]:
                raise ValueError(
                    f"{folder} was made with other {key}: {self.manifest[key]}, "
                    f"expected {expected[key]}; encode it again"
                )

    def normalise(self, stats: dict[str, list[float]]) -> None:
        """From now on latents are given less these means and over these deviations.

        Raises:
            ValueError: they are not ``manifest.Statistics`` of these channels.
        """
        Statistics.parse(stats, "the statistics cannot be used")
        for kind in ("video", "audio"):
            count = self.channels[kind]
            given = len(stats[f"{kind}_mean"])
            if given != count:
                raise ValueError(
                    f"the statistics cannot be used: {given} numbers of {kind}_mean for {count} "
                    "channels"
                )
        self.statistics = stats
        self.scale = {
            "video": Scale.of_video(stats["video_mean"], stats["video_std"]),
            "audio": Scale.of_audio(stats["audio_mean"], stats["audio_std"]),
        }

    def __len__(self) -> int:
        return self.manifest["count"]

    def batch(self, rows: np.ndarray, rng: np.random.Generator | None) -> dict[str, Tensor]:
        """Normalised draws from the posteriors, without ``rng`` their means, and the text:
        ``video`` [B,Cz,T,h,w], ``audio`` [B,A,D], ``text`` [B,L,E], ``mask`` [B,L], L the longest
        caption's length. Of windows, without ``rng``, the first of each clip."""
        values = self.read(rows, rng)
        if rng is None:
            return self.drawn(values, None)
        return self.drawn(
            values, lambda shape: torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
        )

    def read(self, rows: np.ndarray, rng: np.random.Generator | None) -> dict[str, Tensor]:
        """The posteriors as they are stored, ``video_mean``, ``video_std``, ``audio_mean`` and
        ``audio_std`` in float16, with ``text`` and ``mask``. ``rng`` draws the windows' places."""
        found = [self._find(int(row)) for row in rows]
        starts = [self._start(rng) for _ in found]
        frames, sounds = self.spec.video_latent_shape[0], self.spec.audio_latent_length
        out: dict[str, Tensor] = {}
        for name in POSTERIORS:
            parts = []
            for (shard, row), (frame, sound) in zip(found, starts, strict=True):
                value = shard.tensors[name][row]
                is_video = name.startswith("video")
                parts.append(value[:, frame:][:, :frames] if is_video else value[sound:][:sounds])
            out[name] = torch.stack(parts)
            self._refuse_what_is_no_number(rows, out[name])
        texts = [shard.text(row) for shard, row in found]
        for row, text in zip(rows, texts, strict=True):
            self._refuse_what_is_no_number([row], text[None])
        length = torch.tensor([len(text) for text in texts])
        out["mask"] = torch.arange(int(length.max())) < length[:, None]
        out["text"] = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
        return out

    def drawn(
        self, values: dict[str, Tensor], normal: Callable[[tuple[int, ...]], Tensor] | None
    ) -> dict[str, Tensor]:
        """What ``batch`` gives, of what ``read`` gave, where that lies now. ``normal`` draws noise
        of a shape there; without it the means are taken."""
        out = {"mask": values["mask"], "text": values["text"].float()}
        for kind in ("video", "audio"):
            mean = values[f"{kind}_mean"].float()
            if normal is not None:
                mean = mean + values[f"{kind}_std"].float() * normal(tuple(mean.shape))
            out[kind] = self.scale[kind].normalize(mean)
        return out

    def _start(self, rng: np.random.Generator | None) -> tuple[int, int]:
        """Where the next window begins; whole clips draw nothing."""
        if rng is None or len(self._starts) == 1:
            return self._starts[0]
        return self._starts[int(rng.integers(len(self._starts)))]

    def contacts(self, rows: np.ndarray) -> Tensor:
        """[B, N]: when things touch in the clips, in seconds, NaN where there are fewer than in
        another.

        Raises:
            ValueError: the latents do not say.
        """
        found = []
        for row in rows:
            times = self.record(int(row)).get("contacts")
            if times is None:
                raise ValueError(
                    f"the latents do not say when things touch in {self.name(int(row))}; encode "
                    "rendered clips again, or set events to 0"
                )
            found.append(torch.tensor(times, dtype=torch.float32))
        return torch.nn.utils.rnn.pad_sequence(found, batch_first=True, padding_value=torch.nan)

    def _refuse_what_is_no_number(self, rows: Sequence[int] | np.ndarray, *values: Tensor) -> None:
        for value in values:
            if not torch.isfinite(value).all():
                bad = int((~torch.isfinite(value)).flatten(1).any(1).nonzero()[0])
                shard, _ = self._find(int(rows[bad]))
                raise ValueError(
                    f"'{shard.path}' has numbers that are not finite in the latents of "
                    f"{self.name(int(rows[bad]))}: it is damaged; move it and {MANIFEST} away and "
                    "run again what made them"
                )

    def _check(self, shard: Shard) -> None:
        """Raises ValueError where latents are not of the manifest's geometry, or not like those of
        the shard that was opened first."""
        video, audio = (shard.tensors[f"{kind}_mean"].shape[1:] for kind in ("video", "audio"))
        if not hasattr(self, "channels"):
            #: Of the latents, and numbers of a ``text`` token.
            self.channels = {
                "video": video[0],
                "audio": audio[-1],
                "text": shard.tensors["text"].shape[1],
            }
            self._first = shard.path
        width = shard.tensors["text"].shape[1]
        if width != self.channels["text"]:
            raise ValueError(
                f"'{shard.path}' has captions of {width} channels, and '{self._first}' of "
                f"{self.channels['text']}"
            )
        expected = (
            (self.channels["video"], *self._whole.video_latent_shape),
            (self._whole.audio_latent_length, self.channels["audio"]),
        )
        for name in POSTERIORS:
            shape = tuple(shard.tensors[name].shape[1:])
            if shape != expected[name.startswith("audio")]:
                raise ValueError(
                    f"'{shard.path}' has {name} of {list(shape)}, and its {MANIFEST} says "
                    f"{list(expected[name.startswith('audio')])}"
                )

    def record(self, row: int) -> RecordLine:
        """What is known of a row's clip: its caption, and with ``prepare`` its file and times."""
        shard, row = self._find(row)
        return shard.records[row]

    def name(self, row: int) -> str:
        """How a message calls a row's clip: its file and where it begins, or its number."""
        record = self.record(row)
        if record.get("file") is not None:
            return f"{record['file']} at {record.get('start', 0):g} s"
        return f"clip {record.get('clip', row)}"

    def _find(self, row: int) -> tuple[Shard, int]:
        number = bisect_right(self._ends, row)
        return self._shards[number], row - (self._ends[number - 1] if number else 0)
