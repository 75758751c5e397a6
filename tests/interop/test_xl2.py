"""Open-Sora's released sizes through import, save, load and a step: 5 GB of disk, 10 of memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from syncflow.config import OpenSoraVAEConfig, VideoTowerConfig
from syncflow.models.video_tower import VideoTower
from syncflow.models.video_vae import VideoVAE

# A process of its own for import and for the step, so that each one's peak is its own.
IMPORT = """
import sys
from syncflow.cli import main
code = main(sys.argv[1:])
"""
STEP = """
import sys, time
import torch
import syncflow
model = syncflow.load(sys.argv[1], device="cpu", dtype="bfloat16")
model.save(sys.argv[2])
model = syncflow.load(sys.argv[2], device="cpu", dtype="bfloat16")
begin = time.monotonic()
latents = []
class Done(Exception): pass
def stop(step, x, t):
    latents.extend(x)
    raise Done
try:
    model.generate("a drum", steps=2, guidance=1.0, height=256, width=256, callback=stop,
                   seconds=float(sys.argv[3]), progress=False)
except Done: pass
seconds = time.monotonic() - begin
assert all(x.isfinite().all() for x in latents), "not finite"
assert latents[0].shape[-2:] == (32, 32)
code = 0
"""
TAIL = """
import json, resource
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"code": code, "peak_gb": peak, "seconds": globals().get("seconds")}))
"""


def write_random(path: Path, module: torch.nn.Module, dtype: torch.dtype) -> int:
    """A state dict of the module's layout, random, file mapped as it is written."""
    from safetensors.torch import save_file

    block = torch.randn(1 << 22, generator=torch.Generator().manual_seed(0)).to(dtype)
    state = {}
    for index, (key, value) in enumerate(module.state_dict().items()):
        count = value.numel()
        noise = block.roll(7919 * index)
        noise = noise.repeat(-(-count // len(noise)))[:count].view(value.shape)
        noise = noise * (0.02 if value.ndim > 1 else 0.01)
        state[key] = 1 + noise if "norm" in key and key.endswith("weight") else noise
    if "rope.freqs" in state:
        head_dim = 2 * len(state["rope.freqs"])
        state["rope.freqs"] = 1e4 ** (-torch.arange(0, head_dim, 2) / head_dim)
    if "scale" in state:
        state["scale"] = torch.ones(1, 4, 1, 1, 1)
    path.parent.mkdir()
    save_file(state, path)
    return len(state)


def run(code: str, *arguments: object) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", code + TAIL, *map(str, arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["code"] == 0, done.stderr[-2000:]
    return report


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [2.0])
def test_the_released_sizes_import_load_and_step_within_24_gb(tmp_path, seconds):
    from transformers import ByT5Tokenizer, T5Config, T5EncoderModel

    with torch.device("meta"):
        tower, vae = VideoTower(VideoTowerConfig()), VideoVAE(OpenSoraVAEConfig())
    assert write_random(tmp_path / "stdit" / "model.safetensors", tower, torch.bfloat16) == 973
    write_random(tmp_path / "vae" / "model.safetensors", vae, torch.float32)
    sizes = dict(d_model=4096, d_kv=16, d_ff=32, num_layers=1, num_heads=2)
    T5EncoderModel(T5Config(vocab_size=384, **sizes)).save_pretrained(tmp_path / "text")
    ByT5Tokenizer().save_pretrained(tmp_path / "text")

    arguments = [f"--{name}={tmp_path / name}" for name in ("stdit", "vae", "text")]
    imported = run(IMPORT, "import", "opensora", *arguments, f"--out={tmp_path / 'out'}")
    step = run(STEP, tmp_path / "out", tmp_path / "again", seconds)
    print(f"import: {imported}; load, save, load, step: {step}")
    assert imported["peak_gb"] < 24 and step["peak_gb"] < 24
