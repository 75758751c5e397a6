"""Clips in the folders of other people's benchmarks."""

import csv
import json
import wave

import pytest
import torch

from syncflow.cli import main
from syncflow.clip import Clip
from syncflow.data import media
from syncflow.evaluation import sharing
from tests.small_model import build


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    made = build()
    made.folder = made.save(tmp_path_factory.mktemp("share") / "model")
    return made


def share(model, layout, prompts, out, **more):
    return sharing.run(layout, model, prompts, out, progress=False, options={"steps": 1}, **more)


def test_javisbench_reads_clips_and_sounds_by_row(model, tmp_path):
    prompts = tmp_path / "JavisBench-mini.csv"
    rows = [["x.mp4", "a ball, falling"], ["y.mp4", 'a "glass" ball\nbounces'], ["z.mp4", "a drum"]]
    with prompts.open("w", newline="") as file:
        csv.writer(file).writerows([["path", "text"], *rows])
    out = tmp_path / "samples"
    assert share(model, "javisbench", prompts, out, batch=2) == (3, 0)
    names = [f"sample_{i:04d}.{end}" for i in range(3) for end in ("mp4", "wav")]
    assert sorted(p.name for p in out.glob("[!.]*")) == names
    for number in range(3):
        assert media.probe(out / f"sample_{number:04d}.mp4").seconds == 1
        with wave.open(str(out / f"sample_{number:04d}.wav")) as sound:
            assert (sound.getframerate(), sound.getnframes()) == (48000, 48000)
    # What is there stays; what is missing comes.
    (out / "sample_0002.wav").unlink()
    before = (out / "sample_0001.mp4").stat().st_mtime_ns
    assert share(model, "javisbench", prompts, out, batch=2) == (1, 2)
    assert (out / "sample_0001.mp4").stat().st_mtime_ns == before
    assert share(model, "javisbench", prompts, tmp_path / "few", clips=1) == (1, 0)


def test_compass_reads_clips_by_index(model, tmp_path):
    prompts = tmp_path / "prompts.json"
    rows = [{"index": 7, "prompt": "a ball falls", "source": "x"}, {"index": 500, "prompt": "b"}]
    prompts.write_text(json.dumps(rows))
    assert share(model, "t2av-compass", prompts, tmp_path / "input") == (2, 0)
    names = sorted(p.name for p in (tmp_path / "input").glob("[!.]*"))
    assert names == ["sample_0007.mp4", "sample_0500.mp4"]


