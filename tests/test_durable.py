"""Files are there whole or not at all, as readable as the umask says, and a full disk is told."""

import errno
import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

import syncflow
from syncflow import cli, durable, faults
from syncflow.commands import info
from syncflow.model_io import tensors

ROOT = Path(syncflow.__file__).parents[1]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o007, 0o660), (0o077, 0o600)])
def test_the_mode_is_the_umasks(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        durable.write_text(tmp_path / "text", "a")
        tensors.save(tmp_path / "tensors", {"x": torch.zeros(2)})  # replaced under our feet
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {mode}


def test_an_error_leaves_what_was_there(tmp_path):
    durable.write_text(tmp_path / "a", "old")
    with pytest.raises(KeyboardInterrupt), durable.replacing(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_what_is_no_regular_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(OSError, match="not a regular file"):
            durable.write_text(path, "a")
    assert (tmp_path / "pipe").is_fifo() and Path(os.devnull).is_char_device()
    with pytest.raises(IsADirectoryError):
        durable.write_text(tmp_path, "a")


def test_what_a_library_leaves_behind_is_cleared_away(tmp_path):
    with durable.replacing(tmp_path / "a", "run") as temporary:
        left = temporary.with_name(".tmp123")
        left.write_text("half")
        os.link(left, tmp_path / "seen")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "seen"]
    (tmp_path / ".a.run.partial").mkdir()  # of a run that was killed meanwhile
    (tmp_path / ".a.run.partial" / ".tmp123").write_text("half")
    durable.write_text(tmp_path / "a", "b", "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "seen"]


def test_names_as_long_as_a_name_can_be(tmp_path):
    for name in ("x" * 251 + ".mp4", "\N{SNOWMAN}" * 83 + ".mp4"):
        durable.write_text(tmp_path / name, name)
        assert (tmp_path / name).read_text() == name


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError) as told:
        durable.write_text(tmp_path / "none" / "a", "a")
    assert told.value.filename == str(tmp_path / "none" / "a")


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace

    def sync(number):
        order.append("folder" if stat.S_ISDIR(os.fstat(number).st_mode) else "file")
        fsync(number)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", lambda *a: (order.append("name"), replace(*a)))
    durable.write_text(tmp_path / "a", "a")
    assert order == ["file", "name", "folder"]


_FULL = """
import os, resource, signal, sys, torch
from syncflow import cli
from syncflow.commands import info
from syncflow.model_io import tensors

def run(args):
    tensors.save(sys.argv[1], {"x": torch.zeros(5000)})

info.run = run
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
raise SystemExit(cli.main(["info"]))
"""


def test_a_disk_with_no_room_for_weights_is_one_line(tmp_path):
    """The writing library says so by a class that it uses for damaged files too."""
    path = tmp_path / "a.safetensors"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_FULL), str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr == f"syncflow: error: File too large: '{path}'\n"
    assert list(tmp_path.iterdir()) == []


def test_no_memory_is_one_line(monkeypatch, capsys):
    """Of the system's memory PyTorch's allocator says so in a RuntimeError."""
    with pytest.raises(RuntimeError) as told:
        torch.empty(10**15)
    assert faults.out_of_memory(told.value) and faults.out_of_memory(MemoryError())
    assert not faults.out_of_memory(RuntimeError("shapes do not match"))
    monkeypatch.setattr(info, "run", lambda args: torch.empty(10**15))
    assert cli.main(["info"]) == 2
    assert capsys.readouterr().err.startswith("syncflow: error: out of memory: ")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path, dtype, bad):
    values = {"fine": torch.ones(3), "layer.weight": torch.ones(40, 3, dtype=dtype)}
    # A sum beyond what the type can hold is none of that.
    values["large"] = torch.full((9,), torch.finfo(dtype).max, dtype=dtype)
    path = tmp_path / "a.safetensors"
    tensors.save(path, values)
    assert torch.equal(tensors.load(path)["large"], values["large"])
    values["layer.weight"][7, 1] = bad
    tensors.save(path, values)
    with pytest.raises(ValueError, match=r"a.safetensors' has numbers .* 'layer.weight'"):
        tensors.load(path)


def test_errors_keep_their_numbers():
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        error = type("SafetensorError", (Exception,), {})(f"I/O error: x (os error {number})")
        assert durable._system_error(error) == number
    assert durable._system_error(ValueError("(os error 28)")) is None
