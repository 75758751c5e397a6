"""The scaling formulae in the cases in which the answer is known, and the benchmark's command."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("simulate", ROOT / "benchmarks" / "simulate.py")
simulate = importlib.util.module_from_spec(spec)
sys.modules["simulate"] = simulate
spec.loader.exec_module(simulate)

ONE = simulate.Measured(
    forward=0.1, backward=0.2, optimizer=0.04, batch=16, parameters=2_000_000_000,
    trained=800_000_000, activation_bytes=1e9,
)  # fmt: skip
NETWORK = simulate.Network()


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_one_gpu_is_what_was_measured(stage):
    row = simulate.point(ONE, NETWORK, stage, 1)
    assert row.efficiency == 1 and row.communication == 0
    assert row.samples_per_second == pytest.approx(16 / 0.34)
    assert row.memory == 2 * 2e9 + 18 * 0.8e9 + 16e9


def test_memory_falls_with_the_stage_and_to_its_limit():
    rows = [simulate.memory(ONE, stage, 64) for stage in (1, 2, 3)]
    assert rows == sorted(rows, reverse=True)
    assert simulate.memory(ONE, 1, 10**9) == pytest.approx(2 * 2e9 + 2 * 0.8e9 + 16e9)
    assert simulate.memory(ONE, 2, 10**9) == pytest.approx(2 * 2e9 + 16e9)
    assert simulate.memory(ONE, 3, 10**9, gathered=0) == pytest.approx(16e9)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_network_that_costs_nothing_leaves_the_shared_optimizer(stage):
    free = replace(NETWORK, inside=1e30, between=1e30, latency=0, jitter=0)
    row = simulate.point(ONE, free, stage, 1024)
    assert row.seconds == pytest.approx(0.3 + 0.04 / 1024)


def test_what_cannot_hide_is_exposed():
    calm = replace(NETWORK, jitter=0, latency=0)
    row = simulate.point(ONE, calm, 1, 8)  # gradients hide behind 0.16 s, new weights do not
    assert row.communication == pytest.approx(1.6e9 * 7 / 8 / (450e9 * 0.8))
    slow = replace(calm, inside=1e9)
    behind = 1.6e9 * 7 / 8 / 0.8e9
    assert simulate.point(ONE, slow, 1, 8).communication == pytest.approx(2 * behind - 0.16)


def test_more_gpus_take_no_less_time_a_step_past_a_node():
    for stage in (1, 2, 3):
        counts = (16, 256, 4096)
        seconds = [simulate.point(ONE, NETWORK, stage, count).seconds for count in counts]
        assert seconds == sorted(seconds)


def test_a_coupling_shows_only_where_it_takes_longer_than_a_step():
    quick = replace(ONE, coupling=5 * 0.04, coupled=512)
    assert quick.pairing(512 // ONE.batch) == pytest.approx(0.2)
    twice = replace(quick, accumulate=2)
    assert twice.pairing(32) == pytest.approx(2 * quick.pairing(32))
    few, many = 512 // ONE.batch, 16 * 512 // ONE.batch
    plain = simulate.point(ONE, NETWORK, 1, many).seconds
    assert simulate.point(replace(ONE, coupling=1e-6), NETWORK, 1, few) == simulate.point(
        ONE, NETWORK, 1, few
    )
    assert simulate.point(quick, NETWORK, 1, many).seconds == pytest.approx(
        max(plain, 0.2 * 16**2.5)
    )


def test_the_commands_table_and_its_refusal(tmp_path):
    script = str(ROOT / "benchmarks" / "throughput.py")
    from dataclasses import asdict

    (tmp_path / "one.json").write_text(json.dumps({"measured": asdict(ONE)}))
    command = [sys.executable, script, "--mode", "train", "--simulate"]
    done = subprocess.run([*command, str(tmp_path / "one.json")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith(("| 1 |", "| 3 |"))]
    assert len(rows) == 2 * 13 and rows[-1].split("|")[2].strip() == "4096"
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "needs one GPU's numbers" in done.stderr
