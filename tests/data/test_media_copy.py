"""A picture copied from file to file bit for bit, with a new sound beside it."""

import hashlib
import math
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch

from syncflow.data import media
from syncflow.data.film import copying

RATE = 48000


def film(path, codec="libx264", fps=Fraction(25), frames=50, start=0, options=None, sound=True):
    """A file of another program's: B-frames, a late first picture, a sound of its own."""
    with av.open(str(path), "w") as out:
        picture = out.add_stream(codec, rate=fps, options=options or {"bf": "2", "g": "12"})
        picture.height, picture.width, picture.pix_fmt = 48, 64, "yuv420p"
        noise = out.add_stream("aac" if path.suffix != ".webm" else "libopus", rate=RATE)
        for index in range(frames):
            pixels = np.full((48, 64, 3), 40, np.uint8)
            pixels[:, (2 * index) % 60 : (2 * index) % 60 + 4] = 250
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index + start, 1 / fps
            out.mux(picture.encode(frame))
        out.mux(picture.encode(None))
        if sound:
            samples = np.random.default_rng(0).uniform(-0.1, 0.1, (1, 4800)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate = RATE
            for part in (*noise.encode(frame), *noise.encode(None)):
                out.mux(part)
    return path


def packets(path) -> list[str]:
    with av.open(str(path)) as source:
        parts = [bytes(p) for p in source.demux(source.streams.video[0]) if p.size]
    return [hashlib.sha256(part).hexdigest() for part in parts]


def shown(path) -> tuple[list[float], list[np.ndarray]]:
    """Times since the first picture, and pictures."""
    with av.open(str(path)) as source:
        frames = list(source.decode(video=0))
    first = frames[0].time
    return [f.time - first for f in frames], [f.to_ndarray(format="rgb24") for f in frames]


def click(seconds: float, at: float) -> torch.Tensor:
    audio = torch.zeros(round(seconds * RATE))
    audio[round(at * RATE) :][:480] = torch.sin(torch.arange(480) * 2 * math.pi * 3000 / RATE)
    return audio * 0.5


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plain.mp4", {}),
        ("ntsc.mp4", dict(fps=Fraction(30000, 1001), frames=60)),
        ("late.mkv", dict(start=7)),
        ("vp9.webm", dict(codec="libvpx-vp9", frames=20, options={"deadline": "realtime"})),
        ("silent.mov", dict(sound=False)),
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_every_picture_is_the_same_at_the_same_time(tmp_path, name, options, suffix) -> None:
    source = film(tmp_path / name, **options)
    times, pictures = shown(source)
    audio = click(len(times) / 25, at=0.4)
    out = media.add_sound(tmp_path / f"out{suffix}", source, audio, RATE)
    assert packets(out) == packets(source)
    new_times, new_pictures = shown(out)
    assert np.abs(np.array(times) - new_times).max() < 2e-3
    assert all((a == b).all() for a, b in zip(pictures, new_pictures, strict=True))
    # The sound begins with the first picture: to the sample in mp4, to a millisecond in mkv.
    _, heard = media.read(out, fps=25)
    begin = int((heard.abs() > 0.1).nonzero()[0])
    assert abs(begin - 0.4 * RATE) < (8 if suffix == ".mp4" else 56)


def test_a_part_is_cut_without_encoding(tmp_path) -> None:
    source = film(tmp_path / "in.mp4", frames=50)
    out = media.add_sound(tmp_path / "out.mp4", source, click(1.0, 0.2), until=1.0)
    whole, part = packets(source), packets(out)
    assert part == whole[: len(part)] and 25 <= len(part) <= 28
    pictures, kept = shown(source)[1], shown(out)[1]
    assert all((a == b).all() for a, b in zip(pictures[:25], kept[:25], strict=True))


def test_a_file_may_replace_its_source(tmp_path) -> None:
    source = film(tmp_path / "in.mp4")
    before = packets(source)
    media.add_sound(source, source, click(2.0, 0.2))
    assert packets(source) == before and sorted(tmp_path.iterdir()) == [source]


def test_what_a_format_cannot_hold_is_said_before_anything_is_written(tmp_path) -> None:
    source = film(tmp_path / "in.mp4")
    with pytest.raises(ValueError, match=r"webm file cannot hold h264 video.*\.mp4"):
        media.add_sound(tmp_path / "out.webm", source, click(2.0, 0.2))
    with pytest.raises(FileNotFoundError, match="no such file"):
        media.add_sound(tmp_path / "out.mp4", tmp_path / "gone.mp4", click(2.0, 0.2))
    assert sorted(tmp_path.iterdir()) == [source]


def test_a_film_of_which_no_picture_can_be_decoded_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(copying.decode, "pictures", lambda packets: iter(()))
    with pytest.raises(ValueError, match="no picture can be decoded"):
        copying._look(SimpleNamespace(demux=lambda track: iter(())), None)
