"""Files written and read back: lengths, times, colours, and every kind of broken input."""

import os
import subprocess
import sys
import wave
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from syncflow.data import media

av = pytest.importorskip("av")

FLASHES = (0, 8, 20, 31)


@pytest.fixture
def clip() -> tuple[torch.Tensor, torch.Tensor]:
    """White frames and clicks at the same moments, over a grey ramp and a little noise."""
    video = torch.linspace(20, 90, 64).to(torch.uint8).expand(32, 3, 48, 64).clone()
    audio = 0.002 * torch.randn(96000, generator=torch.Generator().manual_seed(0))
    for frame in FLASHES:
        video[frame] = 255
        audio[frame * 3000] = 0.9
    return video, audio


def flashes(video: torch.Tensor) -> list[int]:
    return (video.float().mean((1, 2, 3)) > 200).nonzero().flatten().tolist()


def clicks(audio: torch.Tensor) -> list[int]:
    """The loudest sample within 50 ms of every click."""
    found = []
    for frame in FLASHES:
        first = max(0, frame * 3000 - 2400)
        found.append(first + int(audio[first : frame * 3000 + 2400].abs().argmax()))
    return found


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "webm"])
def test_round_trip_keeps_every_length_and_time(clip, tmp_path, ending) -> None:
    video, audio = clip
    path = media.write(tmp_path / f"a.{ending}", video, audio)
    assert list(tmp_path.iterdir()) == [path]
    video2, audio2 = media.read(path)
    assert video2.shape == video.shape and video2.dtype == torch.uint8
    assert audio2.shape == audio.shape and audio2.dtype == torch.float32
    assert flashes(video2) == list(FLASHES)
    lags = [a - f * 3000 for a, f in zip(clicks(audio2), FLASHES, strict=True)]
    assert max(map(abs, lags)) <= 4  # 0.1 ms
    assert (video2.int() - video.int()).abs().max() <= 12
    assert (video2.int() - video.int()).abs().float().mean() <= 2


@pytest.mark.parametrize("ending", ["mp4", "mov"])
@pytest.mark.parametrize("samples", [96000, 95744, 95999, 700])
def test_a_plain_decoder_sees_exactly_what_was_written(clip, tmp_path, ending, samples) -> None:
    video, audio = clip
    path = media.write(tmp_path / f"a.{ending}", video, audio[:samples])
    with av.open(str(path)) as source:
        picture, sound = source.streams.video[0], source.streams.audio[0]
        assert picture.frames == 32 and picture.average_rate == 16
        assert picture.duration * picture.time_base == 2
        assert picture.codec_context.name == "h264" and picture.pix_fmt == "yuv420p"
        assert sound.rate == 48000 and sound.channels == 1 and sound.codec_context.name == "aac"
        assert sound.duration * sound.time_base == Fraction(samples, 48000)
        assert sum(frame.samples for frame in source.decode(sound)) == samples
    with av.open(str(path)) as source:
        times = [frame.pts * frame.time_base for frame in source.decode(video=0)]
    assert times == [Fraction(index, 16) for index in range(32)]
    body = path.read_bytes()
    assert b"elst" in body and b"moof" not in body


def test_small_pictures_give_the_same_bytes_every_time(tmp_path) -> None:
    video = (torch.arange(8 * 3 * 32 * 32) % 251).to(torch.uint8).view(8, 3, 32, 32)
    audio = torch.zeros(24000)
    first = media.write(tmp_path / "a.mp4", video, audio).read_bytes()
    for number in range(60):  # other buffers, other addresses
        keep = [bytearray(97 * number) for _ in range(7)]
        assert media.write(tmp_path / "b.mp4", video, audio).read_bytes() == first, len(keep)


def test_same_input_same_bytes_in_another_process(tmp_path) -> None:
    code = (
        "import sys, torch; from syncflow.data import media\n"
        "v = (torch.arange(8 * 3 * 32 * 32) % 251).to(torch.uint8).view(8, 3, 32, 32)\n"
        "media.write(sys.argv[1], v, torch.linspace(-1, 1, 24000).sin())"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(media.__file__).parents[2])}
    there, here = tmp_path / "there.mp4", tmp_path / "here.mp4"
    subprocess.run([sys.executable, "-c", code, there], check=True, env=environment)
    video = (torch.arange(8 * 3 * 32 * 32) % 251).to(torch.uint8).view(8, 3, 32, 32)
    media.write(here, video, torch.linspace(-1, 1, 24000).sin())
    assert here.read_bytes() == there.read_bytes()


