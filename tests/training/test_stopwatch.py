"""Seconds of a step's phases, and samples a second."""

import time

import pytest

from syncflow.training.distributed.stopwatch import PHASES, Stopwatch
from syncflow.training.logging import Pace


def test_a_phase_inside_another_is_taken_out_of_it():
    watch = Stopwatch()
    send = watch.communicating(lambda seconds: time.sleep(seconds) or "sent")
    watch.begin(timed=True)
    begun = time.perf_counter()
    with watch.phase("backward"):
        time.sleep(0.02)
        assert send(0.1) == "sent"
        time.sleep(0.02)
    whole = time.perf_counter() - begun
    split = {name.removeprefix("time/"): seconds for name, seconds in watch.split().items()}
    assert tuple(split) == PHASES and split["forward"] == 0
    assert split["communication"] > 0.1 and 0.04 < split["backward"] < whole - 0.1
    assert sum(split.values()) == pytest.approx(whole, abs=0.01)


def test_what_runs_beside_is_waited_for_only_in_a_timed_step():
    waits = []

    class Work:
        def wait(self):
            waits.append(1)

    watch = Stopwatch()
    send = watch.communicating(Work)
    send()
    watch.begin(timed=False)
    send()
    assert not waits and watch.split()["time/communication"] == 0
    watch.begin(timed=True)
    send()
    watch.end()
    send()
    assert len(waits) == 1 and watch.split()["time/communication"] > 0


def test_steps_slowed_down_by_timing_do_not_count_where_there_are_others():
    pace = Pace()
    pace.add(10.0, 8, 16.0, timed=True)
    assert pace.take() == (0.8, 1.6)
    pace.add(1.0, 8, 16.0, timed=False)
    pace.add(3.0, 4, 16.0, timed=False)
    pace.add(10.0, 8, 16.0, timed=True)
    assert pace.take() == (3.0, 8.0)
