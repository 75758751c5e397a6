"""Clips as films, sounds, gifs and frames, with how they were made."""

import math
import os
import wave

import numpy as np
import pytest
import torch
from PIL import Image

from syncflow.clip import Clip
from syncflow.data import media
from syncflow.data.export import formats, loudness, player, scale, tags

av = pytest.importorskip("av")

MADE = {"syncflow": "0.1.0", "prompt": "Glas fällt: 'x' \"y\"\n\u4e2d <b>", "seed": 2**40 + 7}
NAMES = ["a.mp4", "a.mov", "a.m4v", "a.mkv", "a.webm", "a.wav", "a.flac", "a.gif", "%04d.png"]


@pytest.fixture
def clip() -> Clip:
    generator = torch.Generator().manual_seed(0)
    shade = torch.arange(16, dtype=torch.uint8)[:, None, None, None] * 15
    video = (shade + torch.arange(64, dtype=torch.uint8)).expand(16, 3, 32, 64).clone()
    audio = 0.3 * torch.randn(48000, generator=generator).clamp(-1, 1)
    return Clip(video, audio, prompt=MADE["prompt"], made=MADE)


@pytest.mark.parametrize("name", NAMES)
def test_every_file_tells_how_it_was_made(clip, tmp_path, name) -> None:
    assert clip.save(tmp_path / name) == tmp_path / name
    first = formats.files(tmp_path / name, 16)[0]
    assert tags.read(first) == MADE
    assert tags.facts(first)["title"] == (None if name == "a.gif" else MADE["prompt"])
    before = first.read_bytes()
    clip.save(tmp_path / name)
    assert first.read_bytes() == before  # same clip, same bytes
    clip.made = None
    clip.save(tmp_path / name)
    assert tags.read(first) is None


@pytest.mark.parametrize("name", NAMES)
def test_prompts_that_are_hardly_text_are_written(clip, tmp_path, name) -> None:
    clip.prompt = "nul\0, no text \udcff, " + "long " * 5000
    clip.made = {**MADE, "prompt": clip.prompt}
    path = clip.save(tmp_path / name)
    told = tags.read(formats.files(path, 16)[0])
    assert told["prompt"] == clip.prompt.replace("\udcff", "?")


def test_tags_leave_picture_and_sound_as_they_are(clip, tmp_path) -> None:
    told = media.read(clip.save(tmp_path / "told.mp4"))
    clip.made = None
    plain = media.read(clip.save(tmp_path / "plain.mp4"))
    assert torch.equal(told[0], plain[0]) and torch.equal(told[1], plain[1])
    media.write(tmp_path / "old.mp4", clip.video, clip.audio)
    assert (tmp_path / "old.mp4").read_bytes() == (tmp_path / "plain.mp4").read_bytes()


def test_a_copied_picture_gets_its_tags_too(clip, tmp_path) -> None:
    clip.picture_file = media.write(tmp_path / "given.mkv", clip.video, None)
    assert tags.read(clip.save(tmp_path / "out.mkv")) == MADE


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_sound_is_exact_to_16_bits(clip, tmp_path, name) -> None:
    clip.audio = clip.audio[:47001]  # no whole number of frames
    path = clip.save(tmp_path / name)
    with av.open(str(path)) as source:
        heard = np.concatenate([f.to_ndarray() for f in source.decode(audio=0)], axis=1)[0]
    assert heard.dtype == np.int16 and np.array_equal(heard, media.whole_samples(clip.audio))
    if name == "a.wav":
        with wave.open(str(path)) as plain:
            assert (plain.getnframes(), plain.getframerate()) == (47001, 48000)


