"""Clips as latents and text embeddings, so that flow training runs neither a VAE nor T5.

A folder of memory-mapped arrays, one row a clip: mean and standard deviation of both posteriors (so
that every epoch draws afresh), text embeddings and their mask, with ``manifest.json``: geometry,
encoder hashes, per-channel statistics. A reader refuses a manifest of another geometry or encoder.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor, nn
from tqdm import tqdm

from syncflow.clip import ClipSpec, to_model
from syncflow.data.shards import ClipShards

_POSTERIORS = ("video_mean", "video_std", "audio_mean", "audio_std")


def weights_hash(module: nn.Module) -> str:
    """Sixteen hex digits of a module's weights."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.no_grad()
def encode(
    clips: ClipShards, video_vae: nn.Module, audio_vae: nn.Module, text_encoder: nn.Module,
    out: str | Path, batch_size: int = 16, progress: bool = True,
    device: torch.device | str = "cpu",
) -> Path:
    """Encodes every clip into ``out``; a cut-off run goes on where it was.

    Raises:
        ValueError: ``out`` holds finished latents of other encoders or clips.
    """
    out, device = Path(out), torch.device(device)
    hashes = {
        "video_vae": weights_hash(video_vae),
        "audio_vae": weights_hash(audio_vae),
        "text_encoder": weights_hash(text_encoder),
    }
    if (out / "manifest.json").exists():
        made = json.loads((out / "manifest.json").read_text())
        wanted = {"encoders": hashes, "count": len(clips), "geometry": clips.geometry}
        for key, value in wanted.items():
            if made[key] != value:
                raise ValueError(
                    f"{out} holds latents of other {key}: {made[key]}, expected {value}; "
                    "remove it to encode again"
                )
        print(f"{out}: finished before, skipped")
        return out
    out.mkdir(parents=True, exist_ok=True)
    for part in (video_vae, audio_vae, text_encoder):
        part.to(device)
    tokens = text_encoder.max_tokens
    arrays: dict[str, np.ndarray] = {}
    progress_file = out / "progress.json"
    done = 0
    if progress_file.exists():
        before = json.loads(progress_file.read_text())
        if before["encoders"] == hashes and before["count"] == len(clips):
            done = before["done"]
    bar = tqdm(total=len(clips), initial=done, desc=out.name, disable=not progress, mininterval=2)
    with bar:
        for first in range(done, len(clips), batch_size):
            rows = range(first, min(first + batch_size, len(clips)))
            video = to_model(torch.from_numpy(np.stack([clips.video(i) for i in rows])))
            audio = torch.from_numpy(np.stack([clips.audio(i) for i in rows]))
            with torch.autocast(device.type, torch.bfloat16):
                video_posterior = video_vae.encode(video.to(device))
                audio_posterior = audio_vae.encode(audio.to(device))
            text, mask = text_encoder.encode([clips.caption(i) for i in rows])
            full = torch.zeros(len(text), tokens, text.shape[2])
            full[:, : text.shape[1]] = text
            full_mask = torch.zeros(len(text), tokens, dtype=torch.bool)
            full_mask[:, : text.shape[1]] = mask
            values = {
                "video_mean": video_posterior.mean, "video_std": video_posterior.std,
                "audio_mean": audio_posterior.mean, "audio_std": audio_posterior.std,
                "text": full, "text_mask": full_mask,
            }
            for name, value in values.items():
                if name not in arrays:
                    arrays[name] = _array(out / f"{name}.npy", len(clips), value, done > 0)
                arrays[name][rows.start : rows.stop] = value.cpu().numpy()
            bar.update(len(rows))
            if first // batch_size % 20 == 0:
                _write_json(
                    progress_file,
                    {"done": rows.stop, "count": len(clips), "encoders": hashes},
                )
    for array in arrays.values():
        array.flush()
    manifest = {
        "count": len(clips), "encoders": hashes, "geometry": clips.geometry,
        "text_tokens": int(np.load(out / "text_mask.npy", mmap_mode="r").any(0).sum()),
        "statistics": _statistics(out),
    }
    _write_json(out / "manifest.json", manifest)
    progress_file.unlink(missing_ok=True)
    return out


def _array(path: Path, count: int, example: Tensor, resume: bool) -> np.ndarray:
    dtype = np.bool_ if example.dtype == torch.bool else np.float16
    if resume and path.exists():
        return np.load(path, mmap_mode="r+")
    return open_memmap(path, "w+", dtype, (count, *example.shape[1:]))


def _write_json(path: Path, value: Any) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(temporary, path)


def _statistics(folder: Path) -> dict[str, list[float]]:
    """Mean and standard deviation per channel of what a draw from the posterior looks like."""
    out: dict[str, list[float]] = {}
    for kind, axis in (("video", 1), ("audio", 2)):
        mean = np.load(folder / f"{kind}_mean.npy", mmap_mode="r")[:2048].astype(np.float32)
        std = np.load(folder / f"{kind}_std.npy", mmap_mode="r")[:2048].astype(np.float32)
        others = tuple(i for i in range(mean.ndim) if i != axis)
        out[f"{kind}_mean"] = mean.mean(others).tolist()
        out[f"{kind}_std"] = np.sqrt(mean.var(others) + (std**2).mean(others)).tolist()
    return out


class Latents:
    """Reader of such a folder.

    Raises:
        FileNotFoundError: no finished latents there.
        ValueError: ``expected`` (another manifest's encoders and geometry) differs.
    """

    def __init__(self, folder: str | Path, expected: dict[str, Any] | None = None) -> None:
        folder = Path(folder)
        if not (folder / "manifest.json").exists():
            raise FileNotFoundError(f"no finished latents in {folder} (no manifest.json)")
        self.manifest = json.loads((folder / "manifest.json").read_text())
        for key in ("encoders", "geometry") if expected else ():
            if self.manifest[key] != expected[key]:
                raise ValueError(
                    f"{folder} was made with other {key}: {self.manifest[key]}, "
                    f"expected {expected[key]}; encode it again"
                )
        names = (*_POSTERIORS, "text", "text_mask")
        self.arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}
        self.spec = ClipSpec(**self.manifest["geometry"])
        stats = self.manifest["statistics"]
        self.scale = {
            "video": tuple(_column(stats[f"video_{k}"], 4) for k in ("mean", "std")),
            "audio": tuple(_row(stats[f"audio_{k}"]) for k in ("mean", "std")),
        }

    def __len__(self) -> int:
        return self.manifest["count"]

    def batch(self, rows: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        """Normalised draws from the posteriors, and the text: ``video`` [B,Cz,T,h,w], ``audio``
        [B,A,D], ``text`` [B,L,E], ``mask`` [B,L]."""
        out: dict[str, Tensor] = {}
        for kind in ("video", "audio"):
            mean, std = (self._take(f"{kind}_{k}", rows) for k in ("mean", "std"))
            noise = torch.from_numpy(rng.standard_normal(mean.shape, dtype=np.float32))
            centre, spread = self.scale[kind]
            out[kind] = (mean + std * noise - centre) / spread
        mask = torch.from_numpy(self.arrays["text_mask"][rows])
        length = int(mask.any(0).sum())
        out["mask"] = mask[:, :length]
        out["text"] = self._take("text", rows)[:, :length]
        return out

    def _take(self, name: str, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(self.arrays[name][rows].astype(np.float32))


def _column(values: list[float], trailing: int) -> Tensor:
    return torch.tensor(values).view(-1, *[1] * (trailing - 1))


def _row(values: list[float]) -> Tensor:
    return torch.tensor(values)
