"""benchmarks/host_side.py: it names what a step waits for, in the step and ahead of it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-W", "ignore", str(ROOT / "benchmarks/host_side.py"), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_the_phases_of_both_ways_are_told():
    done = run("--clips", "8", "--draws", "2", "--steps", "2")
    assert done.returncode == 0, done.stderr
    told = [line.split() for line in done.stdout.splitlines() if line.startswith("  prefetch")]
    assert [row[1] for row in told] == ["0:", "2:"]
    for row in told:
        assert row[2::2] == ["data", "coupling", "forward", "backward", "optimizer"]
        assert all(float(seconds) >= 0 for seconds in row[3::2]) and float(row[7]) > 0


def test_sizes_that_make_no_sense_are_one_line():
    done = run("--draws", "0")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
