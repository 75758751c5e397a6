"""Nothing is lost: damaged files of every kind, full disks, weights that went stale, other data."""

import errno
import json
import os
import shutil
import stat

import pytest
import torch
from made import flow_config, write_latents
from safetensors.torch import load_file, save_file
from test_loop import Line, settings

from syncflow import durable, train
from syncflow.model_io import tensors
from syncflow.training import runner
from syncflow.training.checkpoints import checkpoint, weights, writer
from syncflow.training.loop import fit


def same(one, other):
    one, other = load_file(one / weights.FINAL), load_file(other / weights.FINAL)
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def begun(tmp_path):
    """Runs stage 2, with its frozen tower, for 4 steps; returns how to run it again and where."""
    write_latents(tmp_path / "latents")

    def run(name="run", steps=4, latents="latents", **changes):
        loop = {"steps": steps, "decay": 0, "checkpoint_every": 2, "keep_last": 9}
        config = flow_config(tmp_path / latents, tmp_path / name, "audio", loop, **changes)
        (tmp_path / f"{name}.json").write_text(json.dumps(config))
        runner.run(tmp_path / f"{name}.json", progress=False)
        return tmp_path / name

    out = run()
    (out / weights.FINAL).unlink()
    return run, out


def flip(path, place=-3):
    """Changes one bit."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    os.truncate(path, 0)


def remove(path):
    path.unlink()


DAMAGE = [flip, cut, empty, remove]


def contents(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("name", ["manifest.json", "part-00000.safetensors"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_part_of_any_kind_costs_its_checkpoint_and_no_other(
    begun, tmp_path, capsys, name, damage
):
    run, out = begun
    newest, before = checkpoint.folders(out)
    damage(newest / name)
    left = contents(newest)
    run()
    said = capsys.readouterr().out
    assert "trying the one before" in said and "resumed at step 2" in said
    assert contents(out / "checkpoints" / "00000004.damaged") == left
    assert [folder.name for folder in checkpoint.folders(out)] == ["00000004", "00000002"]
    assert same(out, run("whole"))


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_frozen_weights_delete_nothing(begun, tmp_path, capsys, damage):
    run, out = begun
    frozen, saved = out / checkpoint.FROZEN, contents(out / "checkpoints")
    whole = frozen.read_bytes()
    damage(frozen)
    config = str(tmp_path / "run.json")
    for _ in range(2):  # and no second try starts anew
        assert train.main(["--config", config, "--no-progress", "--device", "cpu"]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "frozen.safetensors" in said and "2 checkpoints" in said
        assert contents(out / "checkpoints") == saved
    assert run("other", steps=1)  # as the message says
    assert (tmp_path / "other" / checkpoint.FROZEN).read_bytes() == whole
    shutil.copy(tmp_path / "other" / checkpoint.FROZEN, frozen)
    run()
    assert "resumed at step 4" in capsys.readouterr().out and same(out, run("whole"))


def test_checkpoints_of_which_none_can_be_read_stop_the_run(begun, tmp_path, capsys):
    """An emptied manifest, as a power cut leaves it, began the run anew."""
    run, out = begun
    for folder in checkpoint.folders(out):
        empty(folder / checkpoint.MANIFEST)
    saved = contents(out / "checkpoints")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"none of the 2 checkpoints in .* can be read"):
            run()
    assert contents(out / "checkpoints") == saved and not (out / weights.FINAL).exists()
    for folder in checkpoint.folders(out):
        durable.put_aside(folder)
    with pytest.raises(ValueError, match=r"none of the 2 .*00000002.damaged was put aside before"):
        run()


def test_a_disk_that_cannot_be_read_is_no_damage(begun, monkeypatch):
    run, out = begun
    saved = contents(out)

    def broken(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(durable, "digest", broken)
    with pytest.raises(OSError, match="Input/output error"):
        run()
    monkeypatch.undo()
    assert contents(out) == saved
    run()
    assert same(out, run("whole"))


def test_a_second_damaged_checkpoint_of_a_step_has_a_name_of_its_own(begun):
    _, out = begun
    newest = checkpoint.folders(out)[0]
    shutil.copytree(newest, out / "again")
    first = durable.put_aside(newest)
    shutil.move(out / "again", newest)
    assert (first.name, durable.put_aside(newest).name) == (
        "00000004.damaged", "00000004.damaged-2",
    )  # fmt: skip
    assert len(checkpoint.damaged(out)) == 2


def test_checkpoints_without_checksums_are_read(begun, tmp_path):
    """Those of version 0.1."""
    run, out = begun
    for folder in checkpoint.folders(out):
        path = folder / checkpoint.MANIFEST
        about = json.loads(path.read_text())
        for key in ("checksum", "checksums", "frozen", "recent_skips", "clips"):
            del about[key]
        path.write_text(json.dumps(about))
    run(steps=6)
    assert same(out, run("whole", steps=6))
    assert checkpoint.newest(out).about["frozen"] == durable.digest(out / checkpoint.FROZEN)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("step", "4"), ("step", -1), ("step", 1e12), ("step", True), ("skipped", None),
        ("skipped", 9), ("seconds", float("nan")), ("seconds", -1), ("parts", []), ("parts", {}),
        ("parts", {"../../../x": 3}),
    ],
)  # fmt: skip
def test_a_manifest_of_version_0_1_with_a_value_of_no_use_is_damaged(begun, key, value):
    _, out = begun
    path = checkpoint.folders(out)[0] / checkpoint.MANIFEST
    about = json.loads(path.read_text()) | {key: value}
    del about["checksum"]
    path.write_text(json.dumps(about))
    with pytest.raises(checkpoint.Damaged, match=f"manifest.json' is damaged: {key} is"):
        checkpoint.manifest(path.parent)


def test_frozen_weights_are_those_of_the_run_that_starts(begun, tmp_path):
    """Those of a run that came to nothing replaced the tower at the first resume."""
    run, out = begun
    stale = tmp_path / "next"
    stale.mkdir()
    other = {k: v + 1 for k, v in load_file(out / checkpoint.FROZEN).items()}
    save_file(other, stale / checkpoint.FROZEN)
    run("next", steps=2)
    (stale / weights.FINAL).unlink()
    run("next")
    assert same(stale, run("whole"))


def test_frozen_weights_of_another_run_are_noticed(begun):
    run, out = begun
    other = {k: v + 1 for k, v in load_file(out / checkpoint.FROZEN).items()}
    save_file(other, out / checkpoint.FROZEN)
    with pytest.raises(ValueError, match="frozen.safetensors' is damaged: its checksum"):
        run()


def test_a_run_that_freezes_nothing_does_not_read_what_lies_there(tmp_path, begun):
    _, out = begun
    shutil.copytree(out, tmp_path / "line")
    shutil.rmtree(tmp_path / "line" / "checkpoints")
    (tmp_path / "line" / checkpoint.FROZEN).write_bytes(b"of another run")
    fit(Line(), settings(steps=3), tmp_path / "line", progress=False)
    (tmp_path / "line" / weights.FINAL).unlink()
    fit(Line(), settings(steps=6, decay=0), tmp_path / "line", progress=False)


def test_everything_is_on_the_disk_before_older_checkpoints_go(tmp_path, monkeypatch):
    order = []
    fsync, rmtree = os.fsync, shutil.rmtree

    def sync(number):
        order.append(os.readlink(f"/proc/self/fd/{number}"))
        fsync(number)

    writes = writer.Writer(tmp_path, 0, 1, 1, 0)
    writes.save({"model/x": torch.zeros(2)}, {"step": 1})
    writes.wait()
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(
        shutil, "rmtree", lambda p, **o: (order.append(f"rm{p.name}"), rmtree(p, **o))
    )
    writes.save({"model/x": torch.zeros(2)}, {"step": 2})
    writes.wait()
    names = [os.path.basename(entry) for entry in order]
    at = [
        next(i for i, n in enumerate(names) if n.startswith(word)) for word in ("part-", "manifest")
    ]
    hidden = max(i for i, n in enumerate(names) if n == ".00000002")
    folder = max(i for i, n in enumerate(names) if n == "checkpoints")
    assert at[0] < at[1] < hidden < folder < names.index("rm.00000001")
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["00000002"]


@pytest.mark.parametrize("what", ["encoders", "statistics", "clips"])
def test_data_that_were_made_anew_are_refused_by_name(begun, tmp_path, what):
    """Latents of another VAE in the same folder: the run went on, its loss a hundredfold."""
    run, out = begun
    path = tmp_path / "latents" / "manifest.json"
    if what == "clips":
        shutil.rmtree(path.parent)
        write_latents(path.parent, 5)
        told = r"clips was \[4\] and is \[5\]"
    else:
        manifest = durable.read_sealed(path)
        if what == "encoders":
            manifest["encoders"]["video_vae"] = "y"
            told = "encoders video_vae was 'x' and is 'y'"
        else:
            manifest["statistics"]["audio_std"] = [2.0, 1, 1]
            told = r"statistics audio_std was \[1, 1, 1\] and is \[2.0, 1, 1\]"
        durable.write_sealed(path, manifest)
    saved = contents(out)
    with pytest.raises(ValueError, match=f"was trained on other data: {told}"):
        run()
    assert contents(out) == saved


def failing(monkeypatch, fails, number=errno.ENOSPC):
    """The disk is full for files whose path ``fails``, as the writing library says it."""
    real = tensors.save_file

    def save(values, path, about=None):
        if fails(str(path)):
            path.write_bytes(b"half")
            words = f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})"
            raise tensors.SafetensorError(words)
        real(values, path, about)

    monkeypatch.setattr(tensors, "save_file", save)


def test_final_weights_for_which_there_is_no_room_are_a_checkpoint(tmp_path, monkeypatch):
    failing(monkeypatch, lambda path: "model" in path.rpartition("/")[2])
    with pytest.raises(OSError, match=r"No space left .* kept in .*00000040: make room") as told:
        fit(Line(), settings(), tmp_path / "full", progress=False)
    assert told.value.__cause__.errno == errno.ENOSPC
    assert not list((tmp_path / "full").glob("*model*"))
    monkeypatch.undo()
    fit(Line(), settings(), tmp_path / "full", progress=False)
    fit(Line(), settings(), tmp_path / "whole", progress=False)
    assert same(tmp_path / "full", tmp_path / "whole")


def test_a_checkpoint_for_which_there_is_no_room_leaves_those_before(tmp_path, monkeypatch):
    failing(monkeypatch, lambda path: "/.00000020/" in path)
    with pytest.raises(OSError, match=r"No space left.*; kept: those of steps 00000010 in"):
        fit(Line(), settings(checkpoint_every=10), tmp_path / "full", progress=False)
    assert [path.name for path in (tmp_path / "full" / "checkpoints").iterdir()] == ["00000010"]
    monkeypatch.undo()
    fit(Line(), settings(), tmp_path / "full", progress=False)
    fit(Line(), settings(), tmp_path / "whole", progress=False)
    assert same(tmp_path / "full", tmp_path / "whole")


def test_every_file_has_the_umasks_mode(tmp_path):
    before = os.umask(0o027)
    try:
        latents = write_latents(tmp_path / "latents")
        config = flow_config(latents, tmp_path / "run", "audio", {"steps": 1})
        (tmp_path / "run.json").write_text(json.dumps(config))
        runner.run(tmp_path / "run.json", progress=False)
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len([path for path in files if path.suffix == ".safetensors"]) == 4
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o640, path


def test_weights_that_are_no_numbers_are_no_place_to_start_from(begun, tmp_path):
    run, out = begun
    run()
    values = load_file(out / weights.FINAL)
    name = next(iter(values))
    values[name].view(-1)[0] = float("nan")
    save_file(values, out / weights.FINAL, tensors.about(out / weights.FINAL))
    with pytest.raises(ValueError, match=f"model.safetensors' has numbers .* {name!r}"):
        run("next", init=str(out))


def test_the_clips_of_a_skipped_step_are_named(begun, capsys, monkeypatch):
    from syncflow.training.tasks.flow import FlowTraining

    run, _ = begun
    plain = FlowTraining.batch

    def batch(self, index):
        made = plain(self, index)
        return {**made, "audio": made["audio"] * float("nan")} if index == 1 else made

    monkeypatch.setattr(FlowTraining, "batch", batch)
    run("named")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    head, _, names = line.partition("; clips: ")
    assert head == "named 2: not finite, left out"
    assert sorted(names.split(", ")) == [f"clip {row}" for row in range(4)]
