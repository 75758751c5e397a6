"""The parts of reading and copying that need films longer or stranger than those of the zoo."""

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from syncflow.data import media
from syncflow.data.film.mono import mono
from syncflow.data.prepare import plan
from syncflow.data.prepare.sources import Source
from tests.ffmpeg_films import run

pytest.importorskip("imageio_ffmpeg")

#: 40 s at 10 pictures a second; the number of each is its grey, the sound clicks every second.
LONG = (
    "-f lavfi -i color=black:s=32x32:r=10:d=40,format=gray,geq=lum='16+mod(N,20)*10' "
    "-f lavfi -i aevalsrc='if(lt(mod(t,1),0.01),0.5*sin(6283*t),0)':d=40:s=48000 "
    "-c:v libx264 -preset ultrafast -crf 10 -pix_fmt yuv420p"
)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("long.ts", "-g 150 -c:a aac"),
        ("one_keyframe.ts", "-g 1000 -c:a aac"),
        ("long.mkv", "-g 50 -bf 2 -c:a flac"),
        ("long.mp4", "-g 50 -bf 2 -c:a aac"),
    ],
)
def test_a_far_window_shows_what_a_read_from_the_start_shows(tmp_path, name, options) -> None:
    run(*LONG.split(), *options.split(), name, cwd=tmp_path)
    whole, sound = media.read(tmp_path / name, fps=10)
    assert len(whole) == 400
    for start in (25.0, 33.3, 38.9):
        video, audio = media.read(tmp_path / name, fps=10, start=start, seconds=1.0)
        first = round(start * 10)
        assert torch.equal(video, whole[first : first + 10]), start
        expected = sound[round(start * 48000) :][: len(audio)]
        assert (audio - expected).abs().max() < 0.02, start


def test_a_last_picture_of_a_moment_is_kept(tmp_path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=60)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for grey, time in ((20, 0), (120, 60), (220, 120)):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), grey, np.uint8))
            frame.pts, frame.time_base = time, Fraction(1, 60)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    video, _ = media.read(tmp_path / "a.mp4", fps=16)
    greys = (video.float().mean((1, 2, 3)) / 100).round().int().tolist()
    assert greys == [0] * 16 + [1] * 16 + [2]


LAYOUTS = {
    "mono": [1], "stereo": [0.5, 0.5], "3.0": [0.7071, 0.7071, 1], "quad": [0.7071] * 2 + [0.5] * 2,
    "5.1": [0.7071, 0.7071, 1, 0, 0.5, 0.5], "7.1": [0.7071, 0.7071, 1, 0, 0.5, 0.5, 0.5, 0.5],
}  # fmt: skip


