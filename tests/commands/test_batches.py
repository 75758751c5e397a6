"""``syncflow generate``: many clips, and again."""

import io
import os
import subprocess
import sys
from pathlib import Path

from PIL import Image, ImageChops, ImageStat

from syncflow.commands import inputs
from syncflow.data import media
from syncflow.data.export import tags
from syncflow.generation import pipeline
from tests.commands.command import FEW, film, run


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


def test_an_input_of_other_content_under_its_name_is_no_finished_clip(model, capsys) -> None:
    Path("films").mkdir()
    for name in "ab":
        film(f"films/{name}.mp4")
    sounds = ("a ball", "--video", "films", "-o", "o/")
    assert run(model, *sounds) == 0
    capsys.readouterr()
    film("films/a.mp4", frames=20)
    assert run(model, *sounds) == 0
    assert capsys.readouterr().out.split() == ["o/a.mp4"] and media.probe("o/a.mp4").frames == 20

    Path("p.txt").write_text("a ball\n")
    for colour in ("red", "blue"):
        Image.new("RGB", (32, 32), colour).save("first.png")
        for made in (["c/1-a-ball.mp4"], []):
            assert run(model, "--prompts", "p.txt", "--image", "first.png", "-o", "c/") == 0
            assert capsys.readouterr().out.split() == made


def test_the_contact_sheet_has_the_clips_that_were_there(model, capsys) -> None:
    Path("p.txt").write_text("a ball\nanother ball\n")
    batch = ("--prompts", "p.txt", "-o", "o/", "--batch-size", "1", "--sheet")
    assert run(model, *batch) == 0
    whole = Image.open("o/contact_sheet.png").convert("L")
    for lost in (["o/2-another-ball.mp4"], [], ["o/1-a-ball.mp4", "o/2-another-ball.mp4"]):
        for name in [*lost, "o/contact_sheet.png"]:
            Path(name).unlink()
        assert run(model, *batch) == 0
        again = Image.open("o/contact_sheet.png").convert("L")
        assert again.size == whole.size
        apart = ImageChops.difference(whole, again)
        assert ImageStat.Stat(apart).mean[0] < 4, "but for what encoding costs"
    assert run(model, "--prompts", "p.txt", "-o", "{i}.wav") == 0
    capsys.readouterr()
    assert run(model, "--prompts", "p.txt", "-o", "{i}.wav", "--sheet") == 0
    err = capsys.readouterr().err
    assert all(f"the contact sheet lacks '{i}.wav', which was there" in err for i in (1, 2))


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
