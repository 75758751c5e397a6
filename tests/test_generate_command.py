"""``syncflow generate``: what is refused before sampling, what is written, what is left alone."""

import io
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from syncflow.cli import main
from syncflow.commands import inputs, output_paths
from syncflow.data import media
from syncflow.data.export import tags
from syncflow.generation import memory, pipeline
from tests import small_model

FEW = ("--steps", "1", "--audio-steps", "1", "--no-progress")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(small_model.build().save(tmp_path_factory.mktemp("models") / "m"))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def unsampled(monkeypatch) -> None:
    """No clip may be made."""

    def generate(*_, **__):
        raise AssertionError("it was sampled")

    monkeypatch.setattr(pipeline.SyncFlow, "generate", generate)


def film(path: Path | str, frames: int = 16) -> Path:
    video = torch.arange(frames, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 32, 48) * 9
    return media.write(path, video, None)


def run(model: str, *argv: object) -> int:
    return main(["generate", *map(str, argv), "--model", model, "--device", "cpu", *FEW])


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
        (["a", "--seconds", "1e12"], "--seconds: it must be at most"),
        (["a", "--threads", "0"], "--threads: it must be"),
        (["a", "--threads", "5000"], "--threads: it must be at most 1024"),
        (["a", "--scale", "17"], "scale must be a whole number from 1 to 16, got 17"),
        (["a", "--scale-filter", "box"], "unknown filter 'box'"),
        (["a", "--loudness", "3"], "loudness must be -70 to -5 LUFS, got 3"),
        (["a", "--loudness", "nan"], "got nan"),
        (["a", "--loudness", "loud"], "--loudness: invalid float value: 'loud'"),
        (["a", "--prompts", "p.txt"], "not both"),
        (["--prompts", "gone.txt"], "there is no file of prompts 'gone.txt'"),
        (["--prompts", "empty.txt"], "'empty.txt' has no prompt"),
        (["--prompts", "latin.txt"], "'latin.txt', line 2: not UTF-8"),
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


# ---- names ----


def test_without_a_name_nothing_is_replaced(model, capsys, here) -> None:
    for _ in range(3):
        assert run(model, "a") == 0
    assert capsys.readouterr().out.split() == ["clip.mp4", "clip-2.mp4", "clip-3.mp4"]
    Path("clip-4.png").touch()
    assert output_paths.plan(None, ["a"], 1, 0, sheet=True).paths == [Path("clip-5.mp4")]
    assert output_paths.plan(None, ["a", "b"], 1, 0).paths[0].parent == Path("clips")
    Path("clips").mkdir()
    assert output_paths.plan(None, ["a", "b"], 1, 0).paths[0].parent == Path("clips-2")


def test_a_given_name_is_replaced(model) -> None:
    Path("a.mp4").write_text("old")
    assert run(model, "a", "-o", "a.mp4") == 0
    assert media.probe("a.mp4").frames == 16


def test_names_of_films_are_kept_and_never_formatted() -> None:
    films = [Path("in/{i} %d.mp4"), Path("in/b.avi"), Path("in/b.mkv")]
    plan = output_paths.plan("o", ["", "", ""], 1, 0, films)
    assert [path.name for path in plan.paths] == ["{i} %d.mp4", "b.avi.mkv", "b.mkv"]
    plan = output_paths.plan("o/{name}-{take}.wav", ["", ""], 2, 0, films[1:2] + [Path("c.mp4")])
    assert [path.name for path in plan.paths] == ["b-1.wav", "b-2.wav", "c-1.wav", "c-2.wav"]


# ---- what is written ----


def test_sound_and_frames_and_scale(model, capsys) -> None:
    assert run(model, "a", "-o", "a.flac", "--loudness", "-30") == 0
    assert tags.read("a.flac")["loudness"] == -30
    assert run(model, "a", "-o", "deep/er/%03d.png", "--scale", "2") == 0
    assert len(list(Path("deep/er").iterdir())) == 16
    assert tags.facts("deep/er/001.png")["picture"] == "64x64"
    assert tags.read("deep/er/016.png")["scale"] == 2
    assert run(model, "a", "-o", "a.mp4", "--scale", "3", "--scale-filter", "lanczos") == 0
    assert (media.probe("a.mp4").width, tags.read("a.mp4")["scale_filter"]) == (96, "lanczos")
    out, err = capsys.readouterr()
    assert "deep/er/%03d.png" in out and "96x96" in err


def test_same_seed_same_bytes_and_no_metadata_on_request(model) -> None:
    for name in ("a.mp4", "b.mp4"):
        assert run(model, "a", "--seed", "5", "-o", name) == 0
    assert Path("a.mp4").read_bytes() == Path("b.mp4").read_bytes()
    assert run(model, "a secret", "--no-metadata", "-o", "c.mp4") == 0
    assert tags.read("c.mp4") is None and b"a secret" not in Path("c.mp4").read_bytes()


