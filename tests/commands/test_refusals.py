"""``syncflow generate``: what is refused before sampling."""

import os
import stat
from pathlib import Path

import pytest
import torch

from syncflow.cli import main
from syncflow.data import media
from syncflow.data.export import tags
from syncflow.generation import memory, pipeline
from tests import small_model
from tests.commands.command import film, run


@pytest.fixture
def unsampled(monkeypatch) -> None:
    """No clip may be made."""

    def generate(*_, **__):
        raise AssertionError("it was sampled")

    monkeypatch.setattr(pipeline.SyncFlow, "generate", generate)


def states() -> dict[Path, tuple[int, int, int]]:
    """All files here, and what shows that one was written."""
    found = {path: path.lstat() for path in Path.cwd().rglob("*") if not path.is_dir()}
    return {path: (s.st_ino, s.st_size, s.st_mtime_ns) for path, s in found.items()}


def refused(capsys, *argv: object) -> str:
    """The one line of a command that is refused and leaves everything as it was."""
    before = states()
    assert main(["generate", *map(str, argv)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("syncflow: error: ") and err.count("\n") == 1, err
    after = states()
    assert [path for path in before | after if before.get(path) != after.get(path)] == []
    return err


# ---- an output that is an input ----


@pytest.mark.parametrize(
    "name", ["film.mkv", "./film.mkv", "link.mkv", "hard.mkv", "d/../film.mkv"]
)
def test_a_film_is_not_replaced_by_its_own_sound(capsys, unsampled, name) -> None:
    film("film.mkv")
    Path("d").mkdir()
    os.symlink("film.mkv", "link.mkv")
    os.link("film.mkv", "hard.mkv")
    said = refused(capsys, "a", "--video", "film.mkv", "-o", name)
    assert "is a file to be read" in said and "--force" in said


def test_force_replaces_it(model) -> None:
    film("film.mkv")
    assert run(model, "a", "--video", "film.mkv", "-o", "film.mkv", "--force") == 0
    assert media.probe("film.mkv").sample_rate == 48000


def test_an_image_is_not_replaced(capsys, unsampled, model) -> None:
    from PIL import Image

    for name in ("first.png", "0007.png"):
        Image.new("RGB", (32, 32)).save(name)
    said = refused(capsys, "a", "--image", "first.png", "-o", "first.mp4", "--sheet")
    assert "'first.png' is a file to be read" in said  # the sheet's name
    at = ("--model", model, "--device", "cpu")
    said = refused(capsys, "a", "--image", "0007.png", "-o", "%04d.png", *at)
    assert "'0007.png' is a file to be read" in said


def test_a_folder_of_films_is_not_written_into(capsys, unsampled) -> None:
    Path("films").mkdir()
    film("films/a.mkv")
    assert "is a file to be read" in refused(capsys, "--video", "films", "-o", "films/")


# ---- refusals ----


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["a", "-o", "gone/{i}.mp4"], "there is no folder 'gone'"),
        (["a", "-o", "a.avi"], "must end in .mp4"),
        (["a", "b", "-o", "new/{i}.avi"], "must end in .mp4"),
        (["a", "-o", "one.png"], "such as 'one-%04d.png'"),
        (["a", "-o", "x" * 252 + ".mp4"], "has 256 bytes; names have at most 255"),
        (["a", "-o", "\u4e2d" * 84 + ".mp4"], "has 256 bytes"),
        (["a", "-o", "file/deep/%d.png"], "file' is a file"),
        (["a", "--v2a", "paper"], "--v2a says how a given video is read"),
        (["a", "--v2a", "one-pass"], "--v2a says how a given video is read"),
        (["a", "--seconds", "601"], "--seconds: it must be at most 600 (ten minutes), got 601"),
        (["a", "--seconds", "1e12"], "at most 1e+06, got 1e12"),
        (["a", "--threads", "0"], "--threads: it must be"),
        (["a", "--threads", "5000"], "--threads: it must be at most 1024"),
        (["a", "--scale", "17"], "scale must be a whole number from 1 to 16, got 17"),
        (["a", "--scale-filter", "box"], "unknown filter 'box'"),
        (["a", "--scale-filter", "lanczos"], "--scale-filter says how --scale enlarges"),
        (["a", "-o", "n/%d.png", "--loudness", "-16"], "'n/%d.png' has none"),
        (["a", "-o", "a.gif", "--loudness", "-16"], "--loudness sets that of the sound"),
        (["a", "--loudness", "3"], "loudness must be -70 to -5 LUFS, got 3"),
        (["a", "--loudness", "nan"], "got nan"),
        (["a", "--loudness", "loud"], "--loudness: invalid float value: 'loud'"),
        (["a", "--prompts", "p.txt"], "not both"),
        (["--prompts", "gone.txt"], "there is no file of prompts 'gone.txt'"),
        (["--prompts", "empty.txt"], "'empty.txt' has no prompt"),
        (["--prompts", "latin.txt"], "'latin.txt', line 2 is not UTF-8"),
        (["--video", "empty"], "'empty' has no films"),
        (["a", "b", "--video", "films", "-o", "o/"], "2 prompts for 1 films"),
        (["--video", "films", "-o", "o.mp4"], "for a folder of videos give a folder"),
        (["--video", "films/a.mkv", "-o", "a.gif"], "has no sound"),
        (["--video", "films/a.mkv", "-o", "a%d.png"], "has no sound"),
        (["--video", "films/a.mkv", "-o", "a.mkv", "--scale", "2"], "--scale cannot enlarge"),
        (["--video", "films/a.mkv", "-o", "a.webm"], "cannot hold"),
    ],
)
def test_mistakes_are_said_before_anything_is_loaded(
    capsys, monkeypatch, here, argv, message
) -> None:
    def load(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("syncflow.load", load)
    Path("file").touch()
    Path("films").mkdir()
    Path("empty").mkdir()
    film("films/a.mkv")
    Path("empty.txt").write_text("\n \n")
    Path("latin.txt").write_bytes(b"a ball\nf\xe4llt\n")
    assert message in refused(capsys, *argv)


def test_a_rate_that_the_container_lacks_is_said_before_sampling(
    capsys, unsampled, tmp_path
) -> None:
    audio = {**small_model.CONFIG["audio_vae"], "sample_rate": 44100}
    geometry = {**small_model.CONFIG["geometry"], "sample_rate": 44100}
    other = small_model.build(audio_vae=audio, geometry=geometry).save(tmp_path / "m44")
    said = refused(capsys, "a", "-o", "a.webm", "--model", other, "--device", "cpu")
    assert "libopus takes" in said and "got 44100" in said


def test_options_are_checked_against_the_model_before_any_clip(capsys, unsampled, model) -> None:
    at = ("--model", model, "--device", "cpu", "--prompts", "p.txt", "-o", "o/")
    Path("p.txt").write_text("a\nb\n")
    assert "solver 'heun' draws no noise" in refused(
        capsys, *at, "--solver", "heun", "--eta", "0.5"
    )
    assert "must be a multiple of 4 frames" in refused(capsys, *at, "--seconds", "0.3")


def test_options_are_refused_once_for_all_films(capsys, unsampled, model) -> None:
    Path("films").mkdir()
    for name in "ab":
        film(f"films/{name}.mkv")
    at = ("--model", model, "--device", "cpu", "--video", "films", "-o", "o/")
    assert "solver 'heun' draws no noise" in refused(
        capsys, *at, "--solver", "heun", "--eta", "0.5"
    )


def test_a_model_without_a_guidance_of_its_own_for_the_sound(tmp_path) -> None:
    plain = {"steps": 1, "guidance": 2.0, "schedule": "cascade"}
    other = small_model.build(sampling=plain).save(tmp_path / "plain")
    assert run(str(other), "a", "-o", "a.wav") == 0
    assert "audio_guidance" not in tags.read("a.wav")["sampling"]


def test_a_film_that_is_too_long_for_one_sound_is_said(capsys, unsampled, model) -> None:
    frame = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    media.write("long.mkv", frame.expand(61, -1, -1, -1), None, fps=0.1)
    at = ("--model", model, "--device", "cpu", "-o", "o.mkv")
    said = refused(capsys, "a", "--video", "long.mkv", *at)
    assert "'long.mkv' lasts 610 s, and sound is made for at most 600 s" in said


def test_what_will_not_fit_is_said_and_can_be_forced(capsys, model, monkeypatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 10_000)
    said = refused(capsys, "a", "--model", model, "--device", "cpu")
    assert "1 s at 32x32 needs about 0.0 GB; 0.0 GB are free on cpu" in said
    assert run(model, "a", "--force") == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_takes_no_files(capsys, unsampled) -> None:
    Path("closed").mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    assert "Permission denied" in refused(capsys, "a", "-o", "closed/a.mp4")
    assert "Permission denied" in refused(capsys, "a", "-o", "closed/new/")


def test_a_folder_that_takes_no_files_even_from_root(capsys, unsampled) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc")
    said = refused(capsys, "a", "-o", "/proc/self/a.mp4")
    assert "cannot write into '/proc/self'" in said