@pytest.mark.parametrize(
    ("layout", "name", "text", "said"),
    [
        ("javisbench", "a.csv", "path,prompt\nx,y\n", "no column 'text'"),
        ("javisbench", "a.csv", "text\n", "has no prompts"),
        ("javisbench", "a.csv", 'text\na\n" "\n', "prompt 1 is empty"),
        ("t2av-compass", "a.json", "{}", "is no list"),
        ("t2av-compass", "a.json", '[{"prompt": "a"}]', "an entry has no index and prompt"),
        ("t2av-compass", "a.json", '[{"index": -1, "prompt": "a"}]', "no index and prompt"),
        ("t2av-compass", "a.json", '[{"index": "../1", "prompt": "a"}]', "no index and prompt"),
        (
            "t2av-compass",
            "a.json",
            '[{"index": 1, "prompt": "a"}, {"index": 1, "prompt": "b"}]',
            "two prompts have the index 1",
        ),
        ("vbench", "a.csv", "", "unknown layout 'vbench'; known are javisbench, t2av-compass"),
    ],
)
def test_lists_that_are_none_are_refused(model, tmp_path, layout, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        share(model, layout, tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_captions_of_impacts_come_with_a_list_and_real_clips(model, tmp_path):
    """Read by the other layout's reader of the same file, as the benchmark would."""
    for layout, kind in sharing.LAYOUTS.items():
        out = tmp_path / layout
        assert share(model, layout, None, out, clips=2) == (2, 0)
        items = kind.read(out / kind.list_name)
        assert [item.number for item in items] == [0, 1] and items[0].prompt
        real = Clip.load(out / "real" / "sample_0001.mp4")
        assert real.video.shape[2:] == (32, 32)
    with (tmp_path / "javisbench" / "prompts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all((tmp_path / "javisbench" / row["path"]).exists() for row in rows)
    assert all((tmp_path / "javisbench" / row["audio_path"]).exists() for row in rows)


def test_the_command(model, tmp_path, capsys):
    (tmp_path / "p.json").write_text(json.dumps([{"index": 3, "prompt": "a ball falls"}]))
    words = ["--layout", "t2av-compass", "--prompts", str(tmp_path / "p.json"), "--steps", "1"]
    out = ["--out", str(tmp_path / "o"), "--model", str(model.folder)]
    assert main(["evaluate", "export", *words, *out]) == 0
    assert "1 clips made, 0 were there" in capsys.readouterr().out
    assert main(["evaluate", "export", "--layout", "vbench"]) == 2


@pytest.mark.parametrize("ending", ["mp4", "wav"])
def test_a_file_that_was_cut_is_made_again(model, tmp_path, ending):
    prompts, out = tmp_path / "p.csv", tmp_path / "out"
    prompts.write_text("text\na ball falls\n")
    assert share(model, "javisbench", prompts, out) == (1, 0)
    path = out / f"sample_0000.{ending}"
    whole = path.read_bytes()
    path.write_bytes(whole[:-200])
    assert share(model, "javisbench", prompts, out) == (1, 0)
    assert path.read_bytes() == whole
    assert share(model, "javisbench", prompts, out) == (0, 1)


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """The same in all but its weights."""
    made = build()
    with torch.no_grad():
        next(made.ddit.parameters()).add_(1)
    made.folder = made.save(tmp_path_factory.mktemp("share") / "model")
    return made


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"seed": 9}, r"whole clips of seed 0, not of 9: choose another folder, or empty"),
        ({"options": {"steps": 2}}, "whole clips of steps 1, not of 2: "),
        ({"options": {"steps": 1, "seconds": 0.5}}, "whole clips of seconds 1.0, not of 0.5: "),
        ({"options": {"steps": 1, "negative_prompt": "x"}}, "of negative_prompt None, not of 'x'"),
        ({"layout": "t2av-compass", "prompts": "p.json"}, "whole clips of layout 'javisbench', "),
        ({"prompts": "q.csv"}, "whole clips of prompt 'a', not of 'c': "),
        ({"owner": "other"}, "whole clips of model_hash '"),
    ],
)
def test_whole_clips_that_were_made_otherwise_stay(model, other, tmp_path, more, said):
    (tmp_path / "p.csv").write_text("text\na\nb\n")
    (tmp_path / "q.csv").write_text("text\nc\nb\n")
    (tmp_path / "p.json").write_text(json.dumps([{"index": 7, "prompt": "a"}]))  # beside the others
    given = {"layout": "javisbench", "prompts": "p.csv", "options": {"steps": 1}}

    def make(prompts, owner="model", **more):
        used, out = {"model": model, "other": other}[owner], tmp_path / "out"
        return sharing.run(model=used, prompts=tmp_path / prompts, out=out, progress=False, **more)

    assert make(**given) == (2, 0)
    before = snapshot(tmp_path / "out")
    with pytest.raises(ValueError, match=said) as caught:
        make(**given | more)
    assert "\n" not in str(caught.value) and str(tmp_path / "out") in str(caught.value)
    assert snapshot(tmp_path / "out") == before
    assert make(**given) == (0, 2), "with its own settings it goes on"


