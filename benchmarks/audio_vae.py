"""A miniature Encodec-KL VAE with and without its discriminator, on the sounds of impacts.

    python benchmarks/audio_vae.py --steps 400 --out runs/audio-vae-miniature \
        --json benchmarks/results/audio-vae-miniature.json

Both are trained alike, for equal steps from equal weights, on sounds of the training split, and
judged on 200 of the test split beside the audio VAE of the package. 95 % bootstrap intervals over
sounds. It shows that the parts work together; a few minutes on a CPU say little of a real VAE.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from syncflow import impacts  # noqa: E402
from syncflow.clip import SAMPLE_RATE  # noqa: E402
from syncflow.data import media  # noqa: E402
from syncflow.detect import fidelity, onsets  # noqa: E402
from syncflow.model_io import model_folder  # noqa: E402
from syncflow.models.codec import AudioCodec  # noqa: E402
from syncflow.models.posterior import DiagonalGaussian  # noqa: E402
from syncflow.training import runner  # noqa: E402
from syncflow.training.tasks import export  # noqa: E402

TRAINED_ON, HELD_OUT, LEVEL = 200, 200, 1
MODEL = {
    "kind": "encodec", "latent_channels": 32, "num_filters": 8, "num_lstm_layers": 1,
    "upsampling_ratios": [8, 6, 5, 4],
}  # fmt: skip
CRITIC = {"start": 100, "weight": 2.0, "feature_weight": 2.0, "filters": 8, "lr": 0.0005}
ARMS: dict[str, dict[str, Any] | None] = {"with": CRITIC, "without": None}


def sounds(folder: Path, split: str, count: int) -> Path:
    """``count`` soundtracks of a split as wav files."""
    where = folder / split
    where.mkdir(parents=True, exist_ok=True)
    for seed in impacts.SEEDS[split][:count]:
        path = where / f"{seed:08d}.wav"
        if not path.exists():
            scene = impacts.sample_scene(seed, LEVEL, split)
            media.write_wav(path, torch.as_tensor(impacts.sound(scene)).float())
    return where


def config(out: Path, data: Path, held_out: Path, steps: int, critic: Any) -> dict[str, Any]:
    return {
        "task": "audio_vae", "out": str(out), "data": str(data), "validation": str(held_out),
        "model": MODEL, "seconds": 0.3, "reconstruction": "mel", "wave_weight": 0.05,
        "kl_weight": 1e-4, "windows": [1024, 512, 256], "adversarial": critic,
        "loop": {
            "steps": steps, "batch_size": 4, "lr": 0.002, "betas": [0.5, 0.9], "ema": 0.98,
            "warmup": 20, "decay": 0.3, "weight_decay": 0.0, "precision": "fp32", "threads": 1,
            "validate_every": 100000, "seed": 0,
        },
    }  # fmt: skip


@torch.no_grad()
def judged(codec: AudioCodec, audio_BM: Tensor) -> dict[str, list[float]]:
    """Each sound's mel distance and SI-SDR, dB, and whether the number of onsets is kept."""
    found: dict[str, list[float]] = {"mel_db": [], "spectral_db": [], "si_sdr_db": [], "f1_50": []}
    for sound in audio_BM.split(1):
        copy = codec.decode(codec.encode(sound).mode(), num_samples=sound.shape[1]).float()
        found["mel_db"].append(fidelity.mel_distance(copy, sound))
        found["spectral_db"].append(fidelity.spectral_distance(copy, sound))
        found["si_sdr_db"].append(float(fidelity.si_sdr(copy, sound)[0]))
        found["f1_50"].append(onsets.score(list(copy), [onsets.times(sound[0])])["f1_50"])
    return found


def interval(values: list[float]) -> dict[str, float]:
    """Mean and 95 % bootstrap interval over what is finite."""
    kept = np.array([value for value in values if np.isfinite(value)])
    rng = np.random.default_rng(0)
    means = kept[rng.integers(0, len(kept), (2000, len(kept)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"mean": round(float(kept.mean()), 3), "low": round(float(low), 3),
            "high": round(float(high), 3), "sounds": len(kept)}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--out", type=Path, default=Path("runs/audio-vae-miniature"))
    parser.add_argument("--json", type=Path, help="write the table there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = sounds(options.out / "sounds", "train", TRAINED_ON)
    held_out = sounds(options.out / "sounds", "test", HELD_OUT)
    minutes = {}
    for name, critic in ARMS.items():
        path = options.out / f"{name}.json"
        values = config(options.out / name, data, held_out, options.steps, critic)
        path.write_text(json.dumps(values, indent=1))
        begun = time.process_time()
        runner.run(path, progress=False)
        minutes[name] = round((time.process_time() - begun) / 60, 2)
    audio = torch.stack([_wav(path) for path in sorted(held_out.glob("*.wav"))])
    each = {
        name: judged(export.load_part(options.out / name, "audio_vae").eval(), audio)
        for name in ARMS
    }
    _, parts = model_folder.load_encoders(model_folder.find(None))
    each["package"] = judged(parts["audio_vae"], audio)
    each["silence"] = judged(_Silence(), audio)
    rows = {name: {key: interval(v) for key, v in found.items()} for name, found in each.items()}
    gain = {
        key: interval([a - b for a, b in zip(each["with"][key], each["without"][key], strict=True)])
        for key in each["with"]
    }
    found = {
        "steps": options.steps, "trained_on": TRAINED_ON, "held_out": HELD_OUT, "level": LEVEL,
        "sample_rate": SAMPLE_RATE, "cpu_minutes": minutes, "model": MODEL, "adversarial": CRITIC,
        "rows": rows, "with_minus_without": gain,
    }  # fmt: skip
    print(json.dumps(found, indent=1))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


class _Silence(AudioCodec):
    """What a VAE that has learned nothing but the loudness of most of a clip scores."""

    def encode(self, audio_BM: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian(audio_BM[..., None] * 0, audio_BM[..., None] * 0)

    def decode(self, latent_BAD: Tensor, num_samples: int | None = None) -> Tensor:
        return latent_BAD[:, :num_samples, 0]


def _wav(path: Path) -> Tensor:
    """float32 [M] of a wav file written by ``sounds``."""
    import wave

    with wave.open(str(path)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return torch.from_numpy(samples.astype(np.float32) / 32767)


if __name__ == "__main__":
    raise SystemExit(main())
