"""The loop: exact resume, real kills, steps that are not finite."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from syncflow.data import lock
from syncflow.training.checkpoints import checkpoint
from syncflow.training.datasets.buckets import epoch_indices
from syncflow.training.loop import Diverged, fit
from syncflow.training.optim import optimizer
from syncflow.training.settings import LoopConfig
from syncflow.training.tasks.task import Task

REPOSITORY = Path(__file__).parents[2]


class Line(Task):
    """Learns y = 3x; ``poison`` is a step whose loss is not finite."""

    def __init__(self, poison: set[int] = frozenset()) -> None:
        torch.manual_seed(0)
        self.module = torch.nn.Sequential(torch.nn.Linear(1, 32), torch.nn.Linear(32, 1))
        self.poison = poison

    def batch(self, step):
        x = torch.from_numpy(np.random.default_rng(step).standard_normal((8, 1), dtype=np.float32))
        return x * float("nan") if step in self.poison else x

    def loss(self, batch, generator):
        noise = 0.1 * torch.randn(batch.shape, generator=generator)
        loss = (self.module(batch) - 3 * batch - noise).square().mean()
        return loss, {"error": loss.item()}

    def validate(self, module):
        x = torch.linspace(-1, 1, 16)[:, None]
        return {"loss": (module(x) - 3 * x).square().mean().item()}


def settings(**changes) -> LoopConfig:
    values = dict(
        steps=40,
        batch_size=8,
        lr=0.02,
        warmup=3,
        optimizer="muon",
        precision="fp32",
        validate_every=20,
        log_every=5,
    )
    return LoopConfig(**{**values, **changes})


@pytest.mark.parametrize("optimizer_name", ["adamw", "muon"])
def test_it_learns(tmp_path, optimizer_name):
    task = Line()
    before = task.validate(task.module)["loss"]
    fit(task, settings(optimizer=optimizer_name, steps=150, ema=0.9), tmp_path, progress=False)
    task.module.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert task.validate(task.module)["loss"] < 0.05 * before


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGUSR2", "SIGHUP", "SIGXCPU"])
def test_a_schedulers_warning_saves_and_stops(tmp_path, name):
    task = Line()
    real = task.batch

    def batch(step):
        if step == 5:
            os.kill(os.getpid(), getattr(signal, name))
        return real(step)

    task.batch = batch
    # What runs in the background may have been told to ignore it.
    before = signal.signal(getattr(signal, name), signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as stop:
            fit(task, settings(), tmp_path / "cut", progress=False)
    finally:
        signal.signal(getattr(signal, name), before)
    assert stop.value.code == 0 and checkpoint.newest(tmp_path / "cut").about["step"] == 6


def test_a_signal_that_is_ignored_stays_so(tmp_path):
    """`nohup` ignores SIGHUP for the command that it runs."""
    task = Line()
    real = task.batch

    def batch(step):
        os.kill(os.getpid(), signal.SIGHUP)
        return real(step)

    task.batch = batch
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        fit(task, settings(steps=3), tmp_path / "whole", progress=False)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (tmp_path / "whole" / "model.safetensors").exists()


def test_the_loss_that_is_told_is_that_of_the_whole_update(tmp_path):
    task = Line()
    with torch.no_grad():
        parts = []
        for index in range(2):
            source = torch.Generator().manual_seed(index)
            parts.append(task.loss(task.batch(index), source)[0].item())
    fit(task, settings(accumulate=2, steps=1, log_every=1), tmp_path, progress=False)
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert line["loss"] == pytest.approx(sum(parts) / 2) == line["error"]
    assert abs(parts[0] - parts[1]) > 0.01 * parts[0]


def test_a_finished_run_goes_on_where_it_is_to_be_longer(tmp_path, capsys):
    def about(steps):
        loop = settings(steps=steps, decay=0.5).model_dump()
        return {"config": json.dumps({"task": "text", "loop": loop})}

    def run(steps):
        out = fit(Line(), settings(steps=steps, decay=0.5), tmp_path, False, metadata=about(steps))
        return load_file(out), capsys.readouterr().out

    first, _ = run(20)
    same, said = run(20)
    assert "finished before, skipped" in said
    longer, said = run(40)
    assert "finished at step 20, goes on to 40; lr jumps from 0.002 to 0.02" in said
    assert "resumed at step 20" in said
    assert all(torch.equal(first[k], same[k]) for k in first)
    assert any(not torch.equal(first[k], longer[k]) for k in first)
    assert checkpoint.newest(tmp_path).about["step"] == 40


def test_no_clipping_is_no_clipping(tmp_path):
    """0 made every update nothing in this engine, and clipped nothing in DeepSpeed's."""
    off, high = (
        load_file(fit(Line(), settings(clip=clip), tmp_path / str(clip), progress=False))
        for clip in (0.0, 1e9)
    )
    for name, value in high.items():
        torch.testing.assert_close(off[name], value)
    with pytest.raises(ValueError, match="clip"):
        settings(clip=-1.0)


