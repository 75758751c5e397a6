"""Video latents of raw clips as a sampler makes them: a folder of safetensors shards.

    manifest.json          there = finished: clips, channels, the encoder's hash, how they were made
    made_00000.safetensors of a batch: latent [N, Cz, T, h, w] float16, as the encoder gives them,
                           distance [N, T] and time [N] float32

``distance`` is a frame's mean square distance from the encoded latent, normalised, and ``time`` the
flow time from which it was denoised. Row i is of clip i.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from syncflow import durable
from syncflow.data import latent_shards
from syncflow.data.latents import claim
from syncflow.progress import bar as progress_bar

#: Makes the rows of some clips: latent, distance, time.
Make = Callable[[range], dict[str, Tensor]]


def write(
    out: Path, clips: int, batch_size: int, facts: dict[str, Any], make: Make, progress: bool
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
        latent_shards.locked(out, "all"),
        progress_bar(total=clips, desc=out.name, shown=progress, mininterval=2) as bar,
    ):
        for first in range(0, clips, batch_size):
            rows = range(first, min(first + batch_size, clips))
            path = out / _name(first // batch_size)
            if not path.exists():
                with durable.replacing(path, "shard") as part:
                    part.write_bytes(save({k: v.contiguous() for k, v in make(rows).items()}))
            bar.update(len(rows))
        latent_shards.write_json(
            out / latent_shards.MANIFEST, {"count": clips, "batch_size": batch_size, **facts}
        )
    return out


def _name(number: int) -> str:
    return f"made_{number:05d}.safetensors"


class MadeLatents:
    """Reader of such a folder, all of it in memory.

    Raises:
        FileNotFoundError: no finished latents there. ValueError: a shard is damaged, or other
            than the manifest says.
    """

    def __init__(self, folder: str | Path) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = Path(folder)
        card = folder / latent_shards.MANIFEST
        if not card.exists():
            raise FileNotFoundError(f"no finished made latents in {folder} (no {card.name})")
        self.manifest = json.loads(card.read_text())
        count, batch_size = self.manifest["count"], self.manifest["batch_size"]
        shards = []
        for number in range(-(-count // batch_size)):
            path = folder / _name(number)
            try:
                shards.append(load_file(path))
            except SafetensorError as error:
                raise ValueError(f"'{path}' is damaged ({error}); delete it and {card}") from None
        self._latent, self._distance = (
            torch.cat([shard[name] for shard in shards]) for name in ("latent", "distance")
        )
        if len(self._latent) != count:
            raise ValueError(f"{folder} has {len(self._latent)} rows, and {card.name} says {count}")

    def __len__(self) -> int:
        return len(self._latent)

    def row(self, index: int) -> tuple[Tensor, Tensor]:
        """Raw latent [Cz, T, h, w] and distance [T] of a clip, float32."""
        return self._latent[index].float(), self._distance[index]
