"""kill -9 at random moments: what a job then comes to is what it comes to without (killed.py)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("kind", ["train", "prepare"])
@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_nothing_is_lost(tmp_path, kind, kills):
    done = subprocess.run(
        [sys.executable, str(HERE / "killed.py"), kind, str(tmp_path), str(kills), "7"],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    log = tmp_path / "log"  # of the job
    assert done.returncode == 0, done.stderr[-2000:] + log.read_text()[-2000:]
    assert f"killed {kills} times" in done.stdout
