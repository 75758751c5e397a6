"""Clips as latents and text embeddings, so that flow training runs neither a VAE nor T5.

Mean and standard deviation of both posteriors (so that every epoch draws afresh) and the captions'
embeddings, each as long as its caption, in shards (``latent_shards``) with ``manifest.json``:
geometry, encoder hashes, per-channel statistics. A reader refuses a manifest of another geometry
or encoder. ``encode`` makes them from raw shards, ``prepare`` from ordinary video files.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from syncflow import durable
from syncflow.clip import ClipSpec
from syncflow.data.encoders import Encoders
from syncflow.data.latent_rows import POSTERIORS, Shard
from syncflow.data.latent_shards import ShardWriter, locked
from syncflow.data.manifest import MANIFEST, ManifestFile, RecordLine, Statistics
from syncflow.data.manifest import read as read_manifest
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


def claim(out: Path, settings: Mapping[str, object], layout: Mapping[str, object]) -> bool:
    """Makes the folder for latents of these ``settings``, or sees that it is of the same ones;
    returns whether it is finished. ``layout``, which decides what the parts are, must be the same
    only until then.

    Raises:
        ValueError: it holds latents that were made in another way, or something else.
    """
    check_folder(out)
    card = out / "settings.json"
    finished = (out / MANIFEST).exists()
    if card.exists():
        # Folders from before there was such a thing have none of them.
        found = {"unknown_words": 0.0} | durable.read_sealed(card)
    else:
        out.mkdir(parents=True, exist_ok=True)
        durable.write_sealed(card, {**settings, **layout}, "settings")
        return False
    for name, value in (settings if finished else {**settings, **layout}).items():
        if found.get(name) != value:
            raise ValueError(
                f"{out} holds latents of other {name}: {_difference(found.get(name), value)}; "
                "give another folder, or delete it to encode again"
            )
    return finished


def _difference(before: object, now: object) -> str:
    """What differs, in words: of two objects the keys that do."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return f"{before}, expected {now}"
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return "; ".join(f"{k} was {before.get(k)!r}, now {now.get(k)!r}" for k in keys)


def check_folder(out: Path) -> None:
    """Raises ValueError where latents cannot be written or continued: a file, or a folder of
    other things."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; give a folder to write to")
    ours = ("settings.json", MANIFEST)
    if out.is_dir() and not any((out / name).exists() for name in ours):
        # A run that was cut off before its first word leaves names that begin with a dot.
        if any(not path.name.startswith(".") for path in out.iterdir()):
            raise ValueError(f"{out} is not empty and holds no latents; give another folder")


class Latents:
    """Reader of such a folder; rows are numbered through all shards.

    Args:
        folder: with ``manifest.json``.
        expected: a manifest whose encoders and geometry this one must have, and whose statistics
            normalise these latents too.
        statistics: normalise with these instead, as a model that is trained further needs its own
            (``manifest["model_statistics"]``).

    Raises:
        FileNotFoundError: no finished latents there.
        ValueError: ``expected`` differs, the manifest or a shard is damaged, or rows are missing.
    """

    def __init__(
        self,
        folder: str | Path,
        expected: ManifestFile | None = None,
        statistics: dict[str, list[float]] | None = None,
    ) -> None:
        folder = Path(folder)
        if not (folder / MANIFEST).exists():
            raise FileNotFoundError(f"no finished latents in {folder} (no {MANIFEST})")
        self.manifest = read_manifest(folder)
        if expected:
            self.require(folder, expected, "encoders", "geometry")
        self._shards: list[Shard] = []
        counts = []
        for entry in self.manifest["shards"]:
            path = folder / entry["file"]
            shard = Shard(path, entry.get("header"))
            if len(shard.tensors["video_mean"]) != entry["count"]:
                raise ValueError(
                    f"'{path}' does not have the {entry['count']} rows that its manifest lists"
                )
            self._shards.append(shard)
            counts.append(entry["count"])
        self._ends = list(accumulate(counts))
        self.spec = ClipSpec(**self.manifest["geometry"])
        self._check(folder)
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
        caption's length."""
        found = [self._find(int(row)) for row in rows]
        out: dict[str, Tensor] = {}
        for kind in ("video", "audio"):
            mean, std = (
                torch.stack([shard.tensors[f"{kind}_{k}"][row] for shard, row in found]).float()
                for k in ("mean", "std")
            )
            self._refuse_what_is_no_number(rows, mean, std)
            if rng is not None:
                noise = rng.standard_normal(tuple(mean.shape), dtype=np.float32)
                mean = mean + std * torch.from_numpy(noise)
            out[kind] = self.scale[kind].normalize(mean)
        texts = [shard.text(row).float() for shard, row in found]
        for row, text in zip(rows, texts, strict=True):
            self._refuse_what_is_no_number([row], text[None])
        length = torch.tensor([len(text) for text in texts])
        out["mask"] = torch.arange(int(length.max())) < length[:, None]
        out["text"] = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
        return out

    def contacts(self, rows: np.ndarray, most: int) -> Tensor:
        """[B, most]: when things touch in the clips, in seconds, NaN where there are fewer.

        Raises:
            ValueError: the latents do not say, or of more contacts.
        """
        out = torch.full((len(rows), most), torch.nan)
        for place, row in enumerate(rows):
            times = self.record(int(row)).get("contacts")
            if times is None:
                raise ValueError(
                    f"the latents do not say when things touch in {self.name(int(row))}; encode "
                    "rendered clips again, or set events to 0"
                )
            if len(times) > most:
                raise ValueError(
                    f"{self.name(int(row))} has {len(times)} contacts, and model.event_tokens is "
                    f"{most}"
                )
            out[place, : len(times)] = torch.tensor(times)
        return out

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

    def _check(self, folder: Path) -> None:
        """Raises ValueError where the latents are not of the manifest's geometry."""
        first = self._shards[0].tensors
        video, audio = first["video_mean"].shape[1:], first["audio_mean"].shape[1:]
        #: Of the latents, and numbers of a ``text`` token.
        self.channels = {"video": video[0], "audio": audio[-1], "text": first["text"].shape[1]}
        length = self.spec.audio_latent_length
        expected = ((video[0], *self.spec.video_latent_shape), (length, audio[-1]))
        for shard in self._shards:
            width = shard.tensors["text"].shape[1]
            if width != self.channels["text"]:
                raise ValueError(
                    f"'{shard.path}' has captions of {width} channels, and "
                    f"'{self._shards[0].path}' of {self.channels['text']}"
                )
            for name in POSTERIORS:
                shape = tuple(shard.tensors[name].shape[1:])
                if shape != expected[name.startswith("audio")]:
                    raise ValueError(
                        f"'{shard.path}' has {name} of {list(shape)}, and {folder / MANIFEST} says "
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
