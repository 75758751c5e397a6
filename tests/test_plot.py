"""The drawing of a clip's sync."""

import numpy as np
import pytest
import torch
from PIL import Image

from syncflow.cli import main
from syncflow.clip import Clip
from syncflow.generation.remarks import plot
from syncflow.impacts import world
from syncflow.impacts.render import render
from syncflow.impacts.sound import sound


def columns(path, colour: tuple[int, int, int]) -> list[int]:
    """Where lines of a colour stand, each by its first column, the legend's left out."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    height = len(pixels)
    close = (np.abs(pixels - colour).sum(-1) < 30)[40:].sum(0) > height / 8
    return [x for x in np.flatnonzero(close) if not close[x - 1]]


def test_lines_stand_where_things_happen(tmp_path):
    scene = world.sample_scene(7, 1)
    clip = Clip(torch.from_numpy(render(scene)), torch.from_numpy(sound(scene)))
    times = [contact.time_s for contact in scene.contacts]
    path = plot.plot(clip, tmp_path / "sync.png")
    width = Image.open(path).size[0] - 32
    for colour in (plot.CONTACT, plot.ONSET):
        drawn = [(x + 1 - 16) / width * clip.seconds for x in columns(path, colour)]
        assert len(drawn) == len(times) >= 2
        assert np.allclose(drawn, times, atol=0.04)


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 8, 64), (3, 64, 8), (160, 32, 32)])
def test_any_clip_is_drawn(tmp_path, frames, height, width):
    clip = Clip(torch.zeros(frames, 3, height, width, dtype=torch.uint8), torch.zeros(10))
    assert Image.open(plot.plot(clip, tmp_path / "x.png")).size[0] == 992


def test_mistakes_are_told_before_a_model_is_loaded(capsys, tmp_path, monkeypatch):
    import syncflow

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(syncflow, "load", lambda *a, **k: pytest.fail("loaded"), raising=False)
    for file, said in (("x.jpg", "end 'x.jpg' with .png"), ("no/x.png", "no folder 'no'")):
        assert main(["generate", "a ball", "--plot", file]) == 2
        assert said in capsys.readouterr().err


def test_a_drawing_replaces_nothing_else(capsys, tmp_path, monkeypatch):
    import syncflow

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(syncflow, "load", lambda *a, **k: pytest.fail("loaded"), raising=False)
    Image.new("RGB", (64, 64)).save("given.png")
    (tmp_path / "frames").mkdir()
    for options in (
        ["--image", "given.png", "--plot", "given.png", "-o", "a.mp4"],
        ["--sheet", "--plot", "a.png", "-o", "a.mp4"],
        ["--plot", "frames/0001.png", "-o", "frames/%04d.png"],
    ):
        assert main(["generate", "a ball", *options]) == 2
        assert "--plot would replace" in capsys.readouterr().err


def test_the_command_draws(tmp_path, capsys):
    prompts = ["a metal ball bounces", "a glass ball bounces"]
    out = ["-o", str(tmp_path / "clips"), "--plot", str(tmp_path / "sync.png")]
    assert main(["generate", *prompts, "--steps", "2", "--no-progress", *out]) == 0
    assert {p.name for p in tmp_path.glob("*.png")} == {"sync-1.png", "sync-2.png"}
    assert str(tmp_path / "sync-2.png") in capsys.readouterr().out
