"""What the demo's buttons do; the page itself where Gradio is installed."""

import importlib.util

import pytest
import torch

from syncflow.cli import main
from syncflow.clip import Clip
from syncflow.config import ModelConfig
from syncflow.data import media
from syncflow.serving.demo import MOST_TAKES, Studio, page


class Model:
    """Answers with a clip that says what it was asked."""

    config = ModelConfig()

    def __init__(self) -> None:
        self.asked: list[dict] = []

    def generate(self, prompt, **options):
        if not prompt and "video" not in options:
            raise ValueError("empty prompt: describe the clip in one sentence")
        self.asked.append({"prompt": prompt, **options})
        picture = torch.zeros(16, 3, 32, 32, dtype=torch.uint8)
        clip = Clip(picture, torch.zeros(48000), picture_file=options.get("video"))
        clip.scores = {"agreement": 0.5} if options.get("audio_takes", 1) > 1 else None
        return [clip] * options["audio_takes"] if options["audio_takes"] > 1 else clip


@pytest.fixture
def studio():
    made = Studio(Model())
    yield made
    made.close()
    assert not made.folder.exists()


def test_a_sentence_becomes_a_file(studio):
    path, told = studio.clip(" a drum ", seed=3.0, takes=99, negative_sound="speech")
    assert media.probe(path).seconds == 1 and path.parent == studio.folder
    assert studio.model.asked[0]["prompt"] == "a drum" and "seed 3" in told
    assert studio.model.asked[0]["audio_takes"] == MOST_TAKES
    assert studio.model.asked[0]["negative_audio_prompt"] == "speech"
    assert f"best of {MOST_TAKES} takes (agreement 0.50)" in told
    assert studio.clip("again")[0] != path
    with pytest.raises(ValueError, match="empty prompt"):
        studio.clip("  ")


def test_a_video_gets_sound(studio, tmp_path):
    source = Clip(torch.zeros(16, 3, 32, 32, dtype=torch.uint8), torch.ones(48000) * 0.1)
    path, _ = studio.sound(source.save(tmp_path / "in.mp4"))
    assert media.probe(path).sample_rate == 48000 and "seconds" not in studio.model.asked[0]
    with pytest.raises(ValueError, match="choose a video"):
        studio.sound(None)


def test_without_gradio_one_line_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["demo"]) == 2
    assert "pip install 'syncflow[demo]'" in capsys.readouterr().err


def test_the_page(studio):
    pytest.importorskip("gradio")
    blocks = page(studio)
    assert {f.api_name for f in blocks.fns.values()} >= {"clip", "sound"}
