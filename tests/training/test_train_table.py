"""The table of XL/2's training on one GPU, its rows at tiny size on the CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu import train_table  # noqa: E402


def _run(*arguments: str, timeout: float = 300) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "benchmarks.gpu.train_table", "--device", "cpu", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)


def test_an_unknown_row_is_refused_in_one_line(tmp_path):
    done = _run("--out", str(tmp_path), "--rows", "stage4_plain")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "stage4_plain" in done.stderr and "stage2_plain" in done.stderr


def test_losses_are_compared_step_by_step():
    found = train_table.agreement([2.0, 1.0, 4.0], [2.0, 1.1])
    assert found["steps"] == 2
    assert found["largest_relative_difference"] == pytest.approx(0.1 / 1.1)
    assert train_table.agreement(None, [1.0]) is None


def test_rows_are_measured_joined_and_not_measured_again(tmp_path):
    rows = ["stage3_plain", "stage3_zero1"]
    options = ["--out", str(tmp_path), "--tiny", "--rows", ",".join(rows), "--seconds", "900",
               "--row-seconds", "250"]  # fmt: skip
    done = _run(*options, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    joined = json.loads((tmp_path / "train.json").read_text())["rows"]
    assert list(joined) == rows
    plain, zero = (joined[name] for name in rows)
    assert plain["samples_per_second"] > 0
    # As many as the seconds of a row allow: on a busy machine one may have fewer.
    assert min(len(plain["losses"]), len(zero["losses"])) >= 2
    assert zero["deepspeed"] and zero["engine"] == "zero1"
    # Two engines, one arithmetic: bf16 weights against weights rounded to bf16 in every product.
    assert 0 < zero["against_plain"]["largest_relative_difference"] < 1e-3
    # A learning rate forgotten or another order of clips would be far outside that.
    assert abs(plain["losses"][0] / plain["losses"][1] - 1) > 5e-3
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("stage3*.json")}
    done = _run(*options)
    assert done.returncode == 0 and "samples/s" not in done.stdout
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("stage3*.json")}


def test_a_row_that_hangs_is_ended_and_the_next_one_measured_until_time_is_over(tmp_path):
    done = _run("--out", str(tmp_path), "--tiny", "--rows", "stage2_plain,stage3_plain",
                "--row-seconds", "0.6", "--seconds", "0.5")  # fmt: skip
    assert done.returncode == 1
    failed = json.loads((tmp_path / "stage2_plain.json").read_text())
    assert "without a result" in failed["error"]
    assert "stage3_plain: not run" in done.stdout
    assert not (tmp_path / "stage3_plain.json").exists()


def test_a_process_that_cannot_begin_says_why(tmp_path, monkeypatch, capsys):
    def begin(command, **given):
        failed = {"row": command[3], "error": "ModuleNotFoundError: deepspeed"}
        train_table.write(tmp_path / f"{command[3]}.json", failed)
        return started(["true"], stdin=subprocess.PIPE)

    started = subprocess.Popen
    monkeypatch.setattr(train_table.subprocess, "Popen", begin)
    arguments = ["train_table", "--out", str(tmp_path), "--device", "cpu", "--rows", "stage3_zero1"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert train_table.main() == 1
    assert "ModuleNotFoundError: deepspeed" in capsys.readouterr().out
    # The next try that says nothing is not taken for that one.

    def silent(command, **given):
        return started(["true"], stdin=subprocess.PIPE)

    monkeypatch.setattr(train_table.subprocess, "Popen", silent)
    monkeypatch.setattr(sys, "argv", [*arguments, "--retry"])
    assert train_table.main() == 1
    assert "without a result" in capsys.readouterr().out
