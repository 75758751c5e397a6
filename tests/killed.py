"""Runs a job again and again, killed with SIGKILL at random moments, until it ends by itself.

    python tests/killed.py train FOLDER KILLS SEED
    python tests/killed.py prepare FOLDER KILLS SEED

Each run is a fork of this process, which has imported everything once. FOLDER/whole is the result
without a kill; every result that a killed job comes to must be the same, file by file. Prints how
many runs were killed while they worked, and how far the one after the last kill had to go.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "training")]
_IGNORED = ("metrics.jsonl", ".lock", "tensorboard")


def train(folder: Path, out: Path) -> None:
    from made import flow_config, write_latents

    from syncflow.training import runner

    latents = folder / "latents"
    if not latents.exists():
        write_latents(latents)
    loop = {
        "steps": 40, "checkpoint_every": 2, "keep_last": 3, "ema": 0.9, "optimizer": "muon",
        "decay": 0.5, "validate_every": 40,
    }  # fmt: skip
    config = folder / f"{out.name}.json"
    config.write_text(json.dumps(flow_config(latents, out, "audio", loop)))
    runner.run(config, progress=False)


def prepare(folder: Path, out: Path) -> None:
    from syncflow.config import ModelConfig
    from syncflow.data.prepare import Options, plan
    from syncflow.data.prepare import prepare as make
    from tests.data import toy
    from tests.data.made_clips import clip

    for number in range(6):
        if not (folder / "clips" / f"{number}.mp4").exists():
            clip(folder / "clips" / f"{number}.mp4", 1.0, seed=number)
    spec = ModelConfig.parse(toy.TOY).geometry.spec
    plan.SHARD = 2  # so that parts are joined on the way
    options = Options(caption="a square", keep=("static",))
    make(folder / "clips", out, toy.encoders(), spec, options, batch=1, progress=False)


def begin(job: Callable[[Path, Path], None], folder: Path, out: Path) -> int:
    """The process that does it."""
    child = os.fork()
    if child:
        return child
    try:
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        job(folder, out)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def ended(child: int, seconds: float) -> bool:
    """Whether it ended by itself within so long; it must have ended well."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0, f"the job failed: {status}, see its log"
            return True
        time.sleep(0.002)
    return False


def contents(out: Path) -> dict[str, object]:
    """What the job came to; of checkpoints, the tensors and the step, for their times differ."""
    from safetensors.torch import load_file

    found: dict[str, object] = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if not path.is_file() or name.startswith(_IGNORED):
            continue
        if path.suffix == ".safetensors" and (out / "checkpoints").exists():
            found[name] = {k: v.numpy().tobytes() for k, v in load_file(path).items()}
        elif path.name == "manifest.json" and path.parent != out:
            about = json.loads(path.read_text())
            found[name] = {key: about[key] for key in ("step", "skipped", "parts")}
        else:
            found[name] = path.read_bytes()
    return found


def same(out: Path, whole: Path) -> None:
    ours, theirs = contents(out), contents(whole)
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    for name, value in theirs.items():
        assert ours[name] == value, f"{name} is another one"


def main(kind: str, name: str, kills: int, seed: int) -> None:
    job, folder, rng = {"train": train, "prepare": prepare}[kind], Path(name), random.Random(seed)
    torch.set_num_threads(1)
    import syncflow.data.prepare
    import syncflow.training.loop
    import syncflow.training.tasks.flow  # noqa: F401

    folder.mkdir(parents=True, exist_ok=True)
    assert ended(begin(job, folder, folder / "whole"), 600)  # whatever is made once is made here
    shutil.rmtree(folder / "whole")
    begun = time.monotonic()
    assert ended(begin(job, folder, folder / "whole"), 600)
    lasts = time.monotonic() - begun
    out, killed = folder / "killed", 0
    while killed < kills:
        child = begin(job, folder, out)
        if ended(child, rng.uniform(0.02, 0.7) * lasts):
            same(out, folder / "whole")
            shutil.rmtree(out)
            continue
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        killed += 1
    assert ended(begin(job, folder, out), 600)
    same(out, folder / "whole")
    print(f"{kind}: killed {killed} times within {lasts:.1f} s each; nothing lost, same bits")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