def test_frames_are_exact_and_numbered_from_one(clip, tmp_path) -> None:
    clip.save(tmp_path / "f%d.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f"f{i}.png" for i in range(1, 17))
    seen = np.stack([np.asarray(Image.open(tmp_path / f"f{i + 1}.png")) for i in range(16)])
    assert np.array_equal(seen, clip.video.permute(0, 2, 3, 1).numpy())


def test_frames_of_a_longer_clip_do_not_stay_behind(clip, tmp_path) -> None:
    clip.save(tmp_path / "%02d.png")
    clip.video = clip.video[:15]
    with pytest.raises(ValueError, match=r"16\.png' is there already, and the clip has 15 frames"):
        clip.save(tmp_path / "%02d.png")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_frames_are_all_there_or_none(clip, tmp_path) -> None:
    (tmp_path / "09.png").mkdir()
    with pytest.raises(OSError):
        clip.save(tmp_path / "%02d.png")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == []


def test_a_gif_lasts_as_long_as_the_clip(clip, tmp_path) -> None:
    image = Image.open(clip.save(tmp_path / "a.gif"))
    times = []
    for index in range(image.n_frames):
        image.seek(index)
        times.append(image.info["duration"])
    assert sum(times) == 1000 and set(times) == {60, 70}  # 62.5 ms in hundredths of a second
    image.seek(3)
    seen = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(seen - clip.video[3].permute(1, 2, 0).numpy()).max() <= 8
    clip.fps = 60
    with pytest.raises(ValueError, match="at most 50 frames/s, the clip has 60"):
        clip.save(tmp_path / "b.gif")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.avi", r"must end in .*\.mkv, \.webm, \.wav, \.flac, \.gif, or be frames: frame-%04d"),
        ("a", "must end in"),
        ("a.png", "such as 'a-%04d.png'"),
        ("a%d%d.png", "is one picture"),
        ("a%0999999999d.png", "is one picture"),
        ("gone/a.wav", "there is no folder"),
        ("gone/%d.png", "there is no folder"),
        ("sub.gif", "it is a folder"),
    ],
)
def test_names_that_cannot_be_written(clip, tmp_path, monkeypatch, name, message) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub.gif").mkdir()
    with pytest.raises((ValueError, OSError), match=message):
        formats.check(name)
    with pytest.raises((ValueError, OSError), match=message):
        clip.save(name)
    assert [path.name for path in tmp_path.iterdir()] == ["sub.gif"]


def test_percent_signs_in_names_are_never_formatted(clip, tmp_path) -> None:
    folder = tmp_path / "100%d"
    folder.mkdir()
    clip.save(folder / "%s%n-%03d.png")
    assert (folder / "%s%n-001.png").exists()


@pytest.mark.parametrize(
    "comment", ["[1]", "{}", "{", "[" * 100000, '{"seed": 1}', None, b"{}", "nul\0"]
)
def test_a_comment_of_others_is_no_record(comment) -> None:
    assert tags.parse(comment) is None


@pytest.mark.parametrize("name", ["a.mp4", "a.wav", "a.flac", "a.gif", "a.png"])
def test_what_is_no_file_of_its_kind_is_said(tmp_path, name) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        tags.facts(tmp_path / name)
    (tmp_path / name).write_bytes(b"not at all" * 100)
    with pytest.raises(ValueError, match="is not a"):
        tags.facts(tmp_path / name)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / f"pipe-{name}")
        with pytest.raises(ValueError, match="is not a file"):
            tags.facts(tmp_path / f"pipe-{name}")


def test_enlarging_keeps_the_colour_of_small_things(tmp_path) -> None:
    """A red ball of 5 px on blue, in H.264's 4:2:0."""
    video = torch.zeros(16, 3, 64, 64, dtype=torch.uint8)
    video[:, 2] = 200
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    ball = (y - 31) ** 2 + (x - 30) ** 2 <= 6
    video[:, :, ball] = torch.tensor([220, 30, 30], dtype=torch.uint8)[:, None]

    def error(factor: int, filter: str) -> float:
        clip = Clip(scale.enlarge(video, factor, filter), torch.zeros(48000))
        seen, _ = media.read(clip.save(tmp_path / "a.mp4"))
        small = torch.nn.functional.avg_pool2d(seen.float(), factor)
        return float((small - video)[:, :, ball].square().mean().sqrt())

    plain = error(1, "nearest")
    assert error(4, "nearest") < 0.5 * plain
    assert error(4, "lanczos") < plain
    with pytest.raises(ValueError, match="1 to 16, got 17"):
        scale.enlarge(video, 17)
    with pytest.raises(ValueError, match="unknown filter 'box'"):
        scale.enlarge(video, 2, "box")


