"""`python -m benchmarks.gpu.small` at tiny size: killed at any second, what it wrote is a model."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "benchmarks.gpu.small"]


def run(*arguments: str, seconds: float = 240) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=seconds
    )


def test_killed_at_some_second_it_leaves_a_model_that_can_be_used_and_trained_on(tmp_path):
    import syncflow

    out = tmp_path / "out"
    process = subprocess.Popen(
        [*COMMAND, "--tiny", "--minutes", "0.6", "--out", str(out), "--workers", "1"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    end = time.monotonic() + 200
    while not (out / "part-3.safetensors").exists() and time.monotonic() < end:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)
    time.sleep(random.uniform(0, 8))
    process.send_signal(signal.SIGKILL)
    process.wait()
    joined = run("--join", str(out), "--model", str(tmp_path / "model"))
    assert joined.returncode == 0, joined.stderr
    model = syncflow.load(tmp_path / "model", device="cpu")
    clip = model.generate("A BALL BOUNCES", steps=1, audio_steps=1, progress=False)
    assert clip.video.shape == (32, 3, 64, 64) and clip.audio.shape == (96000,)


def test_it_ends_by_the_clock_and_goes_on_from_its_own_weights(tmp_path):
    first = run("--tiny", "--minutes", "0.5", "--out", tmp_path / "a", "--workers", "1")
    assert first.returncode == 0, first.stderr
    assert '"phase": "writing (done)"' in first.stdout
    began = time.monotonic()
    second = run(
        "--tiny", "--minutes", "0.6", "--out", tmp_path / "b", "--init", tmp_path / "a",
        "--workers", "1", "--seed", "1",
    )  # fmt: skip
    assert second.returncode == 0, second.stderr
    assert time.monotonic() - began < 100
    assert '"phase": "text"' not in second.stdout and '"phase": "towers"' in second.stdout
    from benchmarks.gpu.small import folder

    old, new = folder.read(tmp_path / "a")[1], folder.read(tmp_path / "b")[1]
    assert all((old["text_encoder"][k] == v).all() for k, v in new["text_encoder"].items())
    key = "video_tower.final_layer.linear.weight"
    assert not (old["ddit"][key] == new["ddit"][key]).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--tiny",), "--minutes and --out are needed"),
        (("--minutes", "0", "--out", "x"), "--minutes must be positive, got 0"),
        (("--minutes", "1", "--out", "x", "--seed", "9"), "--seed must be 0 to 3"),
        (("--join", "nowhere", "--model", "m"), "neither a model nor part-1"),
        (("--join", "nowhere"), "--join needs --model"),
    ],
)
def test_what_cannot_be_used_is_one_line(arguments, said):
    done = run(*arguments)
    assert done.returncode == 2 and said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