def test_clips_that_were_cut_are_in_nobodys_way(model, tmp_path):
    prompts, out = tmp_path / "p.csv", tmp_path / "out"
    prompts.write_text("text\na\n")
    share(model, "javisbench", prompts, out)
    path = out / "sample_0000.wav"
    path.write_bytes(path.read_bytes()[:-200])
    assert share(model, "javisbench", prompts, out, seed=9) == (1, 0)
    with pytest.raises(ValueError, match="whole clips of seed 9, not of 0"):
        share(model, "javisbench", prompts, out)


def test_a_clip_beyond_the_list_counts_too(model, tmp_path):
    """It has another number, so its own tags are not asked."""
    prompts, out = tmp_path / "p.json", tmp_path / "out"
    prompts.write_text(json.dumps([{"index": 1, "prompt": "a"}]))
    share(model, "t2av-compass", prompts, out)
    prompts.write_text(json.dumps([{"index": 2, "prompt": "a"}]))
    with pytest.raises(ValueError, match="whole clips of seed 0, not of 9"):
        share(model, "t2av-compass", prompts, out, seed=9)
    assert share(model, "t2av-compass", prompts, out) == (1, 0)


def test_a_folder_without_settings_is_known_by_its_clips(model, tmp_path):
    prompts, out = tmp_path / "p.csv", tmp_path / "out"
    prompts.write_text("text\na\n")
    share(model, "javisbench", prompts, out)
    settings = out / ".written" / "settings.json"
    settings.unlink()
    with pytest.raises(ValueError, match="whole clips of seed 0, not of 9"):
        share(model, "javisbench", prompts, out, seed=9)
    assert share(model, "javisbench", prompts, out) == (0, 1) and settings.exists()


def test_clips_of_others_stay(model, tmp_path):
    prompts, out = tmp_path / "p.csv", tmp_path / "out"
    prompts.write_text("text\na\n")
    out.mkdir()
    (out / "sample_0007.mp4").write_bytes(b"theirs")
    with pytest.raises(
        ValueError, match=r"has a sample_0007\.mp4 of others: choose another folder"
    ):
        share(model, "javisbench", prompts, out)
    assert [path.name for path in out.iterdir()] == ["sample_0007.mp4"]


def test_the_command_tells_other_clips_in_a_line(model, tmp_path, capsys):
    (tmp_path / "p.csv").write_text("text\na\n")
    words = ["--layout", "javisbench", "--prompts", str(tmp_path / "p.csv"), "--steps", "1"]
    words += ["--out", str(tmp_path / "o"), "--model", str(model.folder)]
    assert main(["evaluate", "export", *words]) == 0
    capsys.readouterr()
    assert main(["evaluate", "export", *words, "--seed", "9"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "whole clips of seed 0, not of 9" in line


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"batch": 0}, "batch must be .* got 0"),
        ({"batch": -2}, "batch must be .* got -2"),
        ({"clips": -1}, "clips must be .* got -1"),
        ({"seed": -1}, "seed must be .* got -1"),
        ({"levels": []}, r"levels must name at least one level of impacts, got \[\]"),
        ({"options": {"seed": 4}}, "options must not have seed, which is set here: 4"),
        ({"options": {"progress": True}}, "options must not have progress, .*: True"),
        ({"options": {"audio_takes": 2}}, "options must not have audio_takes, .*: 2"),
    ],
)
def test_arguments_that_cannot_be_are_named(model, tmp_path, more, said):
    with pytest.raises(ValueError, match=said):
        sharing.run("javisbench", model, None, tmp_path / "out", progress=False, **more)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["text\n{}\n", "{},text\na,b\n"])
def test_a_field_beyond_what_csv_reads_is_told_in_a_line(model, tmp_path, capsys, text):
    (tmp_path / "big.csv").write_text(text.format("a" * 131_073))
    words = ["--layout", "javisbench", "--prompts", str(tmp_path / "big.csv")]
    assert main(["evaluate", "export", *words, "--model", str(model.folder)]) == 2
    told = capsys.readouterr().err
    assert "big.csv', line" in told and "field larger than field limit" in told
