"""Spikes are left out, and a resumed run may have another optimizer where it says so."""

import json

import pytest
import torch
from safetensors.torch import load_file
from test_loop import Line, settings

from syncflow.training.checkpoints import checkpoint
from syncflow.training.distributed.spikes import SpikeGuard
from syncflow.training.loop import Diverged, fit


class Spiky(Line):
    """One batch is a thousand times as large; its loss is finite."""

    def __init__(self, spike):
        super().__init__()
        self.spike = spike

    def batch(self, step):
        made = super().batch(step)
        return 1000 * made if step == self.spike else made


def test_a_spike_is_told_from_the_median_and_growth_for_good_is_let_through():
    guard = SpikeGuard(5.0)
    assert all(guard.allows(norm) for norm in [1.0, 100.0, *[1.0] * 18])  # too few are known
    assert not guard.allows(6.0) and guard.allows(4.9) and not guard.allows(float("inf"))
    other = SpikeGuard(5.0)
    other.restore(guard.state())
    assert list(other.norms) == list(guard.norms)
    assert [guard.allows(50.0) for _ in range(60)].index(True) < 55
    off = SpikeGuard(0.0)
    assert off.allows(1e30) and off.state() == {} and not off.norms


def test_a_spike_changes_nothing_and_the_guard_is_resumed(tmp_path):
    options = {"max_spike": 10.0, "checkpoint_every": 25, "decay": 0.0, "optimizer": "adamw"}
    fit(Spiky(30), settings(**options), tmp_path / "whole", progress=False)
    saved = checkpoint.newest(tmp_path / "whole")
    assert saved.about["skipped"] == 1
    for steps in (25, 40):
        fit(Spiky(30), settings(**options, steps=steps), tmp_path / "cut", progress=False)
    cut = checkpoint.newest(tmp_path / "cut")
    assert set(cut) == set(saved) and cut.about["skipped"] == 1
    assert all(torch.equal(cut[name], saved[name]) for name in saved)
    unguarded = settings(**{**options, "max_spike": 0.0})
    fit(Spiky(30), unguarded, tmp_path / "unguarded", progress=False)
    assert checkpoint.newest(tmp_path / "unguarded").about["skipped"] == 0


def test_another_learning_rate_is_taken_where_the_config_says_so(tmp_path, capsys):
    def run(out, steps, **changes):
        loop = settings(steps=steps, checkpoint_every=5, decay=0.0, optimizer="adamw", **changes)
        about = {"config": json.dumps({"task": "text", "loop": loop.model_dump()})}
        return fit(Line(), loop, tmp_path / out, progress=False, metadata=about)

    for out in ("same", "other"):
        run(out, 5)
    with pytest.raises(ValueError, match="loop.lr was 0.02 and is 0.001"):
        (tmp_path / "other" / "model.safetensors").unlink()
        run("other", 10, lr=0.001)
    with pytest.raises(ValueError, match="loop.seed was 0 and is 1"):
        run("other", 10, lr=0.001, seed=1, changed=["lr"])
    capsys.readouterr()
    other = load_file(run("other", 10, lr=0.001, changed=["lr"]))
    assert "resumed at step 5; loop.lr was 0.02 and is 0.001" in capsys.readouterr().out
    same = load_file(run("same", 10))
    assert any(not torch.equal(other[name], same[name]) for name in same)
    with pytest.raises(ValueError, match="changed"):
        settings(changed=["batch_size"])


def test_skipped_steps_are_counted_over_a_stretch_and_not_a_life(tmp_path, monkeypatch):
    monkeypatch.setattr("syncflow.training.loop._STRETCH", 10)
    spread = Line(set(range(0, 40, 5)))  # two in any ten
    fit(spread, settings(max_nonfinite=2), tmp_path / "spread", progress=False)
    assert checkpoint.newest(tmp_path / "spread").about["skipped"] == 8
    with pytest.raises(Diverged, match="3 of the last 10 steps"):
        fit(Line({20, 22, 24}), settings(max_nonfinite=2), tmp_path / "dense", progress=False)


def test_the_stretch_goes_on_after_a_resume(tmp_path):
    poison = {20, 21, 22}
    fit(Line(poison), settings(steps=22, max_nonfinite=2, decay=0), tmp_path, progress=False)
    assert checkpoint.newest(tmp_path).about["recent_skips"] == [21, 22]
    with pytest.raises(Diverged, match="3 of the last 23 steps"):
        fit(Line(poison), settings(max_nonfinite=2, decay=0), tmp_path, progress=False)


def test_a_run_that_diverges_has_saved(tmp_path):
    with pytest.raises(Diverged, match="step 14 is saved"):
        fit(Line(set(range(10, 30))), settings(max_nonfinite=3), tmp_path, progress=False)
    saved = checkpoint.newest(tmp_path)
    assert saved.about["step"] == 14 and saved.about["skipped"] == 4
    assert all(torch.isfinite(value).all() for value in saved.values())