def frames(layout: str, samples: np.ndarray) -> list:
    out = []
    for first in range(0, samples.shape[1], 1024):
        part = np.ascontiguousarray(samples[:, first : first + 1024].T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(part, format="flt", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = 48000, first, Fraction(1, 48000)
        out.append(frame)
    return out


@pytest.mark.parametrize("layout", LAYOUTS)
def test_channels_are_mixed_by_their_places_and_cannot_clip(layout) -> None:
    weights = np.array(LAYOUTS[layout])
    for channel, weight in enumerate(weights):
        samples = np.zeros((len(weights), 4096), np.float32)
        samples[channel] = 0.8
        got = mono(frames(layout, samples), 48000)
        assert abs(got[2000] - 0.8 * weight / weights.sum()) < 1e-3
    loudest = np.ones((len(weights), 4096), np.float32)
    assert abs(mono(frames(layout, loudest), 48000)).max() <= 1.001


def test_channels_without_places_are_averaged() -> None:
    samples = np.linspace(0, 0.9, 11, dtype=np.float32)[:, None].repeat(4096, 1)
    assert abs(mono(frames("11 channels", samples), 48000)[2000] - samples.mean()) < 1e-3


def test_eight_channels_do_not_end_the_process(tmp_path) -> None:
    run(*"-f lavfi -i testsrc=s=64x48:d=1 -f lavfi -i".split(),
        "aevalsrc=" + "|".join(["0.1*sin(999*t)"] * 8) + ":c=7.1:d=1",
        *"-c:v libx264 -c:a flac a.mkv".split(), cwd=tmp_path)  # fmt: skip
    code = "import sys; from syncflow.data import media; media.read(sys.argv[1])"
    environment = {**os.environ, "PYTHONPATH": str(Path(media.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a.mkv"], env=environment)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("name", "options", "tag"),
    [
        ("a.mov", "-c:v prores_ks -profile:v 4444 -pix_fmt yuv444p10le", "ap4h"),
        ("b.mov", "-c:v prores_ks -profile:v proxy", "apco"),
        ("a.mp4", "-c:v libx264 -pix_fmt yuv420p -tag:v avc3", "avc3"),
        ("b.mp4", "-c:v libx265 -preset ultrafast -x265-params log-level=none -tag:v hvc1", "hvc1"),
        ("c.mp4", "-c:v libx265 -preset ultrafast -x265-params log-level=none -tag:v hev1", "hev1"),
    ],
)
def test_a_copy_keeps_the_codecs_tag_and_the_shape_of_pixels(tmp_path, name, options, tag) -> None:
    make = f"-f lavfi -i testsrc=s=64x48:d=0.5:r=24 -vf setsar=3/2 {options} {name}"
    run(*make.split(), cwd=tmp_path)
    out = media.add_sound(tmp_path / f"out_{name}", tmp_path / name, torch.zeros(24000))
    with av.open(str(tmp_path / name)) as before, av.open(str(out)) as after:
        old, new = before.streams.video[0], after.streams.video[0]
        assert old.codec_context.codec_tag == new.codec_context.codec_tag == tag
        assert new.sample_aspect_ratio == old.sample_aspect_ratio == Fraction(3, 2)
        assert new.pix_fmt == old.pix_fmt


def test_advice_names_a_container_that_takes_the_film(tmp_path) -> None:
    run(*"-f lavfi -i testsrc=s=64x48:d=0.5:r=24 -c:v libvpx a.webm".split(), cwd=tmp_path)
    with pytest.raises(ValueError, match=r"a \.mp4 file cannot .* ends in (\.\w+)$") as told:
        media.check_copy(tmp_path / "out.mp4", tmp_path / "a.webm")
    ending = str(told.value).rpartition(" ")[2]
    media.add_sound(tmp_path / f"out{ending}", tmp_path / "a.webm", torch.zeros(24000))


def test_wrong_lengths_plan_no_thousands_of_segments(tmp_path) -> None:
    """100,000 s between two pictures, or 5,000: segments of two seconds were planned for them."""
    sources = []
    for name, gap in (("far.mkv", 100000), ("near.mp4", 5000), ("one.mp4", 0)):
        change = f"setpts='PTS+gte(N,20)*{gap}/TB'"
        run(*"-f lavfi -i testsrc=s=64x48:r=24:d=2 -vf".split(), change,
            *"-fps_mode passthrough -c:v libx264".split(), name, cwd=tmp_path)  # fmt: skip
        sources.append(Source(name, caption="x"))
    made = plan.make(sources, tmp_path, tmp_path, 1.0, 2.0, 4, None, 0)
    assert [segment.file for segment in made.segments] == ["far.mkv", "near.mp4", "one.mp4"]
    for name in ("far.mkv", "near.mp4"):
        for reads in (media.read, media.probe):
            with pytest.raises(ValueError, match="timestamps are damaged"):
                reads(tmp_path / name)


def test_a_last_picture_of_no_length_does_not_read_for_ever(tmp_path) -> None:
    """Its end, by the header, is before the last picture that was already given out."""
    run(*"-f lavfi -i testsrc=s=64x48:r=4:d=2 -c:v libx264 base.mp4".split(), cwd=tmp_path)
    data = bytearray((tmp_path / "base.mp4").read_bytes())
    at = data.index(b"stts") + 8  # how many runs; pictures and ticks of the first one
    assert int.from_bytes(data[at : at + 4], "big") == 1
    data[at + 8 : at + 12] = (0).to_bytes(4, "big")
    (tmp_path / "a.mp4").write_bytes(data)
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))\n"
        "from syncflow.data import media\n"
        "try: print(len(media.read(sys.argv[1], fps=60)[0]))\nexcept ValueError as e: print(e)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(media.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.mp4"], env=environment, timeout=100,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and len(done.stdout) < 200, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("size", ["1920x1080", "3840x2160"])
def test_two_seconds_of_an_hour_take_little_memory(tmp_path, size) -> None:
    """Read at the model's size, and copied with a new sound."""
    run(*f"-f lavfi -i testsrc=s={size}:r=24:d=4 -f lavfi -i sine=d=4 -c:v libx264".split(),
        *"-preset ultrafast -crf 35 -pix_fmt yuv420p -g 48 -bf 2 -c:a aac base.mp4".split(),
        cwd=tmp_path)  # fmt: skip
    run(*"-stream_loop 899 -i base.mp4 -c copy hour.mp4".split(), cwd=tmp_path)
    code = (
        "import resource, sys, torch\nfrom syncflow.data import media\nimport av\n"
        "from syncflow.generation import request\nfrom syncflow.clip import ClipSpec\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "before = peak()\n"
        "given, _ = request.given_videos(sys.argv[1], 1, ClipSpec(2, 16, 64, 64), 2.0)\n"
        "assert given[0].frames.shape == (32, 3, 64, 64)\n"
        "media.check_copy(sys.argv[2], sys.argv[1], 2.0)\n"
        "media.add_sound(sys.argv[2], sys.argv[1], torch.zeros(96000), until=2.0)\n"
        "print(peak() - before)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(media.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "hour.mp4", tmp_path / "out.mp4"],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 400
    assert media.probe(tmp_path / "out.mp4").seconds == pytest.approx(2, abs=0.01)


def test_an_avi_that_lost_its_end_is_refused(tmp_path) -> None:
    run(*"-f lavfi -i testsrc=s=64x48:d=2 -c:v mpeg4 whole.avi".split(), cwd=tmp_path)
    data = bytearray((tmp_path / "whole.avi").read_bytes())
    (tmp_path / "short.avi").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(ValueError, match="cut short"):
        media.read(tmp_path / "short.avi")

    data[4:8] = bytes(4)  # a recorder that was switched off states no length
    (tmp_path / "open.avi").write_bytes(data[: len(data) * 2 // 3])
    assert len(media.read(tmp_path / "open.avi")[0]) < len(media.read(tmp_path / "whole.avi")[0])


@pytest.mark.parametrize("count", [1, 2])
def test_a_film_of_a_moment_is_copied(tmp_path, count) -> None:
    """Its pictures only leave the decoder at the end."""
    words = f"-f lavfi -i testsrc=s=64x48:r=24 -frames:v {count} -c:v libx264 -bf 2 a.mp4"
    run(*words.split(), cwd=tmp_path)
    out = media.add_sound(tmp_path / "b.mp4", tmp_path / "a.mp4", torch.zeros(4800))
    assert torch.equal(media.read(out, 24)[0], media.read(tmp_path / "a.mp4", 24)[0])
