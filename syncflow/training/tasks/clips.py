"""What a video VAE sees: pieces of the clips of one folder, or of several by their shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from syncflow.clip import VIDEO_STRIDE, to_model
from syncflow.data.made_latents import MadeLatents
from syncflow.data.shards import ClipShards
from syncflow.training.settings import ClipsConfig, LoopConfig
from syncflow.training.tasks.buckets import epoch_indices


@dataclass(frozen=True)
class Pieces:
    """``video`` [B, 3, F, H, W] in [-1, 1]. ``made_B``: of which the latents are made; those have
    a row in ``latent`` [B', Cz, T, h, w] and in ``distance`` [B', T], from the encoder's latent."""

    video: Tensor
    made_B: Tensor
    latent: Tensor | None = None
    distance: Tensor | None = None


class _Folder:
    """The clips of a folder and how likely each is.

    Raises:
        ValueError: a kind of event that no clip shows, or made latents of other clips or of
            another encoder.
    """

    def __init__(self, config: ClipsConfig, encoder: str) -> None:
        self.clips = ClipShards(config.data)
        self.made = None if config.made is None else MadeLatents(config.made)
        count = len(self.clips)
        if self.made is not None:
            found = self.made.manifest
            if found["data"] != self.clips.about:
                raise ValueError(f"{config.made} is of other clips than {config.data}")
            if found["encoder"] != encoder:
                raise ValueError(
                    f"{config.made} is of another encoder ({found['encoder']}) than init "
                    f"({encoder}); make it again"
                )
            count = min(count, len(self.made))
        kinds = [self.clips.kind(row) for row in range(count)]
        unknown = sorted(set(config.kinds) - set(kinds))
        if unknown:
            raise ValueError(f"{config.data} has no {unknown[0]}; it has {sorted(set(kinds))}")
        weights = np.array([config.kinds.get(kind, 1.0) for kind in kinds])
        if not weights.sum():
            raise ValueError(f"kinds {config.kinds} leave no clip of {config.data}")
        self.share_N = config.share * weights / weights.sum()


class Sources:
    """Folders as one. A folder alone is seen in epochs; several, by chance."""

    def __init__(
        self, data: str | Sequence[ClipsConfig], frames: int, loop: LoopConfig, encoder: str
    ) -> None:
        entries = [ClipsConfig(data=data)] if isinstance(data, str) else data
        self.folders = [_Folder(entry, encoder) for entry in entries]
        self.frames, self.loop, self.in_epochs = frames, loop, isinstance(data, str)
        self._ends = np.cumsum([len(folder.share_N) for folder in self.folders])
        chance = np.concatenate([folder.share_N for folder in self.folders])
        self._chance = chance / chance.sum()

    @property
    def made(self) -> bool:
        return any(folder.made is not None for folder in self.folders)

    def batch(self, index: int) -> Pieces:
        """The pieces of a pass, on the CPU; ``index`` alone decides them."""
        loop, stride = self.loop, VIDEO_STRIDE[0]
        rng = np.random.default_rng([loop.seed, 1, index])
        if self.in_epochs:
            picks = epoch_indices(len(self._chance), loop.seed, index, loop.batch_size)
        else:
            picks = rng.choice(len(self._chance), loop.batch_size, p=self._chance)
        videos, made, latents, distances = [], [], [], []
        for pick in picks:
            number = int(np.searchsorted(self._ends, pick, side="right"))
            folder = self.folders[number]
            row = int(pick - self._ends[number] + len(folder.share_N))
            video = folder.clips.video(row)
            room = (len(video) - self.frames) // stride
            first = int(rng.integers(0, room + 1))
            videos.append(video[stride * first :][: self.frames])
            made.append(folder.made is not None)
            if folder.made is not None:
                latent, distance = folder.made.row(row)
                part = slice(first, first + -(-self.frames // stride))
                latents.append(latent[:, part])
                distances.append(distance[part])
        video = to_model(torch.from_numpy(np.stack(videos)))
        some = torch.tensor(made)
        if not latents:
            return Pieces(video, some)
        return Pieces(video, some, torch.stack(latents), torch.stack(distances))

    def nearness(self, pieces: Pieces, distance: float) -> Tensor | None:
        """How much each frame counts, [B, 1, F, 1, 1]: half where its made latent is ``distance``
        away; None where all count alike."""
        if pieces.distance is None:
            return None
        near_BT = 1 / (1 + pieces.distance / distance)
        near_BF = near_BT.repeat_interleave(VIDEO_STRIDE[0], 1)[:, : self.frames]
        out = near_BF.new_ones(len(pieces.made_B), self.frames)
        out[pieces.made_B] = near_BF
        return out[:, None, :, None, None]
