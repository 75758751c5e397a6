"""Whether two checkouts compute the same, bit for bit: a clip of the shipped model, and 20 steps of
each stage of configs/tiny from rendering to the exported model.

python tools/compare_bitwise.py ../base              # against the checkout that this script is in
python tools/compare_bitwise.py ../base --new ../new

Both need the same compiled operators: `python setup.py operators` in one of them, and its
`syncflow/_C*` copied into the other. Each runs in processes of its own, in float32 on one thread.
Exit code 0: everything agrees, 1: something does not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STEPS = 20
STAGES = ("stage1", "stage2", "stage3")
#: What a line of metrics.jsonl says about the numbers; the rest is of the machine.
_NUMBERS = ("step", "loss", "video", "audio", "grad_norm", "lr")
CLIP = """
import hashlib, json, sys, syncflow
model = syncflow.load(*sys.argv[1:], device="cpu", dtype="float32")
clip = model.generate("a metal ball bounces three times on stone", seed=7, progress=False)
print(json.dumps({
    name: hashlib.sha256(getattr(clip, name).contiguous().numpy().tobytes()).hexdigest()
    for name in ("video", "audio")
}))
"""


def run(tree: Path, folder: Path, *command: str) -> str:
    """What Python prints that finds the package in ``tree`` and nowhere else."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"compare: {tree}: {' '.join(command)[:200]}\n{done.stderr[-3000:]}")
    return done.stdout


def tensors(path: Path) -> str:
    """Hash of a safetensors file's names and values, whatever is written beside them."""
    from safetensors.numpy import load_file

    digest = hashlib.sha256()
    for name, value in sorted(load_file(path).items()):
        digest.update(f"{name} {value.dtype} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def curve(path: Path, keys: tuple[str, ...]) -> str:
    """Hash of what a run told under keys that begin so."""
    lines = []
    for text in path.read_text().splitlines():
        line = json.loads(text)
        if any(key != "step" and key.startswith(keys) for key in line):
            lines.append({k: v for k, v in line.items() if k.startswith(keys)})
    return hashlib.sha256(json.dumps(lines, sort_keys=True).encode()).hexdigest()


def prints(tree: Path, folder: Path) -> dict[str, str]:
    """Name -> hash of everything that is compared, made by the checkout ``tree``."""
    found = {f"shipped clip, {k}": v for k, v in json.loads(run(tree, folder, "-c", CLIP)).items()}
    configs = folder / "configs"
    configs.mkdir()
    names = ["render_train", "render_val", "latents_train", "latents_val", *STAGES, "export"]
    for name in names:
        source = tree / "configs" / "tiny" / f"{name}.json"
        config: dict[str, Any] = json.loads(source.read_text())
        for part in ("video_vae", "audio_vae", "text_encoder"):
            if part in config:
                config[part] = str(tree / config[part])
        if "clips" in config:
            config["clips"] = 32
        if "loop" in config:
            config["loop"] |= {"steps": STEPS, "validate_every": STEPS}
            config["loop"] |= {"threads": 1, "log_every": 1}
        path = configs / f"{name}.json"
        path.write_text(json.dumps(config))
        train = ["-m", "syncflow", "train", "--no-progress", "--device", "cpu"]
        run(tree, folder, *train, "--config", str(path))
    runs = folder / "runs" / "tiny"
    for shard in sorted((runs / "latents_train").glob("*.safetensors")):
        found[f"latents, {shard.stem}"] = tensors(shard)
    for stage in STAGES:
        found[f"{stage}, weights"] = tensors(runs / stage / "model.safetensors")
        told = runs / stage / "metrics.jsonl"
        found[f"{stage}, losses"] = curve(told, _NUMBERS)
        found[f"{stage}, validation"] = curve(told, ("step", "val_"))
    clip = json.loads(run(tree, folder, "-c", CLIP, str(runs / "model")))
    return found | {f"clip of the trained model, {name}": value for name, value in clip.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", type=Path, help="the other checkout")
    parser.add_argument("--new", type=Path, default=ROOT, help="default: this one")
    args = parser.parse_args()
    found = []
    for tree in (args.base, args.new):
        with tempfile.TemporaryDirectory() as folder:
            found.append(prints(tree.resolve(), Path(folder)))
    base, new = found
    differing = sorted(base.keys() ^ new.keys())
    for name in base.keys() & new.keys():
        if base[name] != new[name]:
            differing.append(name)
    for name in dict.fromkeys([*base, *new]):
        pair = [side.get(name, "-")[:16] for side in (base, new)]
        print(f"{'DIFFERS' if name in differing else 'same':8} {pair[0]:16} {pair[1]:16} {name}")
    every = base.keys() | new.keys()
    print(f"{len(every) - len(differing)} of {len(every)} agree")
    return 1 if differing else 0


if __name__ == "__main__":
    raise SystemExit(main())
