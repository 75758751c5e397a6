"""One opener for all that people give: formats that hold their pictures, from regular files."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from syncflow import Clip
from syncflow.clip import ClipSpec
from syncflow.data import media
from syncflow.data.film import limits, opener
from syncflow.data.prepare.decoding import Decoder
from syncflow.data.prepare.sources import Source
from syncflow.generation import request


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    """Another person's: 16 pictures of 64x48 and a sound."""
    video = torch.arange(16, dtype=torch.uint8).mul(9)[:, None, None, None].expand(-1, 3, 48, 64)
    return media.write(tmp_path_factory.mktemp("private") / "film.mp4", video, torch.zeros(48000))


def lists(film: Path) -> dict[str, str]:
    parts = {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:1,\n{film}\n#EXT-X-ENDLIST\n",
        "dash": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT1S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011">'
        '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1">'
        f"<BaseURL>{film}</BaseURL></Representation></AdaptationSet></Period></MPD>",
        "ffconcat": f"ffconcat version 1.0\nfile '{film}'\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    }
    return {**parts, "marked": "\ufeff" + parts["ffconcat"]}


@pytest.mark.parametrize("kind", ["hls", "dash", "ffconcat", "sdp", "marked"])
@pytest.mark.parametrize("name", ["list.m3u8", "list.mpd", "list.mp4", "list.sdp"])
def test_a_list_of_files_is_no_film_whatever_its_name(film, tmp_path, kind, name) -> None:
    path = tmp_path / name
    path.write_text(lists(film)[kind])
    for reads in (media.read, media.probe, Clip.load, media.read_pictures):
        with pytest.raises(ValueError, match="list of other files|not a media file"):
            reads(path)
    with pytest.raises(ValueError, match="list of other files|not a media file"):
        request.first_frame(path, ClipSpec(1.0, height=32, width=32))
    found = Decoder(tmp_path, ClipSpec(0.25, 16, 32, 32))(Source(name, caption="x"))
    assert not found.windows and found.skipped[0]["reason"] == "damaged"


def test_a_name_is_only_a_name(film, tmp_path, monkeypatch) -> None:
    """Addresses, patterns, options and marks of other protocols are letters like others."""
    monkeypatch.chdir(tmp_path)
    right = media.read(film, fps=16)[0]
    names = ["concat:a.mp4|b.mp4", "subfile,,start,0,end,9,,:a.mp4", "-i.mp4", "a:b.mp4",
             "shot%03d.mp4", "http:a.mp4", "x" * 251 + ".mp4", "pipe:0.mp4"]  # fmt: skip
    for name in names:
        Path(name).write_bytes(film.read_bytes())
        assert torch.equal(media.read(name, fps=16)[0], right)
        media.add_sound(name, name, torch.zeros(48000))
        assert torch.equal(media.read(name, fps=16)[0], right)
        media.write(name, right, torch.zeros(48000))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    os.symlink(film, "link.mp4")
    assert torch.equal(media.read("link.mp4", fps=16)[0], right)


def test_numbered_neighbours_are_not_read(tmp_path) -> None:
    for index in range(4):
        Image.new("RGB", (64, 48), (0, 200, 0)).save(tmp_path / f"shot{index:03d}.png")
    with pytest.raises(FileNotFoundError):
        media.read(tmp_path / "shot%03d.png")
    Image.new("RGB", (64, 48), (200, 0, 0)).save(tmp_path / "shot%03d.png")
    with pytest.raises(ValueError, match="not a media file"):
        media.read(tmp_path / "shot%03d.png")
    frame = request.first_frame(tmp_path / "shot%03d.png", ClipSpec(1.0, height=32, width=32))
    assert frame[0, :, 16, 16].tolist() == [200, 0, 0]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_pipes_and_devices_do_not_hang(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    code = (
        "import sys\nfrom syncflow.data import media\nfrom syncflow.data.film import opener\n"
        "for path in sys.argv[1:]:\n"
        "    for reads in (media.read, media.probe, opener.image):\n"
        "        try: reads(path)\n"
        "        except ValueError as error: print(error)"
    )
    paths = [str(tmp_path / "pipe.mp4"), "/dev/zero", "/dev/stdin"]
    environment = {**os.environ, "PYTHONPATH": str(Path(media.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code, *paths], capture_output=True, text=True, timeout=100,
        stdin=subprocess.PIPE, env=environment,
    )  # fmt: skip
    assert done.stdout.count("is a pipe or a device") == 9, done.stdout + done.stderr


def test_images_are_read_by_kind_and_not_by_name(tmp_path) -> None:
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    assert opener.image(tmp_path / "a.png") is None  # Pillow would start another program for it
    turned = Image.new("RGB", (40, 20), (9, 9, 9))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "b.jpg", exif=exif)
    assert opener.image(tmp_path / "b.jpg").size == (20, 40)
    good = (tmp_path / "b.jpg").read_bytes()
    (tmp_path / "c.jpg").write_bytes(good[: len(good) // 2])
    with pytest.raises(ValueError, match="cannot read the image"):
        opener.image(tmp_path / "c.jpg")
    Image.new("1", (9000, 9000)).save(tmp_path / "d.png")
    with pytest.raises(ValueError, match="9000x9000 pixels, more than 67 million"):
        opener.image(tmp_path / "d.png")


def test_limits_have_a_sentence_each(film, monkeypatch) -> None:
    with pytest.raises(ValueError, match="take .* GB, more than 4"):
        media.read(film, seconds=80000, fps=60, height=64, width=64)
    with pytest.raises(ValueError, match="seconds must be at most 86400"):
        media.read(film, seconds=1e9)
    monkeypatch.setattr(limits, "MOST_BYTES", 9 * 48 * 64 * 3)
    with pytest.raises(ValueError, match="take .* read fewer seconds, or give a height"):
        media.read(film, fps=16)
    monkeypatch.setattr(opener, "MOST_STREAMS", 1)
    with pytest.raises(ValueError, match="has 2 tracks, more than 1"):
        media.read(film)
    assert limits.check_gap("a", 0, limits.MOST_GAP_S) is None
    with pytest.raises(ValueError, match="no picture between"):
        limits.check_gap("a", 0, limits.MOST_GAP_S + 1)
    with pytest.raises(ValueError, match="jumps back"):
        limits.check_gap("a", 10, 5)
    with pytest.raises(ValueError, match="says it lasts"):
        limits.check_seconds("a", 1e5)


def test_a_sound_is_told_from_what_is_no_medium(tmp_path) -> None:
    media.write_wav(tmp_path / "a.wav", torch.zeros(4800))
    with pytest.raises(ValueError, match="has no video stream"):
        media.read(tmp_path / "a.wav")
    (tmp_path / "b.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(ValueError, match="not a media file"):
        media.read(tmp_path / "b.mp4")
    (tmp_path / "c.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match="not a media file"):
        media.read(tmp_path / "c.mp4")
