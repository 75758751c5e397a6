"""What the demo's buttons do, and their limits; the page and its server are in test_demo_page."""

import os
import threading
import time

import pytest
import torch

from syncflow import extras
from syncflow.cli import main
from syncflow.clip import Clip
from syncflow.data import media
from syncflow.faults import Cancelled
from syncflow.serving import studio as studios
from syncflow.serving.studio import MOST_LETTERS, MOST_SEED, MOST_TAKES, Studio
from tests.stand_in_model import Model


@pytest.fixture
def studio():
    made = Studio(Model())
    yield made
    made.close()
    assert not made.folder.exists()


@pytest.fixture
def film(tmp_path):
    clip = Clip(torch.zeros(16, 3, 32, 32, dtype=torch.uint8), torch.ones(48000) * 0.1)
    return clip.save(tmp_path / "in.mp4")


def test_a_sentence_becomes_files(studio):
    (take,) = studio.clip(" a  metal ball\n", seed=3.0, negative_audio_prompt="speech")
    assert media.probe(take.clip).seconds == 1 and studio.folder in take.clip.parents
    assert take.plot.suffix == ".png" and take.plot.exists() and take.told == "1 s"
    asked = studio.model.asked[0]
    assert asked["prompt"] == "a metal ball" and asked["seed"] == 3
    assert asked["negative_audio_prompt"] == "speech"
    assert {"guidance", "steps", "seconds", "callback"} & set(asked) == set()
    (again,) = studio.clip("again")
    assert again.clip != take.clip


def test_takes_come_side_by_side_and_progress_is_told(studio):
    told = []
    takes = studio.clip("a ball", report=told.append, takes=MOST_TAKES)
    assert len({take.clip for take in takes}) == MOST_TAKES
    assert all("agreement 0.50" in take.told for take in takes)
    assert told == [0.25, 1.0]


def test_a_video_and_a_picture_go_in(studio, film):
    studio.sound(film, "")
    assert studio.model.asked[-1]["video"] == str(film) and "seconds" not in studio.model.asked[-1]
    studio.from_frame(film, "a ball")
    assert studio.model.asked[-1]["image"] == str(film)
    for make in (studio.sound, studio.from_frame):
        with pytest.raises(ValueError, match="choose a"):
            make(None, "a ball")


def test_long_videos_are_cut_and_large_files_refused(studio, film, monkeypatch):
    monkeypatch.setattr(studios, "MOST_SECONDS", 0.5)
    studio.sound(film, "")
    assert studio.model.asked[-1]["seconds"] == 0.5
    monkeypatch.setattr(studios, "MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="larger than"):
        studio.sound(film, "")


@pytest.mark.parametrize(
    "options",
    [
        {"seed": -1}, {"seed": 0.5}, {"seed": MOST_SEED + 1.0}, {"seed": float("nan")},
        {"seed": "7"}, {"seed": None}, {"seed": True}, {"seed": [1]}, {"takes": 0},
        {"takes": MOST_TAKES + 1}, {"takes": 1e12}, {"guidance": float("inf")}, {"guidance": -1},
        {"guidance": {}}, {"steps": 0}, {"steps": 10**9}, {"seconds": 0}, {"seconds": 1e9},
        {"negative_audio_prompt": "x" * (MOST_LETTERS + 1)}, {"negative_audio_prompt": None},
    ],
)  # fmt: skip
def test_what_is_out_of_range_is_one_line(studio, options):
    with pytest.raises(ValueError) as caught:
        studio.clip("a ball", **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 120
    assert studio.model.asked == []


@pytest.mark.parametrize("prompt", ["x" * (MOST_LETTERS + 1), None, 3, ["a"], "  "])
def test_what_is_no_prompt_is_refused(studio, prompt):
    with pytest.raises(ValueError):
        studio.clip(prompt)


def test_old_files_go_and_new_ones_stay(studio):
    (old,), (new,) = studio.clip("a ball"), studio.clip("a ball")
    upload = studio.uploads / "0a1b" / "film.mp4"
    upload.parent.mkdir()
    upload.write_bytes(b"x")
    past = time.time() - studio.kept - 1
    for path in (old.clip, old.plot, upload):
        os.utime(path, (past, past))
    studio.sweep()
    assert not old.clip.exists() and not old.plot.exists() and not upload.exists()
    os.utime(upload.parent, (past, past))
    studio.sweep()
    assert not upload.parent.exists()
    assert new.clip.exists() and new.plot.exists() and studio.uploads.exists()


def test_files_go_by_themselves():
    studio = Studio(Model(), every=0.05)
    try:
        (take,) = studio.clip("a ball")
        studio.kept = 0
        end = time.monotonic() + 30
        while take.clip.exists() and time.monotonic() < end:
            time.sleep(0.05)
        assert not take.clip.exists()
    finally:
        studio.close()


def test_one_clip_is_made_at_a_time(studio):
    studio.model.seconds = 0.05
    threads = [threading.Thread(target=studio.clip, args=("a ball",)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(studio.model.asked) == 6 and studio.model.most_at_once == 1


def test_without_gradio_one_line_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(extras, "_is_there", lambda name: False)
    assert main(["demo"]) == 2
    assert "pip install 'syncflow[demo]'" in capsys.readouterr().err


def test_previews_and_stopping(studio):
    seen, stop = [], threading.Event()
    studio.clip("a ball", look=seen.append)
    assert [image.size for image in seen] == [(768, 148)] * 2
    stop.set()
    with pytest.raises(Cancelled):
        studio.clip("a ball", stop=stop)
    assert studio.clip("a ball")  # the next is made
    studio.shows = False  # a model without a map
    studio.clip("a ball", look=seen.append)
    assert len(seen) == 2 and "preview" not in studio.model.asked[-1]


def test_times_of_contacts_are_numbers(studio):
    studio.clip("a ball", contacts=" 0.4, 1.1 ")
    assert studio.model.asked[-1]["contacts"] == [0.4, 1.1]
    with pytest.raises(ValueError, match="seconds with commas between them.*'soon'"):
        studio.clip("a ball", contacts="soon")
