"""Whether a run may go on: its config, and what it goes on from."""

import json

import pytest
import torch
from made import flow_config, write_latents

from syncflow.training import runner
from syncflow.training.checkpoints import checkpoint, resume, weights, writer


@pytest.fixture
def begun(tmp_path):
    """Writes a config and runs it to step 4 of 8; returns how to change it and run it again."""
    latents = write_latents(tmp_path / "latents")

    def run(name="run", loop=None, **changes):
        settings = {"steps": 8, "decay": 0, "optimizer": "muon", "ema": 0.9, **(loop or {})}
        config = flow_config(latents, tmp_path / name, "both", settings, **changes)
        (tmp_path / f"{name}.json").write_text(json.dumps(config))
        runner.run(tmp_path / f"{name}.json", progress=False)
        return tmp_path / name

    out = run(loop={"steps": 4})
    (out / weights.FINAL).unlink()
    return run


def test_another_config_is_refused_by_its_keys(begun):
    with pytest.raises(ValueError, match=r"loop.lr was 0.01 and is 0.02; text_dropout was 0.1"):
        begun(loop={"lr": 0.02}, text_dropout=0.3)


def test_what_is_harmless_may_change(begun, capsys):
    begun(loop={"log_every": 3, "keep_last": 5, "checkpoint_minutes": 9, "recompute": "blocks"})
    assert "resumed at step 4" in capsys.readouterr().out


def test_a_share_of_the_batch_may_change_where_draws_are_by_clip(tmp_path):
    base = {"randomness": "sample", "steps": 1, "batch_size": 4, "accumulate": 2}
    folder = write_latents(tmp_path / "latents")

    def text(**loop):
        config = flow_config(folder, tmp_path, "both", {**base, **loop})
        return json.dumps(config)

    assert resume.differing(text(), text(batch_size=8, accumulate=1)) == []
    (changed,) = resume.differing(text(), text(batch_size=8))
    assert changed == "loop.batch_size * accumulate was 8 and is 16"


def test_a_start_from_an_unfinished_run_is_refused_and_a_checkpoint_named(begun, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"not finished.*checkpoints/00000004"):
        begun("next", init=str(tmp_path / "run"))
    begun("next", init=str(tmp_path / "run" / "checkpoints" / "00000004"))


def test_kept_checkpoints(begun, tmp_path):
    out = begun("many", loop={"checkpoint_every": 1, "keep_last": 2, "keep_every": 3})
    assert [int(folder.name) for folder in checkpoint.folders(out)] == [8, 7, 6, 3]


def test_no_step_is_saved_twice(begun, monkeypatch):
    """Of two processes, one could find its folder renamed under it."""
    steps = []
    save = writer.Writer.save
    monkeypatch.setattr(
        writer.Writer,
        "save",
        lambda self, state, about: steps.append(about["step"]) or save(self, state, about),
    )
    begun("often", loop={"checkpoint_every": 4})
    assert steps == [4, 8]


def test_a_writer_that_fails_is_told(tmp_path):
    writes = writer.Writer(tmp_path, 0, 1, 2, 0)
    (tmp_path / "checkpoints").write_text("a file is in the way")
    writes.save({"model/x": torch.zeros(2)}, {"step": 1})
    with pytest.raises(OSError, match="could not be written"):
        writes.wait()


def test_metrics_after_the_checkpoint_are_taken_back(begun, tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 7, "loss": 1.0}\n{"step": 8, "lo')
    begun(loop={"log_every": 1})
    steps = [json.loads(line)["step"] for line in path.read_text().splitlines()]
    assert steps == sorted(steps) and steps.count(7) == 1


def test_wandb_goes_on_with_its_run_and_a_new_run_is_a_new_one(begun, tmp_path, monkeypatch):
    import sys
    import types

    told = []

    class Run:
        def log(self, values, step):
            told[-1]["steps"].append(step)

        def finish(self):
            pass

    def init(**options):
        told.append({**options, "steps": []})
        return Run()

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    first = begun("watched", loop={"wandb": "clips", "steps": 4, "log_every": 1})
    (first / weights.FINAL).unlink()
    begun("watched", loop={"wandb": "clips", "log_every": 1})
    begun("other", loop={"wandb": "clips"})
    ids = [run["id"] for run in told]
    assert ids[0] == ids[1] != ids[2] and all(run["resume"] == "allow" for run in told)
    assert max(told[0]["steps"]) == 4 and min(told[1]["steps"]) == 5
