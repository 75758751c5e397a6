"""Every film of the zoo, read, cut for training and given a new sound, against ffmpeg's decoder."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from syncflow import Clip
from syncflow.clip import ClipSpec
from syncflow.data import media
from syncflow.data.prepare.decoding import Decoder
from syncflow.data.prepare.sources import Source
from syncflow.data.prepare_options import KEEPABLE
from tests import media_zoo
from tests.ffmpeg_films import FLASH, RATE, Film, Shown, click, onset, shown, write_inputs

pytest.importorskip("imageio_ffmpeg")

READ = [film for film in media_zoo.ALL if film.refused is None]


@pytest.fixture(scope="session")
def zoo(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    write_inputs(folder)
    return folder


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(np.int16) - b).mean())


def expected(seen: Shown, fps: float, count: int) -> np.ndarray:
    """Which of the pictures is on the screen at i / fps."""
    times = np.arange(count) / fps
    return np.searchsorted(seen.times_N, times + 0.002, side="right") - 1


@pytest.mark.parametrize("film", READ, ids=lambda film: film.name)
def test_what_is_shown_is_read_and_copied(film: Film, zoo, tmp_path) -> None:
    path = film.make(zoo)
    right = shown(path, film.filters, film.track, film.sound)
    video, audio = media.read(path, fps=film.fps)
    pictures = video.permute(0, 2, 3, 1).numpy()

    # The pictures, at their times, and the last one for as long as it stays.
    places = expected(right, film.fps, len(pictures))
    assert places[0] == 0 and places[-1] == len(right.times_N) - 1
    assert len(pictures) >= right.times_N[-1] * film.fps + 1 - 0.02
    assert len(pictures) == len(right.times_N) or np.diff(right.times_N).std() > 1e-3
    if film.same:
        assert pictures.shape[1:] == right.film_NHW3.shape[1:]
        far = [difference(a, b) for a, b in zip(pictures, right.film_NHW3[places], strict=True)]
        assert max(far) < 4, far
    else:
        assert pictures[:, :, -8:].mean() > 190 and pictures[0, :, :8].mean() < 90

    # The sound, where ffmpeg has it.
    if audio is None:
        assert right.click is None
    elif right.click < len(audio) / 48000:
        assert abs(onset(audio.numpy()) - right.click) <= 0.001
        assert abs(right.click - right.times_N[right.flash]) <= film.late

    check_window(path, film, right)
    check_copy(path, film, right, tmp_path)


def check_window(path: Path, film: Film, right: Shown) -> None:
    """A part of it, as ``prepare`` takes it."""
    spec = ClipSpec(4 / film.fps, film.fps, 32, 32)
    clip = Clip.load(path, spec.fps, height=32, width=32)
    found = Decoder(path.parent, spec, random=False, keep=KEEPABLE)(
        Source(path.name, caption="a film")
    )
    assert found.windows, found.skipped
    for window in found.windows:
        first = round(window.record["start"] * spec.fps)
        assert np.array_equal(window.video, clip.video[first : first + 4].numpy())
        begin = round(first / film.fps * 48000)
        sound = clip.audio[begin : begin + spec.num_samples].numpy()
        assert np.abs(window.audio[: len(sound)] - sound).max() < 1e-6
    if film.same:
        brightest = int(clip.video.float().mean((1, 2, 3)).argmax())
        assert abs(brightest / spec.fps - right.times_N[right.flash]) <= 0.5 / spec.fps + 1e-3


def check_copy(path: Path, film: Film, right: Shown, tmp_path: Path) -> None:
    """The same pictures at the same times, and a new click at 0.4 s."""
    new = torch.zeros(48000)
    new[19200:20160] = torch.from_numpy(click()[FLASH * 2000 :][:960, 0].copy())
    out = tmp_path / f"out{film.copy}"
    if film.not_copied is not None:
        for refuses in (media.check_copy, lambda *names: media.add_sound(*names, new)):
            with pytest.raises(ValueError, match=film.not_copied):
                refuses(out, path)
        assert not list(tmp_path.iterdir())
        return
    media.check_copy(out, path)
    media.add_sound(out, path, new)
    again = shown(out, film.filters)
    assert again.film_NHW3.shape == right.film_NHW3.shape
    assert np.abs(again.times_N - right.times_N).max() <= 0.00101
    assert np.array_equal(again.film_NHW3, right.film_NHW3)
    assert abs(again.click - 0.4) <= 0.001


@pytest.mark.parametrize(
    "film", [film for film in media_zoo.ALL if film.refused], ids=lambda film: film.name
)
def test_what_cannot_be_right_is_refused(film: Film, zoo, tmp_path) -> None:
    path = film.make(zoo)
    with pytest.raises(ValueError, match=film.refused) as told:
        media.read(path)
    assert "\n" not in str(told.value) and len(str(told.value)) < 400
    found = Decoder(path.parent, ClipSpec(0.5, 16, 32, 32), keep=KEEPABLE)(
        Source(path.name, caption="a film")
    )
    assert not found.windows and [row["reason"] for row in found.skipped] == ["damaged"]


def test_generate_gives_films_back_as_they_were_shown(zoo, tmp_path) -> None:
    import syncflow

    model = syncflow.load()
    size = model.config.geometry.spec
    films = {film.name: film for film in media_zoo.ALL}
    for name, ending in (("trimmed.mp4", ".mp4"), ("mirrored.mp4", ".mkv"), ("stream.ts", ".mov")):
        path = films[name].make(zoo)
        clip = model.generate("a ball", video=path, steps=1, audio_steps=1, progress=False)
        assert clip.video.shape[2:] == (size.height, size.width)
        right, again = shown(path), shown(clip.save(tmp_path / f"{name}{ending}"), sound=None)
        assert np.array_equal(again.film_NHW3, right.film_NHW3)
        assert np.abs(again.times_N - right.times_N).max() <= 0.001
        assert abs(len(clip.audio) / clip.sample_rate - len(right.times_N) / RATE) < 0.05


def test_the_zoo_is_large_and_little_of_it_is_refused() -> None:
    assert len(media_zoo.ALL) >= 60
    assert len({film.name for film in media_zoo.ALL}) == len(media_zoo.ALL)
    refused = [film.name for film in media_zoo.ALL if film.refused or film.not_copied]
    assert len(refused) <= 12
    text = (Path(__file__).parents[2] / "docs/films.md").read_text()
    assert all(re.search(rf"`{re.escape(name)}`", text) for name in refused), refused
    assert RATE == 24
