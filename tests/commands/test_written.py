"""``syncflow generate``: names, files and what they tell."""

from pathlib import Path

import pytest
import torch

from syncflow.cli import main
from syncflow.commands import output_paths
from syncflow.data import media
from syncflow.data.export import tags
from tests.commands.command import film, run

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


def test_one_film_for_all_prompts_gives_its_name() -> None:
    plan = output_paths.plan("{name}-{seed:02d}-{i}.mp4", ["a", "b"], 1, 7, video=Path("film.mov"))
    assert [path.name for path in plan.paths] == ["film-07-1.mp4", "film-07-2.mp4"]


@pytest.mark.parametrize(
    "text", ["{i.__class__}.wav", "{i!r}.wav", "{seed:999999}.wav", "{i:{take}}.wav", "{i[0]}.wav"]
)
def test_a_pattern_only_names_its_fields(text) -> None:
    with pytest.raises(ValueError, match="not a valid pattern"):
        output_paths.plan(text, ["a"], 1, 0)


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


def test_a_retaken_film_keeps_its_prompt_and_its_own_rate_is_told(model, capsys) -> None:
    assert run(model, "a ball", "-o", "a.mp4") == 0
    retake = ("--retake", "a.mp4", "--span", "0.2", "0.5")
    assert run(model, *retake, "-o", "b.mp4") == 0
    assert tags.facts("b.mp4")["title"] == "a ball" and tags.read("b.mp4")["prompt"] == ""
    assert run(model, "--retake", "b.mp4", "--span", "0.2", "0.5", "-o", "c.mkv") == 0
    assert run(model, "a drum", *retake, "-o", "d.mp4") == 0
    assert [tags.facts(name)["title"] for name in ("c.mkv", "d.mp4")] == ["a ball", "a drum"]
    capsys.readouterr()
    assert main(["info", "b.mp4"]) == 0
    assert "title" in (out := capsys.readouterr().out) and "a ball" in out
    media.write("other.mkv", torch.zeros(25, 3, 32, 48, dtype=torch.uint8), None, fps=25)
    assert run(model, "--retake", "other.mkv", "--span", "0", "0.5", "-o", "e.mkv") == 0
    assert "48x32 at 25 fps" in capsys.readouterr().err
    assert run(model, "--retake", "other.mkv", "--span", "0", "0.5", "-o", "e%02d.png") == 0
    assert "48x32 at 16 fps" in capsys.readouterr().err


def test_threads(model, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    assert run(model, "a", "--threads", "3") == 0 and asked == [3]
    assert run(model, "a") == 0 and asked == [3]
