"""What a VAE sees: crops of the clips of a folder, or of several by their shares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from syncflow.clip import VIDEO_STRIDE, to_model
from syncflow.data.made_latents import MadeLatents
from syncflow.data.shards import ClipShards
from syncflow.training.distributed import side_stream
from syncflow.training.distributed.groups import Group
from syncflow.training.settings import ClipsConfig, LoopConfig

CROPS = 1  # the stream of random numbers that says where a crop lies


@dataclass(frozen=True)
class Crops:
    """``originals`` [B, ...] of the pass ``index``."""

    originals: Tensor
    index: int


@dataclass(frozen=True)
class Pieces(Crops):
    """Originals [B, 3, F, H, W] in [-1, 1]. ``made_B``: of which the latents are made; those have a
    row in ``latent`` [B', Cz, T, h, w] and in ``distance`` [B', T], from the encoder's latent."""

    made_B: Tensor
    latent: Tensor | None = None
    distance: Tensor | None = None

    def to(self, device: torch.device) -> Pieces:
        latent, distance = (
            value if value is None else side_stream.send(value, device)
            for value in (self.latent, self.distance)
        )
        return replace(
            self,
            originals=side_stream.send(self.originals, device),
            made_B=side_stream.send(self.made_B, device),
            latent=latent,
            distance=distance,
        )

    def nearness(self, distance: float) -> Tensor | None:
        """How much each frame counts, [B, 1, F, 1, 1]: half where its made latent is ``distance``
        away; None where all count alike."""
        if self.distance is None:
            return None
        frames = self.originals.shape[2]
        near_BT = 1 / (1 + self.distance / distance)
        near_BF = near_BT.repeat_interleave(VIDEO_STRIDE[0], 1)[:, :frames]
        out = near_BF.new_ones(len(self.made_B), frames)
        out[self.made_B] = near_BF
        return out[:, None, :, None, None]


class Folder:
    """The ``clips`` of a folder, the latents ``made`` of them, and how likely each is.

    Args:
        config: of the folder.
        encoder: the hash of what made latents must be of; None where nothing is made of clips.

    Raises:
        ValueError: a kind of event that no clip shows, or made latents of other clips or of
            another encoder, or of what has none.
    """

    def __init__(self, config: ClipsConfig, encoder: str | None) -> None:
        self.name, self.clips = config.data, ClipShards(config.data)
        self.made: MadeLatents | None = None
        count = len(self.clips)
        if config.made is not None:
            if encoder is None:
                raise ValueError(f"made latents ({config.made}) are of pictures; leave made out")
            self.made = MadeLatents(config.made)
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


class Shares:
    """Several folders of shards as one, whose clips are drawn by their shares.

    Args:
        data: the folders.
        loop: its batch, seed and randomness.
        group: the processes that share a batch.
        encoder: as for :class:`Folder`.
    """

    def __init__(
        self,
        data: Sequence[ClipsConfig],
        loop: LoopConfig,
        group: Group | None = None,
        encoder: str | None = None,
    ) -> None:
        self.folders = [Folder(entry, encoder) for entry in data]
        self.loop, self.group = loop, group or Group()
        self._ends = np.cumsum([len(folder.share_N) for folder in self.folders])
        chance = np.concatenate([folder.share_N for folder in self.folders])
        self._chance = chance / chance.sum()

    def draws(self, index: int) -> Iterator[tuple[Folder, int, np.random.Generator]]:
        """This process's clips of a pass: folder, row, and what decides where a crop of it lies;
        ``index`` alone decides them."""
        loop = self.loop
        if loop.randomness == "batch":
            rng = np.random.default_rng([loop.seed, CROPS, index])
            for pick in rng.choice(len(self._chance), loop.batch_size, p=self._chance):
                yield *self._row(int(pick)), rng
            return
        places = range(index * loop.batch_size, (index + 1) * loop.batch_size)
        for place in places[self.group.rows(loop.batch_size)]:
            rng = np.random.default_rng([loop.seed, CROPS, place])
            yield *self._row(int(rng.choice(len(self._chance), p=self._chance))), rng

    def _row(self, pick: int) -> tuple[Folder, int]:
        """Of a clip that is counted through all folders."""
        number = int(np.searchsorted(self._ends, pick, side="right"))
        folder = self.folders[number]
        return folder, int(pick - self._ends[number] + len(folder.share_N))


@dataclass(frozen=True)
class _Piece:
    """Frames [F, 3, H, W], and what was made of them."""

    video: np.ndarray
    latent: Tensor | None = None
    distance: Tensor | None = None


class Films(Shares):
    """Crops of ``frames`` of the pictures of several folders."""

    def __init__(
        self,
        data: Sequence[ClipsConfig],
        frames: int,
        loop: LoopConfig,
        encoder: str,
        group: Group | None = None,
    ) -> None:
        super().__init__(data, loop, group, encoder)
        self.frames = frames

    @property
    def made(self) -> bool:
        """Whether any of them has made latents."""
        return any(folder.made is not None for folder in self.folders)

    def batch(self, index: int) -> Pieces:
        """This process's pieces of a pass, on the CPU."""
        pieces = [self._piece(*drawn) for drawn in self.draws(index)]
        video = to_model(torch.from_numpy(np.stack([piece.video for piece in pieces])))
        made_B = torch.tensor([piece.latent is not None for piece in pieces])
        latents = [piece.latent for piece in pieces if piece.latent is not None]
        distances = [piece.distance for piece in pieces if piece.distance is not None]
        if not latents:
            return Pieces(video, index, made_B)
        return Pieces(video, index, made_B, torch.stack(latents), torch.stack(distances))

    def _piece(self, folder: Folder, row: int, rng: np.random.Generator) -> _Piece:
        stride = VIDEO_STRIDE[0]
        video = folder.clips.video(row)
        room = (len(video) - self.frames) // stride
        first = int(rng.integers(0, room + 1))
        crop = video[stride * first :][: self.frames]
        if folder.made is None:
            return _Piece(crop)
        latent, distance = folder.made.row(row)
        part = slice(first, first + -(-self.frames // stride))
        return _Piece(crop, latent[:, part], distance[part])
