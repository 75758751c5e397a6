"""benchmarks/real_media.py: a foreign file through the VAEs and back, and how faults are told."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from syncflow.clip import Clip
from syncflow.data import media

av = pytest.importorskip("av")

ROOT = Path(__file__).resolve().parents[1]
MARKS = "<!-- real-media:begin -->\nold\n<!-- real-media:end -->"


@pytest.fixture(scope="module")
def real_media():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import real_media
    finally:
        sys.path.pop(0)
    return real_media


@pytest.fixture(scope="module")
def film(real_media):
    return real_media.film


@pytest.fixture(scope="module")
def movie(tmp_path_factory) -> Path:
    """4 s of 24 fps video and 44.1 kHz stereo noise: a bright square moves over a dark ramp."""
    path = tmp_path_factory.mktemp("film") / "movie.mp4"
    sound = np.random.default_rng(0).normal(0, 0.1, (2, 4 * 44100)).astype(np.float32)
    with av.open(str(path), "w") as out:
        picture = out.add_stream("libx264", rate=24, options={"crf": "12", "preset": "ultrafast"})
        picture.width, picture.height, picture.pix_fmt = 96, 64, "yuv420p"
        # Without noise substitution and intensity stereo, which would tie the channels together.
        options = {"aac_pns": "0", "aac_is": "0"}
        track = out.add_stream("aac", rate=44100, layout="stereo", options=options)
        track.bit_rate = 320_000
        for index in range(96):
            pixels = np.repeat(np.arange(96, dtype=np.uint8)[None, :, None], 64, 0).repeat(3, 2)
            left = 16 + index % 48
            pixels[20:36, left : left + 16] = 230
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 24)
            out.mux(picture.encode(frame))
        for first in range(0, sound.shape[1], 1024):
            chunk = np.ascontiguousarray(sound[:, first : first + 1024])
            frame = av.AudioFrame.from_ndarray(chunk, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = 44100, first, Fraction(1, 44100)
            out.mux(track.encode(frame))
        out.mux(picture.encode(None))
        out.mux(track.encode(None))
    return path


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    """The folder of a tiny untrained model."""
    from syncflow.config import ModelConfig
    from syncflow.model_io import model_folder
    from syncflow.models.ddit import DDiT
    from syncflow.models.vae import build_audio_vae, build_video_vae

    video = dict(
        hidden_size=16, depth=1, num_heads=2, in_channels=4, caption_channels=16,
        model_max_length=8, pred_sigma=False,
    )  # fmt: skip
    audio = dict(
        hidden_size=16, num_heads=2, in_channels=6, condition="both", upsampler_patches=4,
        upsampler_width=16,
    )  # fmt: skip
    config = ModelConfig.parse(
        {
            "name": "toy",
            "geometry": {"height": 32, "width": 32},
            "ddit": {"video": video, "adaptor": {"num_heads": 2}, "audio": audio},
            "video_vae": dict(kind="patch", latent_channels=4, width=8, depth=1),
            "audio_vae": dict(kind="spectral", latent_channels=6, width=16, depth=1, oscillators=8),
            "text_encoder": dict(kind="t5", name_or_path="none", max_length=8, d_model=16),
        }
    )
    torch.manual_seed(0)
    parts = {
        "ddit": DDiT(config.ddit),
        "video_vae": build_video_vae(config.video_vae),
        "audio_vae": build_audio_vae(config.audio_vae),
    }
    return model_folder.save(tmp_path_factory.mktemp("models") / "toy", config, parts)


class Unchanged:
    """What a perfect VAE would be."""

    def reconstruct(self, clip: Clip) -> Clip:
        return clip


def test_a_file_of_another_rate_goes_through_and_fills_the_page(
    real_media, movie, toy, tmp_path, capsys
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{MARKS}\nafter\n")
    options = ["--file", movie, "--model", toy, "--out", tmp_path / "out", "--page", page]
    options += ["--sizes", 32, 48, "--starts", 0, 1.37, "--impacts", 2, "--keep", tmp_path / "mp4"]
    assert real_media.main(list(map(str, options))) == 0, capsys.readouterr().err
    result = json.loads((tmp_path / "out/real_media.json").read_text())
    assert len(result["rows"]) == 2 * (2 + 2) and all(row["ok"] for row in result["rows"])
    for row in result["rows"]:
        assert (row["frames"], row["samples"]) == (32, 96000)
        assert abs(row["file_lag_ms"]) < 0.1 and abs(row.get("load_lag_ms", 0)) < 0.1
    assert [row["passed"] for row in result["summary"]] == [2, 2, 2, 2]
    assert result["facts"]["film"] == "movie.mp4, 96x64 at 24 fps, 44100 Hz x 2"
    text = page.read_text()
    assert text.startswith("before\n<!--") and text.endswith("-->\nafter\n") and "old" not in text
    assert "| film | 48 |" in text and "| impacts | 32 |" in text and "(real_media.png)" in text
    assert 1000 < (tmp_path / "real_media.png").stat().st_size <= real_media.SHEET_BYTES
    kept = sorted((tmp_path / "mp4").iterdir())
    assert len(kept) == 8 and media.probe(kept[0]).frames == 32


def test_windows_are_where_they_are_asked_for(real_media, movie) -> None:
    track = real_media.soundtrack(movie)
    assert abs(track[0].std() - 0.1 / 2**0.5) < 0.005  # the mean of two independent channels
    ((clip, facts),) = real_media.load_windows(movie, [1.25], 64, track)
    assert abs(facts["load_lag_ms"]) < 0.05 and facts["start_s"] == 1.25
    assert abs(facts["load_gain_db"]) < 0.5  # a mix that adds channels up is 3 dB too loud
    # At 1.25 s + i / 16 the film shows frame 30 + 1.5 i, whose square begins 16 + index % 48 px
    # from the left, of which the crop to the middle takes 16.
    for i in (0, 2, 10):
        bright = (clip.video[i, :, 28].float().mean(0) > 160).nonzero().flatten()
        assert abs(int(bright[0]) - (30 + 3 * i // 2) % 48) <= 1
    wrong = (track[0] / 2, track[1] + 0.02)
    ((_, other),) = real_media.load_windows(movie, [1.25], 64, wrong)
    assert abs(other["load_lag_ms"]) == pytest.approx(20, abs=0.1)
    assert other["load_gain_db"] - facts["load_gain_db"] == pytest.approx(6, abs=0.2)


def test_a_perfect_vae_scores_high_and_a_late_sound_is_caught(real_media, movie, tmp_path) -> None:
    clip = Clip.load(movie, start=0.5, seconds=2, height=64, width=64)
    numbers, again = real_media.measure(Unchanged(), clip, tmp_path / "a.mp4")
    assert numbers["ok"] and numbers["psnr"] > 35 and numbers["psnr_moving"] > 30
    assert abs(numbers["loudness_change_db"]) < 1
    assert real_media.loudness(torch.full((100,), 0.1)) == pytest.approx(-20, abs=0.01)
    for late in (48, 480):
        moved = torch.roll(clip.audio, late)
        assert real_media.sound_lag_ms(clip.audio, moved, 48000) == pytest.approx(late / 48)
        assert real_media.sound_lag_ms(moved, clip.audio, 48000) == pytest.approx(-late / 48)
    assert real_media.picture_lag_ms(clip.video, torch.roll(clip.video, 2, 0), 16) == 125
    assert real_media.picture_lag_ms(clip.video, clip.video.clone(), 16) == 0
    still = clip.video[:1].expand(32, -1, -1, -1)
    assert real_media.picture_lag_ms(still, still, 16) == 0
    silent = Clip(still, torch.zeros(96000))
    numbers, _ = real_media.measure(Unchanged(), silent, tmp_path / "b.mp4")
    assert numbers["ok"] and np.isnan(numbers["psnr_moving"])


class Short(Unchanged):
    """Loses half a second of picture and sound."""

    def reconstruct(self, clip: Clip) -> Clip:
        return Clip(clip.video[:24], clip.audio[:72000], clip.fps, clip.sample_rate)


def test_a_wrong_length_is_counted_and_ends_with_code_1(
    real_media, movie, tmp_path, monkeypatch, capsys
) -> None:
    loaded = (Short(), {"model": "x"})
    monkeypatch.setattr(real_media.provenance, "load_model", lambda model: loaded)
    options = ["--file", movie, "--out", tmp_path, "--sizes", 32, "--starts", 0.5, "--impacts", 0]
    assert real_media.main(list(map(str, options))) == 1
    assert "1 of 1 clips" in capsys.readouterr().err
    assert "| film | 32 | - | - | - |" in (tmp_path / "real_media.md").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sizes", "65"], ["65", "64"]),
        (["--sizes", "big"], ["big", "--help"]),
        (["--model", "nowhere"], ["nowhere"]),
        (["--file", "no.mp4"], ["no.mp4"]),
        (["--starts", "3.5"], ["movie.mp4", "4.00 s"]),
        (["--page", "plain.md"], ["plain.md", "no place"]),
        (["--out", "plain.md"], ["plain.md"]),
    ],
)
def test_mistakes_are_one_line_and_code_2(
    real_media, movie, toy, tmp_path, monkeypatch, capsys, options, words
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plain.md").write_text("nothing\n")
    given = ["--file", str(movie), "--model", str(toy), "--out", "out", "--sizes", "32"]
    assert real_media.main([*given, *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("real_media: error: ") and error.count("\n") == 1
    assert all(word in error for word in words), error
    assert Path("plain.md").read_text() == "nothing\n"


def test_without_the_package_index_the_script_says_so(toy, tmp_path) -> None:
    empty = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, ROOT / "benchmarks/real_media.py", "--model", toy]
    command += ["--cache", tmp_path / "cache", "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **empty})
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "moviepy==2.2.1" in done.stderr
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_film_is_taken_out_of_the_archive_and_checked(film, tmp_path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("moviepy_10_minutes/resources/bbb.mp4", b"film")
    sdist = tmp_path / "moviepy-2.2.1.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        member = tarfile.TarInfo("moviepy-2.2.1/docs/moviepy_10_minutes.zip")
        member.size = len(inner.getvalue())
        archive.addfile(member, io.BytesIO(inner.getvalue()))
    target = tmp_path / "cache" / "big_buck_bunny.mp4"
    target.parent.mkdir()
    with pytest.raises(ValueError, match="SHA-256"):
        film.extract(sdist, target)
    assert list(target.parent.iterdir()) == [] and film.cached(target.parent) is None
    good = hashlib.sha256(b"film").hexdigest()
    assert film.extract(sdist, target, good).read_bytes() == b"film"
    assert film.cached(target.parent) is None  # another file than the film is never taken for it


@pytest.mark.slow
def test_the_film_itself(real_media, film, toy, tmp_path, capsys) -> None:
    path = film.cached()
    if path is None:
        pytest.skip("the film is not in the cache: run benchmarks/real_media.py once")
    options = ["--model", toy, "--out", tmp_path, "--sizes", 64, "--impacts", 0]
    options += ["--starts", real_media.STARTS[0], real_media.STARTS[-1]]
    assert real_media.main(list(map(str, options))) == 0, capsys.readouterr().err
    rows = json.loads((tmp_path / "real_media.json").read_text())["rows"]
    assert len(rows) == 2 and all(row["ok"] for row in rows)
    assert len(real_media.STARTS) == 10
    assert all(480 <= start <= 588 for start in real_media.STARTS)
