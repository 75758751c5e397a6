"""Video latents of raw clips as a sampler makes them: a folder of safetensors shards.

    manifest.json          there = finished: clips, channels, the encoder's hash, how they were made
    made_00000.safetensors of a batch: latent [N, Cz, T, h, w] float16, as the encoder gives them,
                           distance [N, T] and time [N] float32

``distance`` is a frame's mean square distance from the encoded latent, normalised, and ``time`` the
flow time from which it was denoised. Row i is of clip i.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from syncflow import durable
from syncflow.data.latent_shards import locked
from syncflow.data.latents import claim
from syncflow.data.manifest import MANIFEST, MadeManifest
from syncflow.progress import bar as progress_bar

#: Makes the rows of some clips: latent, distance, time.
Make = Callable[[range], dict[str, Tensor]]
_TAG = "shard"  # the same at every try: what a killed run left is overwritten


def write(
    out: Path, clips: int, batch_size: int, facts: Mapping[str, object], make: Make, progress: bool
) -> Path:
    """Makes what is missing of the rows of ``clips`` clips, a batch at a time; a batch's rows must
    depend on its clips alone.

    Args:
        facts: how they are made; goes into the manifest.

    Raises:
        ValueError: ``out`` holds latents that were made in another way, or something else.
    """
    from safetensors.torch import save

    if claim(out, {"count": clips, "batch_size": batch_size, **facts}, {}):
        print(f"{out}: finished before, skipped")
        return out
    with (
        locked(out, "all"),
        progress_bar(total=clips, desc=out.name, shown=progress, mininterval=2) as bar,
    ):
        for first in range(0, clips, batch_size):
            rows = range(first, min(first + batch_size, clips))
            path = out / _name(first // batch_size)
            if not _is_whole(path, len(rows)):
                with durable.replacing(path, _TAG) as part:
                    part.write_bytes(save({k: v.contiguous() for k, v in make(rows).items()}))
            bar.update(len(rows))
        manifest = {"count": clips, "batch_size": batch_size, **facts}
        durable.write_sealed(out / MANIFEST, manifest, _TAG)
    return out


def _shard(path: Path, rows: int) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"'{path}' is damaged: {error}") from None
    shapes = {name: tuple(value.shape) for name, value in found.items()}
    latent = shapes.get("latent", ())
    expected = {"latent": latent, "distance": (rows, *latent[2:3]), "time": (rows,)}
    if shapes != expected or len(latent) != 5 or latent[0] != rows:
        raise ValueError(f"'{path}' is damaged: it holds {shapes}, for {rows} clips")
    if not all(value.isfinite().all() for value in found.values()):
        raise ValueError(f"'{path}' is damaged: it has numbers that are not finite")
    return found


def _is_whole(path: Path, rows: int) -> bool:
    """Whether a shard is there and can be used; one that is damaged is put aside."""
    try:
        return bool(_shard(path, rows))
    except FileNotFoundError:
        return False
    except ValueError:
        durable.put_aside(path)
        return False


def _name(number: int) -> str:
    return f"made_{number:05d}.safetensors"


class MadeLatents:
    """Reader of such a folder, all of it in memory.

    Raises:
        FileNotFoundError: no finished latents there. ValueError: a shard is damaged, or other
            than the manifest says.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        card = folder / MANIFEST
        if not card.exists():
            raise FileNotFoundError(f"no finished made latents in {folder} (no {card.name})")
        self.manifest = durable.read_sealed(card)
        MadeManifest.parse(self.manifest, f"'{card}' is damaged")
        count, batch_size = self.manifest["count"], self.manifest["batch_size"]
        shards = []
        for first in range(0, count, batch_size):
            path = folder / _name(first // batch_size)
            try:
                shards.append(_shard(path, min(batch_size, count - first)))
            except ValueError as error:
                raise ValueError(
                    f"{error}; move {card} away and run again what made them: it alone is made anew"
                ) from None
        self._latent, self._distance = (
            torch.cat([shard[name] for shard in shards]) for name in ("latent", "distance")
        )

    def __len__(self) -> int:
        return len(self._latent)

    def row(self, index: int) -> tuple[Tensor, Tensor]:
        """Raw latent [Cz, T, h, w] and distance [T] of a clip, float32."""
        return self._latent[index].float(), self._distance[index]