def ebur128(audio: torch.Tensor, rate: int) -> float:
    """Integrated loudness as FFmpeg measures it."""
    graph = av.filter.Graph()
    source = graph.add_abuffer(sample_rate=rate, format="flt", layout="mono", time_base=f"1/{rate}")
    meter, sink = graph.add("ebur128", "metadata=1"), graph.add("abuffersink")
    source.link_to(meter)
    meter.link_to(sink)
    graph.configure()
    found = math.nan
    for first in range(0, len(audio), 4800):
        piece = audio[first : first + 4800].float().numpy()[None].copy()
        frame = av.AudioFrame.from_ndarray(piece, format="flt", layout="mono")
        frame.sample_rate, frame.pts = rate, first
        graph.push(frame)
        while True:
            try:
                found = float(graph.pull().metadata.get("lavfi.r128.I", found))
            except (av.BlockingIOError, EOFError):
                break
    return found


@pytest.mark.parametrize("rate", [48000, 44100, 16000])
def test_loudness_is_what_ffmpeg_measures(rate) -> None:
    generator = torch.Generator().manual_seed(1)
    time = torch.arange(3 * rate) / rate
    noise = torch.randn(len(time), generator=generator)
    sound = 0.1 * torch.sin(2 * math.pi * 440 * time) + 0.02 * noise
    sound[rate : 2 * rate] *= 0.01  # gated away
    right = ebur128(sound, rate)
    assert abs(loudness.measure(sound, rate) - right) < 0.3
    louder, reached = loudness.normalise(sound, rate, -20)
    assert abs(reached + 20) < 1e-6 and abs(ebur128(louder, rate) + 20) < 0.3


def test_loudness_never_clips() -> None:
    click = torch.zeros(48000)
    click[1000:1040] = torch.sin(torch.arange(40) * 1.5) * 0.5
    made, reached = loudness.normalise(click, 48000, -16)
    assert reached < -16 and abs(made.abs().max()) < 10 ** (-1 / 20)
    assert abs(20 * math.log10(loudness.true_peak(made, 48000)) + 1) < 0.01
    quiet, reached = loudness.normalise(torch.zeros(48000), 48000, -16)
    assert reached == -math.inf and not quiet.any()
    assert loudness.measure(torch.ones(100), 48000) == -math.inf
    for wrong in (-71, 0, math.nan):
        with pytest.raises(ValueError, match="-70 to -5 LUFS"):
            loudness.normalise(click, 48000, wrong)


def test_a_clip_is_one_line_and_a_player(clip) -> None:
    said = """Clip('Glas fällt: \\'x\\' "y" 中 <b>', 1 s, 64x32 at 16 fps, 48000 Hz)"""
    assert repr(clip) == said
    page = clip._repr_html_()
    assert "<b>" not in page and "&lt;b&gt;" in page
    assert page.startswith('<video controls loop width="320" src="data:video/mp4;base64,AAAA')
    clip.prompt = "word " * 100
    assert len(repr(clip)) < 120


def test_a_player_is_never_huge(clip, monkeypatch) -> None:
    monkeypatch.setattr(player, "MOST_BYTES", 1000)
    assert "<video" not in clip._repr_html_() and "see Clip.save" in clip._repr_html_()
    long = Clip(torch.zeros(1, 3, 1, 1, dtype=torch.uint8).expand(3000, 3, 1080, 1920), clip.audio)
    assert "too large" in long._repr_html_()
    odd = Clip(clip.video, clip.audio, sample_rate=12345)
    assert "<video" not in odd._repr_html_() and "12345" in odd._repr_html_()
