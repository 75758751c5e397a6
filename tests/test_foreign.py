"""Given pictures that look like nothing which the model was trained on are told in a line."""

import warnings
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

import syncflow
from syncflow.cli import main
from syncflow.clip import Clip
from syncflow.data import media
from syncflow.generation import foreign
from syncflow.impacts.render import render
from syncflow.impacts.world import SEEDS, sample_scene
from syncflow.serving.studio import Studio
from tests import ffmpeg_films, small_model

ROOT = Path(__file__).resolve().parents[1]
QUICK = ("--steps", "1", "--audio-steps", "1", "--no-progress", "--device", "cpu")
TOLD = "looks? like nothing that this model was trained on, balls, boxes, discs"


@pytest.fixture(scope="module")
def model():
    return syncflow.load(device="cpu")


def ball(number: int, level: int = 1) -> torch.Tensor:
    scene = sample_scene(SEEDS["test"].start + number, level)
    return torch.from_numpy(np.ascontiguousarray(render(scene)))


def bars() -> torch.Tensor:
    """The zoo's picture, uint8 [36,3,64,64]."""
    return torch.from_numpy(ffmpeg_films.pictures(64, 64)).permute(0, 3, 1, 2)


def noise() -> torch.Tensor:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 3, 64, 64), np.uint8)
    return torch.from_numpy(pixels)


def colours() -> torch.Tensor:
    """A drift from blue to yellow, from one side to the other."""
    ramp = torch.linspace(0, 255, 64).expand(32, 1, 64, 64).to(torch.uint8)
    return torch.cat([ramp, ramp, 255 - ramp], 1)


def test_clips_of_its_own_world_are_not_told(model) -> None:
    for level in (1, 2, 3, 4):
        for number in range(6):
            video = ball(number, level)
            assert foreign.remarks(model, [video, Clip(video, torch.zeros(96000))], video[0]) == []


def test_what_the_model_made_is_not_told(model) -> None:
    files = sorted((ROOT / "docs" / "clips").glob("*.mp4"))
    assert files and foreign.remarks(model, files) == []


@pytest.mark.parametrize("picture", [bars, noise, colours])
def test_other_pictures_are_told(model, picture) -> None:
    video = picture()
    for films in ([video], [video[None]], [[video]], [Clip(video, torch.zeros(9))]):
        (said,) = foreign.remarks(model, films)
        assert said.startswith("the given picture looks like nothing that this model was trained")
    assert foreign.remarks(model, image=video[0])


def test_many_films_are_one_line(model, tmp_path) -> None:
    films = [media.write(tmp_path / f"{name}.mkv", bars(), None) for name in "abcde"]
    own = media.write(tmp_path / "own.mkv", ball(0), None)
    (said,) = foreign.remarks(model, [*films, own, None])
    assert said.startswith("'a.mkv', 'b.mkv', 'c.mkv' and 2 more look like nothing")


def test_a_long_film_is_looked_at_in_its_first_seconds(model, monkeypatch, tmp_path) -> None:
    path = media.write(tmp_path / "long.mkv", bars().repeat(10, 1, 1, 1), None)
    seen = []
    plain = foreign.strangeness
    monkeypatch.setattr(foreign, "strangeness", lambda *a: (seen.append(len(a[1])), plain(*a))[1])
    for film in (path, bars().repeat(10, 1, 1, 1), bars()[:1]):
        foreign.remarks(model, [film])
    assert seen == [32, 32, 4]


def test_a_model_that_tells_no_vocabulary_may_know_anything() -> None:
    assert foreign.remarks(small_model.build(), [bars()], bars()[0]) == []


def test_the_command_says_it_once(capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("films").mkdir()
    for name, video in (("bars", bars()), ("ball", ball(0))):
        media.write(f"films/{name}.mkv", video, None)
    given = ("a metal ball bounces", "--video", "films/bars.mkv", "-o", "a.mkv")
    assert main(["generate", *given, *QUICK]) == 0
    err = capsys.readouterr().err
    assert err.count("note: 'bars.mkv' looks like nothing") == 1 and err.count("note:") == 1
    for name in ("ball", "bars"):
        given = ("a metal ball bounces", "--extend", f"films/{name}.mkv", "--seconds", "0.25")
        assert main(["generate", *given, "-o", "e.mp4", *QUICK]) == 0
        assert ("note:" in capsys.readouterr().err) == (name == "bars")
    folder = ("generate", "--video", "films", "-o", "made/", *QUICK)
    for notes in (1, 0):  # films that have their sound already were told when they got it
        assert main([*folder]) == 0
        assert capsys.readouterr().err.count("note: 'bars.mkv' looks") == notes


def test_python_and_the_demo_say_it(model, monkeypatch) -> None:
    monkeypatch.setattr(import_module("syncflow.generation.shipped"), "_shipped", lambda: model)
    few = {"steps": 1, "audio_steps": 1, "progress": False}
    with pytest.warns(UserWarning, match=TOLD):
        syncflow.generate("a metal ball bounces", video=bars(), **few)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        syncflow.generate("a metal ball bounces", video=ball(0), **few)
    studio = Studio(model)
    try:
        (said,) = studio.remarks("a metal ball", image=None, video=bars())
        assert said.startswith("the given picture looks like nothing")
        assert studio.remarks("a metal ball", video=ball(0)) == []
    finally:
        studio.close()
