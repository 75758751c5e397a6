"""What docs/generate.md says of enlarged films and of memory.

python -m benchmarks.generating --out benchmarks/results/generating-impacts-64.json

A clip is written at every size and read again; each square of the enlarged picture is averaged to
the pixel that it was. Moving pixels differ by more than a tenth from the frame before. Memory is
the process's peak above what it holds once the model is loaded and has made a short clip, a process
for every length. Linux only.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import syncflow
from syncflow.data import media
from syncflow.data.export import scale
from syncflow.detect import fidelity
from syncflow.evaluation.suites import provenance

PROMPT, SEED = "a red rubber ball bounces three times on wood", 7
SIZES = ((1, "nearest"), (2, "nearest"), (4, "nearest"), (2, "lanczos"), (4, "lanczos"))
LENGTHS = (30, 60)
_MOVES = 25

_PEAK = """
import re, sys, torch, syncflow
torch.set_num_threads(1)
def kib(name):
    return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1])
model = syncflow.load(device="cpu")
model.generate(sys.argv[1], steps=2, progress=False)
open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
before = kib("VmRSS")
model.generate(sys.argv[1], seconds=float(sys.argv[2]), progress=False)
print((kib("VmHWM") - before) * 1024)
"""


def enlarged(model: Any, folder: Path) -> list[dict[str, Any]]:
    """PSNR of all and of moving pixels after a film of each size."""
    clip = model.generate(PROMPT, seed=SEED, progress=False)
    video = clip.video.float()
    moves_F1HW = (video[1:] - video[:-1]).abs().amax(1, keepdim=True) > _MOVES
    rows = []
    for factor, name in SIZES:
        path = replace(clip, video=scale.enlarge(clip.video, factor, name)).save(folder / "a.mp4")
        shown, _ = media.read(path)
        small = torch.nn.functional.avg_pool2d(shown.float(), factor)
        rows.append({
            "scale": factor, "filter": name, "bytes": path.stat().st_size,
            "psnr": fidelity.psnr(small, video, span=255),
            "psnr_moving": fidelity.psnr(small[1:], video[1:], moves_F1HW.float(), span=255),
        })  # fmt: skip
    return rows


def peak(seconds: float) -> int:
    """Bytes that a clip of this length takes above the loaded model, at the most."""
    command = [sys.executable, "-c", _PEAK, PROMPT, str(seconds)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    torch.set_num_threads(1)
    model, named = provenance.load_model(None)
    command = f"python -m benchmarks.generating {shlex.join(sys.argv[1:])}"
    with tempfile.TemporaryDirectory() as folder:
        report = {
            "facts": {**named, **provenance.circumstances(command), "prompt": PROMPT, "seed": SEED,
                      "syncflow": syncflow.__version__},
            "enlarged": enlarged(model, Path(folder)),
            "peak_bytes": {str(seconds): peak(seconds) for seconds in LENGTHS},
        }  # fmt: skip
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({k: report[k] for k in ("enlarged", "peak_bytes")}, indent=1))


if __name__ == "__main__":
    main()
