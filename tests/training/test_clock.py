"""Runs by the clock, on a clock that goes a second a step."""

import json
import os
import signal

import pytest
import torch
from pydantic import ValidationError

from syncflow.training import clock
from syncflow.training.checkpoints import checkpoint
from syncflow.training.distributed.groups import Group
from syncflow.training.loop import fit
from syncflow.training.settings import LoopConfig
from syncflow.training.tasks.task import Task


class Ticking(Task):
    """Learns nothing much; every step takes a second. ``stop``: when a job's end is told."""

    def __init__(self, now: list[float], stop: float | None = None) -> None:
        torch.manual_seed(0)
        self.module = torch.nn.Linear(1, 1)
        self.now, self.stop, self.validated = now, stop, 0

    def batch(self, step):
        return torch.ones(2, 1)

    def loss(self, batch, generator):
        if self.stop is not None and self.now[0] >= self.stop:
            os.kill(os.getpid(), signal.SIGTERM)
        self.now[0] += 1.0
        return self.module(batch).square().mean(), {}

    def validate(self, module):
        self.validated += 1
        return {"loss": 1.0}


@pytest.fixture
def now(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(clock, "_now", lambda: now[0])
    return now


def by_clock(**changes) -> LoopConfig:
    values = {
        "minutes": 0.5, "batch_size": 2, "lr": 0.02, "warmup": 0, "warmup_minutes": 0.1,
        "decay": 0.5, "precision": "fp32", "log_every": 1, "validate_every": 7,
        "checkpoint_every": 10,
    }  # fmt: skip
    return LoopConfig.parse({**values, **changes})


def rates(out) -> list[float]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [row["lr"] for row in rows if "lr" in row]


def test_a_run_by_the_clock_ends_in_time_with_its_rate_at_zero(tmp_path, now):
    task = Ticking(now)
    fit(task, by_clock(), tmp_path, progress=False)
    assert now[0] == 1030.0  # 30 steps of a second are half a minute
    found = rates(tmp_path)
    # Six seconds of warm-up, a plateau until the middle, then down to the last second's share.
    assert found[:7] == pytest.approx([0.02 * n / 6 for n in range(7)])
    assert found[7:16] == pytest.approx([0.02] * 9)
    assert found[16:] == pytest.approx([0.02 * (30 - n) / 15 for n in range(16, 30)])
    assert task.validated == 5  # steps 7, 14, 21 and 28, and the last
    assert checkpoint.newest(tmp_path).about["seconds"] == 30.0


def test_a_resumed_run_goes_on_with_the_minutes_that_are_left(tmp_path, now, capsys):
    with pytest.raises(SystemExit):
        fit(Ticking(now, stop=1009.0), by_clock(), tmp_path, progress=False)
    before = rates(tmp_path)
    now[0] += 5000  # the time between does not count
    begun = now[0]
    fit(Ticking(now), by_clock(), tmp_path, progress=False)
    done = checkpoint.newest(tmp_path).about
    assert done["step"] == 30 and done["seconds"] == 30.0
    assert len(before) == 10 and now[0] - begun == 20.0
    assert rates(tmp_path)[:10] == before
    assert rates(tmp_path)[10:] == pytest.approx(
        [0.02] * 6 + [0.02 * n / 15 for n in range(14, 0, -1)]
    )

    capsys.readouterr()
    fit(Ticking(now), by_clock(), tmp_path, progress=False)
    assert "finished before, skipped" in capsys.readouterr().out
    fit(Ticking(now), by_clock(minutes=0.6), tmp_path, progress=False)
    assert "finished at step 30, goes on to minute 0.6" in capsys.readouterr().out
    assert checkpoint.newest(tmp_path).about["step"] == 36


def test_all_processes_go_by_the_clock_of_the_one_that_leads(monkeypatch, now):
    """The other's own clock says something else, and does not count."""
    sent = []

    def others(self, value):
        sent.append(value.item())
        return value + 12.0  # what the leading process adds

    monkeypatch.setattr(Group, "sum", others)
    follows = clock.Clock(by_clock(), Group(rank=1, world=2), 500.0)
    assert sent == [0.0] and follows.read_at == 12.0 and not follows.over(10**9)
    assert follows.learning_rate(5) == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 5}, "give steps or minutes, how long the run lasts; there is both"),
        ({"minutes": None}, "give steps or minutes, how long the run lasts; there is neither"),
        ({"minutes": 0}, "minutes"),
        ({"minutes": float("nan")}, "minutes"),
        ({"warmup_minutes": 0.7}, "warmup_minutes 0.7 is longer than the run: minutes is 0.5"),
        ({"minutes": None, "steps": 5}, "warmup_minutes is for a run of minutes"),
    ],
)  # fmt: skip
def test_lengths_that_make_no_sense_are_refused(changes, said):
    with pytest.raises((ValueError, ValidationError)) as refused:
        by_clock(**changes)
    assert said in str(refused.value) and "\n" not in str(refused.value)