def test_info_tells_what_was_made(model, capsys) -> None:
    prompt = "a ball \u4e2d \x1b[31m red"
    assert run(model, prompt, "--seed", "9", "--guidance", "3", "-o", "a.mkv") == 0
    capsys.readouterr()
    assert main(["info", "a.mkv"]) == 0
    out = capsys.readouterr().out
    rows = {line[:20].split("  ")[0].strip(): line for line in out.splitlines()}
    assert "a ball \u4e2d \\x1b[31m red" in rows["prompt"] and "\x1b" not in out
    assert rows["seed"].endswith(" 9") and rows["guidance"].endswith(" 3")
    assert rows["model"].endswith(" tiny") and "1 s" in rows["length"]
    film("plain.mkv")
    assert main(["info", "plain.mkv"]) == 0
    assert "not by syncflow" in capsys.readouterr().out
    assert main(["info", "a.mkv", "--json"]) == 0
    assert '"seed": 9' in capsys.readouterr().out
    assert main(["info", "gone.mp4"]) == 2


def test_threads(model, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    assert run(model, "a", "--threads", "3") == 0 and asked == [3]
    assert run(model, "a") == 0 and asked == [3]


# ---- many, and again ----


def test_all_clips_are_saved_when_the_reader_of_their_names_leaves(model) -> None:
    argv = ["generate", "a", "b", "c", "-o", "o/", "--model", model, "--device", "cpu", *FEW]
    root = str(Path(inputs.__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "syncflow", *argv],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    process.stdout.close()
    told = process.stderr.read()
    assert process.wait() == 0 and len(list(Path("o").iterdir())) == 3
    assert "ipe" not in told and told.startswith("3 clips (1 s, 32x32")


def test_a_file_of_prompts_goes_on_where_it_stopped(model, capsys, monkeypatch) -> None:
    Path("p.txt").write_bytes("\ufeffa ball\r\n\r\nfällt\r\nthird\r\n".encode())
    batch = ("--prompts", "p.txt", "-o", "o/", "--batch-size", "2")
    assert run(model, *batch) == 0
    names = ["o/1-a-ball.mp4", "o/2-f-llt.mp4", "o/3-third.mp4"]
    assert capsys.readouterr().out.split() == names
    assert [tags.read(name)["seed"] for name in names] == [0, 1, 2]
    first = {name: (Path(name).stat().st_mtime_ns, Path(name).read_bytes()) for name in names}
    Path(names[1]).unlink()
    made = []
    generate_one = pipeline.SyncFlow.generate
    monkeypatch.setattr(
        pipeline.SyncFlow, "generate",
        lambda self, prompts, **o: made.append(prompts) or generate_one(self, prompts, **o),
    )  # fmt: skip
    assert run(model, *batch) == 0
    out, err = capsys.readouterr()
    assert out.split() == [names[1]] and "2 files are there already" in err
    assert made == [["a ball", "fällt"]]  # as before, so that the bytes are the same
    assert Path(names[1]).read_bytes() == first[names[1]][1]
    assert Path(names[0]).stat().st_mtime_ns == first[names[0]][0]
    assert run(model, *batch, "--seed", "1") == 0  # other clips
    assert capsys.readouterr().out.split() == names


def test_a_given_list_is_made_anew(model, capsys) -> None:
    for _ in range(2):
        assert run(model, "a", "b", "-o", "o/") == 0
        assert len(capsys.readouterr().out.split()) == 2


def test_prompts_from_stdin(model, capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\nb\n")))
    assert run(model, "--prompts", "-", "-o", "{i}.wav") == 0
    assert capsys.readouterr().out.split() == ["1.wav", "2.wav"]


def test_utf_16_prompts() -> None:
    Path("w.txt").write_bytes("fällt\n\u4e2d\n".encode("utf-16"))
    assert inputs.prompts("w.txt") == ["fällt", "\u4e2d"]


def test_a_folder_of_films_goes_on_and_leaves_out_what_is_broken(model, capsys) -> None:
    Path("films").mkdir()
    film("films/a.mkv")
    film("films/b.mp4", frames=20)
    Path("films/notes.txt").write_text("no film")
    Path("films/c.mp4").write_bytes(b"no film either")
    batch = ("a ball", "--video", "films", "-o", "o/")
    assert run(model, *batch) == 2
    out, err = capsys.readouterr()
    assert out.split() == ["o/a.mkv", "o/b.mp4"]
    assert "left out 'films/c.mp4'" in err and "1 of 3 videos cannot be used" in err
    assert media.probe("o/b.mp4").frames == 20
    Path("films/c.mp4").unlink()
    film("films/0.mp4")  # changes no others
    assert run(model, *batch) == 0
    out, err = capsys.readouterr()
    assert out.split() == ["o/0.mp4"] and "2 files are there already" in err
    alone = ("a ball", "--video", "films/b.mp4", "-o", "alone.mp4")
    assert run(model, *alone) == 0
    assert Path("alone.mp4").read_bytes() == Path("o/b.mp4").read_bytes()