def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, monkeypatch):
    whole = load_file(fit(Line(), settings(), tmp_path / "whole", progress=False))

    interrupted = Line()
    real_batch = interrupted.batch

    def batch(step):
        if step == 17:
            os.kill(os.getpid(), signal.SIGTERM)
        return real_batch(step)

    interrupted.batch = batch
    with pytest.raises(SystemExit) as stop:
        fit(interrupted, settings(), tmp_path / "cut", progress=False)
    assert stop.value.code == 0
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    resumed = load_file(fit(Line(), settings(), tmp_path / "cut", progress=False))
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_killed_at_any_moment_it_resumes(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys; sys.path[:0] = [{str(REPOSITORY)!r}, {str(Path(__file__).parent)!r}]
            import time
            from test_loop import Line, settings, fit
            task = Line(); plain = task.batch
            def batch(step):
                time.sleep(0.02 if step < 30 else 3600)  # it is killed before it could finish
                return plain(step)
            task.batch = batch
            fit(task, settings(checkpoint_minutes=0.001), {str(tmp_path / "out")!r}, progress=False)
            """
        )
    )
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    # The deadline is for the training: imports alone can take a busy machine a minute.
    assert "computes in" in process.stdout.readline()
    deadline = time.monotonic() + 60
    while len(checkpoint.folders(tmp_path / "out")) < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    cut = load_file(fit(Line(), settings(), tmp_path / "out", progress=False))
    whole = load_file(fit(Line(), settings(), tmp_path / "whole", progress=False))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


@pytest.mark.parametrize("kept", [100, 0, None], ids=["truncated", "empty", "garbage"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, capsys, kept):
    whole = load_file(fit(Line(), settings(), tmp_path / "whole", progress=False))
    out = tmp_path / "cut"
    fit(Line(), settings(checkpoint_every=15), out, progress=False)
    (out / "model.safetensors").unlink()
    newest, before = checkpoint.folders(out)
    assert (newest.name, before.name) == ("00000040", "00000030")
    path = newest / "part-00000.safetensors"
    size = path.stat().st_size
    path.write_bytes(b"x" * size if kept is None else path.read_bytes()[:kept])
    resumed = load_file(fit(Line(), settings(), out, progress=False))
    said = capsys.readouterr().out
    assert "trying the one before" in said and "resumed at step 30" in said
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert checkpoint.Saved(newest).about["step"] == 40  # written anew


def test_a_step_that_is_not_finite_is_left_out(tmp_path):
    final = fit(Line({5, 6}), settings(), tmp_path, progress=False)
    assert all(torch.isfinite(value).all() for value in load_file(final).values())
    assert checkpoint.newest(tmp_path).about["skipped"] == 2


def test_too_many_of_them_stop_the_run(tmp_path):
    with pytest.raises(Diverged, match="not finite"):
        fit(Line(set(range(30))), settings(max_nonfinite=3), tmp_path, progress=False)


@pytest.mark.parametrize(("size", "batch"), [(10, 3), (7, 7), (5, 12)])
def test_every_epoch_sees_each_sample_once(size, batch):
    seen = np.concatenate([epoch_indices(size, 1, step, batch) for step in range(5 * size)])
    for epoch in range(len(seen) // size):
        assert sorted(seen[epoch * size : (epoch + 1) * size]) == list(range(size))


def test_learning_rate_warms_up_stays_and_falls():
    config = settings(steps=100, lr=1.0, warmup=10, decay=0.5)
    rates = [optimizer.learning_rate(step, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == 1.0
    assert rates[50] == 1.0 and rates[75] == pytest.approx(0.5) and 0 < rates[99] < 0.03


def test_a_second_training_in_the_same_folder_is_refused(tmp_path):
    with lock.held(tmp_path / ".lock"), pytest.raises(ValueError, match="another training run is"):
        fit(Line(), settings(), tmp_path, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert fit(Line(), settings(steps=2), tmp_path, progress=False).exists()


def test_a_hook_that_the_loop_does_not_know_is_refused():
    with pytest.raises(TypeError, match="Misspelt.flop is nothing that the loop calls"):
        type("Misspelt", (Line,), {"flop": lambda self, index: 1.0})
    type("Right", (Line,), {"flops": lambda self, index: 1.0, "_helper": lambda self: None})


@pytest.mark.parametrize("every", [0, 2, 3])
def test_every_so_many_steps_and_at_the_last_or_never(tmp_path, every):
    task, seen = Line(), []
    validate = task.validate
    task.validate = lambda module: seen.append(1) or validate(module)
    fit(task, settings(steps=4, validate_every=every, log_every=0), tmp_path, progress=False)
    assert len(seen) == {0: 0, 2: 2, 3: 2}[every]
    told = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert not any("lr" in line for line in told)
