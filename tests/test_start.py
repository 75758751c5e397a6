"""What a command waits for before it does its work."""

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROMPT = "a metal ball bounces twice on concrete"
GENERATE = ["-m", "syncflow", "generate", PROMPT, "--steps", "2", "--no-progress"]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def imported(*arguments: str) -> tuple[dict[str, float], float]:
    """(seconds of each module imported, seconds of CPU time of the whole process)."""
    begin = os.times()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        capture_output=True,
        text=True,
        env=environment(),
    )
    end = os.times()
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line.split("|") for line in done.stderr.splitlines() if line.startswith("import time:")]
    found = {name.strip(): int(own.split(":")[1]) for own, _, name in rows[1:]}
    cpu = end.children_user + end.children_system - begin.children_user - begin.children_system
    return {name: micro / 1e6 for name, micro in found.items()}, cpu


def test_a_clip_imports_little_beside_torch(tmp_path):
    torch_alone, _ = imported("-c", "import torch")
    all_of_it, _ = imported(*GENERATE, "-o", str(tmp_path / "clip.mp4"))
    assert (tmp_path / "clip.mp4").exists()
    packages = {name.partition(".")[0] for name in all_of_it}
    slow = {"transformers", "diffusers", "scipy", "torchaudio", "sympy", "huggingface_hub"}
    assert packages & slow == set()
    assert "torch._dynamo" not in all_of_it
    beside = sum(seconds for name, seconds in all_of_it.items() if name not in torch_alone)
    # Both were timed on whatever machine this is: transformers and the compiler took 1.5 times as
    # long as torch.
    assert beside < 0.7 * sum(torch_alone.values())


def test_the_screen_says_something_within_a_second(tmp_path):
    """Before torch is there; and nothing of it stays."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, *GENERATE, "-o", str(tmp_path / "clip.mp4")],
        stderr=theirs, stdout=subprocess.DEVNULL, env=environment(),
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    try:
        while not seen and select.select([ours], [], [], 60)[0]:
            seen = os.read(ours, 1000)
        assert seen == b"loading PyTorch ..."
        with open(f"/proc/{process.pid}/stat") as file:  # ticks of CPU time, whatever else runs
            user, system = file.read().rpartition(")")[2].split()[11:13]
        assert (int(user) + int(system)) / os.sysconf("SC_CLK_TCK") < 1
        while process.poll() is None:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    seen += os.read(ours, 1000)
                except OSError:  # the last process has closed its end
                    break
                time.sleep(0.01)
        assert process.wait() == 0
        assert b"loading PyTorch ...\r\x1b[Kloading the model ...\r\x1b[K" in seen
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.parametrize("name", ["torch", "pydantic"])
def test_help_and_mistakes_need_no_package(name):
    code = f"import sys; sys.modules[{name!r}] = None\nfrom syncflow.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "generate", "--help"], capture_output=True, env=environment()
    )
    assert done.returncode == 0, done.stderr
