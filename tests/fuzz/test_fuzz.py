"""A few damaged files of each kind in every test run; thousands by hand: ``tests.fuzz.run``."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fuzz import forked, mutate
from tests.fuzz.forked import Refused

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

ROOT = Path(__file__).resolve().parents[2]
#: Cases of every test run, and their seed.
CLEAN = {
    "media": (50, 1),
    "models": (60, 1),
    "configs": (40, 1),
    "latents": (40, 1),
    "checkpoints": (40, 1),
    "shards": (40, 1),
}


@pytest.mark.parametrize("target", CLEAN)
def test_no_damaged_file_does_harm(target):
    """In a process of its own: what other tests have started must not be forked with it."""
    count, seed = CLEAN[target]
    command = [sys.executable, "-m", "tests.fuzz.run", f"--{target}", str(count)]
    done = subprocess.run(
        [*command, "--seed", str(seed)], cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.startswith(f"{target}: {count} in ")


def _busy(path):
    while True:
        pass


def _waits(path):
    time.sleep(60)


def _computes_a_second(path):
    end = time.process_time() + 1
    while time.process_time() < end:
        pass
    return ""


def _large(path):
    return str(len(bytearray(5 * 2**30)))


def _refuses(path):
    raise Refused("one line")


def _breaks(path):
    return path.nothing


def _dies(path):
    os.abort()


@pytest.mark.parametrize(
    ("use", "kind"),
    [
        (str, "accepted"), (_busy, "hang"), (_large, "memory"), (_refuses, "refused"),
        (_breaks, "traceback"), (_dies, "traceback"),
    ],
)  # fmt: skip
def test_each_end_of_a_case_is_told_from_the_others(tmp_path, monkeypatch, use, kind):
    monkeypatch.setattr(forked, "CPU_SECONDS", 1)
    outcome = forked.run(use, tmp_path)
    assert outcome.kind == kind and (kind == "accepted" or outcome.told)


def test_what_waits_is_stopped_and_what_computes_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(forked, "_WAITING_SECONDS", 0.2)
    assert forked.run(_waits, tmp_path).kind == "hang"
    assert forked.run(_computes_a_second, tmp_path).kind == "accepted"


def test_a_seed_damages_alike_and_every_value_is_reached():
    text = '{"a": {"b": [1, 2]}, "c": "x"}'
    one, again = (
        [mutate.json_value(random.Random(f"{n}"), text) for n in range(300)] for _ in range(2)
    )
    assert [said for said, _ in one] == [said for said, _ in again]
    names = {said.split(" ")[0] for said, _ in one}
    assert names == {"a", "a.b", "a.b.0", "a.b.1", "c"}
