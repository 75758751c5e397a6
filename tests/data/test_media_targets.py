"""Writing where it cannot be done is told, and loses nothing that was there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from syncflow import durable
from syncflow.data import media


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video": torch.zeros(4, 3, 0, 32, dtype=torch.uint8)}, "must be positive, got 0x32"),
        ({"video": torch.zeros(4, 3, 32, 32)}, "uint8"),
        ({"video": torch.zeros(4, 32, 32, 3, dtype=torch.uint8)}, r"\[4, 32, 32, 3\]"),
        ({"audio": torch.full((100,), float("nan"))}, "not finite"),
        ({"audio": torch.zeros(1, 100)}, r"\[1, 100\]"),
        ({"sample_rate": 47999}, "got 47999"),
        ({"fps": 0}, "got 0"),
    ],
)
def test_bad_input_writes_nothing(tmp_path, change, message) -> None:
    good = {"video": torch.zeros(4, 3, 32, 32, dtype=torch.uint8), "audio": torch.zeros(12000)}
    with pytest.raises(ValueError, match=message):
        media.write(tmp_path / "a.mp4", **{**good, **change})
    assert not list(tmp_path.iterdir())


def test_an_interrupted_write_keeps_the_old_file(tmp_path) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), durable.replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_unwritable_targets(tmp_path) -> None:
    video = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        media.write(tmp_path / "missing" / "a.mp4", video, None)
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        (tmp_path / "b.mp4").mkdir()
        media.write(tmp_path / "b.mp4", video, None)
    with pytest.raises(ValueError, match=r"must end in \.mp4"):
        media.write(tmp_path / "a.gif", video, None)


def test_a_full_disk_is_told_by_the_name_that_was_given(tmp_path) -> None:
    path = tmp_path / "a.mp4"
    code = (
        "import resource, sys, torch; from syncflow.data import media\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "noise = torch.randint(0, 256, (8, 3, 64, 64), dtype=torch.uint8)\n"
        "try: media.write(sys.argv[1], noise, torch.zeros(24000))\n"
        "except OSError as error: print(type(error).__name__, error.filename)"
    )
    command = [sys.executable, "-c", code, str(path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(media.__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stdout == f"OSError {path}\n", done.stdout + done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc")
def test_a_folder_that_takes_no_files_is_told(tmp_path) -> None:
    video = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(OSError) as told:  # root is refused no permission here, only the file
        media.write("/proc/a.mp4", video, None)
    assert "/proc" in str(told.value)
