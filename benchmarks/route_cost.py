"""What preparing VGGSound and sampling its test set cost, counted on models that are not run.

    python benchmarks/route_cost.py --json benchmarks/results/route-cost.json

GPU-hours are operations over a share of an H100's dense bfloat16 peak; reading and decoding films
is the CPUs' work and is left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from syncflow.clip import ClipSpec  # noqa: E402
from syncflow.config import EncodecVAEConfig, OpenSoraVAEConfig, T5TextConfig  # noqa: E402
from syncflow.models.vae import build_audio_vae, build_video_vae  # noqa: E402

CLIPS, SAMPLED, STEPS = 200_000, 15_000, 50
WINDOWS = 5  # of 2 s in a clip of 10 s
TOKENS = 20  # of a caption, a guess
PEAK, SHARE = 989e12, 0.4


def flops(function: Any, *arguments: Any, **options: Any) -> tuple[float, Any]:
    with FlopCounterMode(display=False) as counter:
        out = function(*arguments, **options)
    return float(counter.get_total_flops()), out


@torch.no_grad()
def counted() -> dict[str, float]:
    """Operations of one window of 2 s by what is done with it, and its bytes on disk."""
    spec = ClipSpec()
    with torch.device("meta"):
        video_vae = build_video_vae(OpenSoraVAEConfig()).eval()
        audio_vae = build_audio_vae(EncodecVAEConfig()).eval()
        video = torch.empty(1, 3, spec.num_frames, spec.height, spec.width)
        audio = torch.empty(1, spec.num_samples)
        see, latent = flops(lambda: video_vae.encode(video).mode())
        show, _ = flops(video_vae.decode, latent, num_frames=spec.num_frames)
        hear, heard = flops(lambda: audio_vae.encode(audio).mode())
        sound, _ = flops(audio_vae.decode, heard, num_samples=spec.num_samples)
    t5 = T5TextConfig()
    attention = 4 * t5.d_model * t5.num_heads * t5.d_kv
    weights = t5.num_layers * (attention + 3 * t5.d_model * t5.d_ff)  # gated: three matrices
    guided = json.loads((ROOT / "benchmarks" / "results" / "counted.json").read_text())
    step = guided["opensora/stage3"]["guided_step"]["flops"]
    numbers = 2 * (latent.numel() + heard.numel()) + TOKENS * t5.d_model  # means and deviations
    return {
        "encode_video": see, "decode_video": show, "encode_audio": hear, "decode_audio": sound,
        "read_caption": 2.0 * weights * TOKENS, "guided_step": float(step), "bytes": 2.0 * numbers,
    }  # fmt: skip


def report() -> dict[str, Any]:
    one = counted()
    windows = CLIPS * WINDOWS
    preparing = windows * (one["encode_video"] + one["encode_audio"]) + CLIPS * one["read_caption"]
    clip = STEPS * one["guided_step"] + one["decode_video"] + one["decode_audio"]
    clip += one["read_caption"]
    return {
        "clips": CLIPS, "windows": windows, "sampled": SAMPLED, "steps": STEPS,
        "peak_tflops": PEAK / 1e12, "share": SHARE, "caption_tokens": TOKENS, "of_one_window": one,
        "prepare_gpu_hours": preparing / (PEAK * SHARE) / 3600,
        "prepare_tb": windows * one["bytes"] / 1e12,
        "sample_gpu_hours": SAMPLED * clip / (PEAK * SHARE) / 3600,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write everything there")
    options = parser.parse_args()
    found = report()
    print(json.dumps(found, indent=1))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