def test_colours_come_back(tmp_path) -> None:
    generator = torch.Generator().manual_seed(1)
    colours = torch.randint(0, 256, (16, 3, 1, 1), generator=generator, dtype=torch.uint8)
    video = colours.expand(16, 3, 32, 32)
    path = media.write(tmp_path / "a.mp4", video, None)
    video2, audio2 = media.read(path)
    assert audio2 is None
    assert (video2.int() - video.int()).abs().max() <= 4


def encode(
    path: Path,
    times: list[Fraction],
    height: int = 48,
    width: int = 64,
    matrix: int = 1,
    tag: int | None = None,
    aspect: Fraction | None = None,
    turn: int = 0,
    tone: tuple[int, str, Fraction] | None = None,
) -> None:
    """A foreign file: frame i is grey 10 * i with its right half green, shown at ``times[i]``;
    ``tone`` is (rate, layout, start): sound that clicks half a second after its start."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=24, options={"crf": "8", "bf": "2"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 24000)
        if tag is not None:
            stream.codec_context.colorspace = tag
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if turn:
            stream.set_display_rotation(turn)
        packets = []
        if tone is not None:
            rate, layout, start = tone
            sound = out.add_stream("aac", rate=rate, layout=layout)
        for index, time in enumerate(times):
            pixels = np.full((height, width, 3), 10 * index, np.uint8)
            pixels[:, width // 2 :] = (10, 220, 30)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=matrix)
            frame.pts, frame.time_base = int(time * 24000), Fraction(1, 24000)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        if tone is not None:
            channels = sound.codec_context.layout.nb_channels
            samples = np.zeros((channels, 2 * rate), np.float32)
            samples[:, rate // 2] = 0.9
            for first in range(0, 2 * rate, 1024):
                chunk = np.ascontiguousarray(samples[:, first : first + 1024])
                frame = av.AudioFrame.from_ndarray(chunk, format="fltp", layout=layout)
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = first + int(start * rate)
                packets += sound.encode(frame)
            packets += sound.encode(None)
        packets.sort(key=lambda packet: packet.dts * packet.time_base)
        out.mux(packets)


def greys(video: torch.Tensor) -> list[int]:
    width = video.shape[3]
    return (video[:, 0, :, : width // 4].float().mean((1, 2)) / 10).round().int().tolist()


def test_variable_rate_takes_the_nearest_picture(tmp_path) -> None:
    times = [Fraction(t, 100) for t in (0, 4, 8, 30, 55, 60, 80, 100)]
    encode(tmp_path / "a.mkv", times)
    video, _ = media.read(tmp_path / "a.mkv", fps=10, seconds=1.0)
    # The nearest, but none that comes more than half a frame later.
    grid = [Fraction(t, 10) for t in range(10)]
    wanted = [
        min((abs(time - t), i) for i, time in enumerate(times) if time <= t + Fraction(1, 20))[1]
        for t in grid
    ]
    assert greys(video) == wanted


@pytest.mark.parametrize("layout", ["stereo", "5.1"])
def test_other_rates_and_layouts(tmp_path, layout) -> None:
    encode(
        tmp_path / "a.mp4", [Fraction(i, 24) for i in range(24)], tone=(44100, layout, Fraction(0))
    )
    video, audio = media.read(tmp_path / "a.mp4", fps=12, seconds=1.0, height=32, width=32)
    assert video.shape == (12, 3, 32, 32) and audio.shape == (48000,)
    assert greys(video[:, :, :, :16]) == list(range(0, 24, 2))
    assert abs(int(audio.abs().argmax()) - 24000) < 24  # half a millisecond


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize(("picture", "sound"), [("0", "0.3"), ("0.25", "0")])
def test_streams_that_start_apart_stay_apart(tmp_path, ending, picture, sound) -> None:
    shift = Fraction(picture)
    encode(
        tmp_path / f"a.{ending}",
        [shift + Fraction(i, 24) for i in range(24)],
        tone=(48000, "mono", Fraction(sound)),
    )
    video, audio = media.read(tmp_path / f"a.{ending}", fps=24)
    assert greys(video)[:5] == [0, 1, 2, 3, 4]
    click = (Fraction(sound) + Fraction(1, 2) - shift) * 48000
    assert abs(int(audio.abs().argmax()) - click) < 48  # one millisecond


def test_windows_are_cut_by_time(clip, tmp_path) -> None:
    video, audio = clip
    for ending in ("mp4", "mkv", "webm"):
        path = media.write(tmp_path / f"a.{ending}", video.repeat(3, 1, 1, 1), audio.repeat(3))
        whole_video, whole_audio = media.read(path)
        part_video, part_audio = media.read(path, start=2.5, seconds=1.5)
        assert torch.equal(part_video, whole_video[40:64])
        assert torch.equal(part_audio, whole_audio[120000:192000])


def test_a_far_window_is_reached_by_seeking(tmp_path) -> None:
    video = torch.zeros(30 * 16, 3, 16, 16, dtype=torch.uint8)
    video[400] = 255
    audio = torch.zeros(30 * 48000)
    audio[400 * 3000] = 0.9
    for ending in ("mp4", "mkv", "webm"):
        path = media.write(tmp_path / f"a.{ending}", video, audio)
        video2, audio2 = media.read(path, start=24.5, seconds=2.0)
        assert flashes(video2) == [8]
        assert abs(int(audio2.abs().argmax()) - 24000) < 48


@pytest.mark.parametrize(
    ("tag", "matrix", "height"), [(1, 1, 48), (6, 5, 48), (None, 5, 48), (None, 1, 720)]
)
def test_colour_tags_and_their_absence(tmp_path, tag, matrix, height) -> None:
    width = 64 if height == 48 else 1280
    encode(tmp_path / "a.mp4", [Fraction(0), Fraction(1, 24)], height, width, matrix, tag)
    video, _ = media.read(tmp_path / "a.mp4", fps=24)
    green = video[0, :, height // 2, -4].int()
    assert (green - torch.tensor([10, 220, 30])).abs().max() <= 5


def test_pixel_aspect_and_rotation(tmp_path) -> None:
    times = [Fraction(i, 24) for i in range(3)]
    encode(tmp_path / "wide.mp4", times, height=64, width=32, aspect=Fraction(2))
    video, _ = media.read(tmp_path / "wide.mp4", height=32, width=32)
    assert 14 <= int((video[0, 1, 16] < 110).sum()) <= 18  # shown square: nothing is cropped
    encode(tmp_path / "turned.mp4", times, turn=90)
    video, _ = media.read(tmp_path / "turned.mp4")
    assert video.shape[2:] == (64, 48)
    assert video[0, 1, 4, 24] > 200 and video[0, 1, -4, 24] < 20  # the right half is now on top
    video, _ = media.read(tmp_path / "turned.mp4", height=40, width=30)
    assert video.shape[2:] == (40, 30) and video[0, 1, 4, 15] > 200


def test_probe(clip, tmp_path) -> None:
    info = media.probe(media.write(tmp_path / "a.mp4", *clip))
    assert (info.seconds, info.fps, info.width, info.height, info.frames) == (2, 16, 64, 48, 32)
    assert (info.video_codec, info.audio_codec, info.sample_rate) == ("h264", "aac", 48000)
    info = media.probe(media.write(tmp_path / "b.webm", clip[0], None, fps=30000 / 1001))
    assert (info.video_codec, info.audio_codec, info.sample_rate) == ("vp9", None, None)
    assert info.fps == pytest.approx(29.97, abs=0.05)


def test_wav(clip, tmp_path) -> None:
    path = media.write_wav(tmp_path / "a.wav", clip[1], 48000)
    with wave.open(str(path)) as source:
        assert source.getparams()[:4] == (1, 2, 48000, 96000)
        samples = np.frombuffer(source.readframes(96000), "<i2") / 32767
    assert np.abs(samples - clip[1].clamp(-1, 1).numpy()).max() < 1e-4


def test_unreadable_files_say_why(clip, tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file: .*gone.mp4"):
        media.read(tmp_path / "gone.mp4")
    (tmp_path / "text.mp4").write_text("not a film")
    with pytest.raises(ValueError, match="not a media file"):
        media.read(tmp_path / "text.mp4")
    with pytest.raises(ValueError, match="is a folder"):
        media.read(tmp_path)
    media.write_wav(tmp_path / "sound.wav", clip[1])
    with pytest.raises(ValueError, match="has no video stream"):
        media.read(tmp_path / "sound.wav")
    whole = media.write(tmp_path / "a.mp4", *clip)
    with pytest.raises(ValueError, match=r"lasts 2\.00 s"):
        media.read(whole, start=1.0, seconds=2.0)
    with pytest.raises(ValueError, match=r"lasts 2\.00 s"):
        media.read(whole, start=7.0)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "webm"])
def test_truncated_files_are_refused(clip, tmp_path, ending) -> None:
    body = media.write(tmp_path / f"a.{ending}", *clip).read_bytes()
    cut = tmp_path / f"cut.{ending}"
    for share in (0.02, 0.3, 0.6):
        cut.write_bytes(body[: int(len(body) * share)])
        with pytest.raises(ValueError, match="cut"):
            media.read(cut)
