"""Folders of clips: complete, reproducible with any number of workers, and continued where they
were cut off.
"""

import json
import os

import numpy as np
import pytest

from syncflow import impacts
from syncflow.data import impacts_dataset, impacts_files

SMALL = {
    "height": 16,
    "width": 16,
    "fps": 8,
    "seconds": 1.0,
    "sample_rate": 8000,
    "progress": False,
}


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(impacts_files, "SHARD", 3)


def make(out, clips, **more):
    return impacts_dataset.write_dataset(
        out, clips, **{**SMALL, "container": "shards", "workers": 1, **more}
    )


def test_shards_hold_what_the_seeds_say(tmp_path, small_shards):
    shards = impacts_dataset.read_shards(make(tmp_path / "a", 7, seed=5, split="test", level=3))
    assert len(shards) == 7
    for index, (scene, video, audio) in enumerate(
        impacts_dataset.iterate(7, 5, 3, "test", 16, 16, 8, 1.0, 8000)
    ):
        clip = shards[index]
        assert clip["seed"] == scene.seed == 11_000_005 + index
        assert clip["caption"] == scene.caption and clip["split"] == "test"
        assert [c["time_s"] for c in clip["contacts"]] == [c.time_s for c in scene.contacts]
        assert np.array_equal(clip["video"], video)
        assert np.abs(clip["audio"] - audio).max() < 1e-4
    with pytest.raises(IndexError):
        shards[7]


def test_balls_of_any_material_are_in_the_shards_and_in_what_is_written_of_them(tmp_path):
    folder = make(tmp_path / "a", 6, materials="all")
    shards = impacts_dataset.read_shards(folder)
    scenes = [impacts.sample_scene(i, 1, None, 1.0, 8, 8000) for i in range(6)]
    made = [impacts.of_any_material(scene) for scene in scenes]
    assert [clip["caption"] for clip in shards] == [scene.caption for scene in made]
    assert not np.array_equal(shards.video(0), impacts.render(scenes[0], 16, 16))
    assert np.array_equal(shards.video(0), impacts.render(made[0], 16, 16))
    with pytest.raises(ValueError, match="made with materials all .now level."):
        make(tmp_path / "a", 6)


def test_workers_do_not_change_the_clips(tmp_path):
    one, two = make(tmp_path / "a", 4), make(tmp_path / "b", 4, workers=2)
    names = sorted(p.name for p in one.iterdir())
    assert names == sorted(p.name for p in two.iterdir())
    assert all((one / n).read_bytes() == (two / n).read_bytes() for n in names)


def test_a_cut_off_folder_is_continued(tmp_path, small_shards):
    whole = make(tmp_path / "whole", 9)
    cut = make(tmp_path / "cut", 9)
    (cut / "shard_00001.audio.npy").unlink()
    (cut / "metadata.jsonl").unlink()
    kept = (cut / "shard_00000.video.npy").stat().st_mtime_ns
    with pytest.raises(ValueError, match="no complete data set"):
        impacts_dataset.read_shards(cut)
    make(cut, 9)
    assert (cut / "shard_00000.video.npy").stat().st_mtime_ns == kept
    for name in sorted(p.name for p in whole.iterdir()):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()


def test_fewer_clips_end_a_folder_that_was_cut_off(tmp_path, small_shards):
    cut = make(tmp_path / "cut", 9)
    for name in ("shard_00001.audio.npy", "shard_00001.video.npy", "metadata.jsonl"):
        (cut / name).unlink()
    make(cut, 2)
    clips = impacts_dataset.read_shards(cut)
    assert len(clips) == 3, "all of the first shard, and none of what was never made"
    assert json.loads((cut / "dataset.json").read_text())["clips"] == 3
    clips[2]


@pytest.mark.parametrize("size", [0, 7, 60, 200])
def test_a_damaged_shard_is_put_aside_and_made_again(tmp_path, small_shards, size):
    whole, cut = make(tmp_path / "whole", 4), make(tmp_path / "cut", 4)
    sound = cut / "shard_00000.audio.npy"
    damaged = sound.read_bytes()[:size]
    sound.write_bytes(damaged)
    make(cut, 4)
    assert (cut / "shard_00000.audio.npy.damaged").read_bytes() == damaged
    for path in whole.iterdir():
        assert (cut / path.name).read_bytes() == path.read_bytes()


def test_a_shard_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    named, replace = [], os.replace

    def renamed(old, new):
        named.append(new.name)
        replace(old, new)

    monkeypatch.setattr(os, "replace", renamed)
    folder = make(tmp_path / "a", 2)
    assert named == [
        "dataset.json", "shard_00000.video.npy", "shard_00000.audio.npy", "metadata.jsonl",
    ]  # fmt: skip
    assert sorted(path.name for path in folder.iterdir()) == sorted(named)


def test_a_folder_grows(tmp_path, small_shards):
    grown = impacts_dataset.read_shards(make(make(tmp_path / "a", 4), 8))
    fresh = impacts_dataset.read_shards(make(tmp_path / "b", 8))
    assert len(grown) == len(fresh) == 8
    assert all(np.array_equal(grown[i]["video"], fresh[i]["video"]) for i in range(8))


def test_mp4_files_come_with_captions_and_contacts(tmp_path):
    pytest.importorskip("av")
    from syncflow.data import media

    folder = make(tmp_path / "a", 2, container="mp4", height=32, width=48, sample_rate=48000)
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert [line["file"] for line in lines] == ["train_00000000.mp4", "train_00000001.mp4"]
    assert not list(folder.glob(".*"))
    for line in lines:
        assert (folder / line["file"]).stat().st_size > 1000
        assert line["contacts"] and line["caption"] and line["level"] == 1
    assert callable(media.write)
    kept = (folder / "train_00000001.mp4").stat().st_mtime_ns
    (folder / "train_00000000.mp4").unlink()
    make(folder, 2, container="mp4", height=32, width=48, sample_rate=48000)
    assert (folder / "train_00000000.mp4").exists()
    assert (folder / "train_00000001.mp4").stat().st_mtime_ns == kept


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clips": 0}, "impacts: clips: must be a whole number between 1 .*, got 0"),
        ({"clips": 2, "seed": -3}, "-3"),
        ({"clips": 2, "seed": 9_999_999}, "9999999"),
        ({"clips": 2, "split": "dev"}, "dev"),
        ({"clips": 2, "level": 9}, "9"),
        ({"clips": 2, "container": "zip"}, "zip"),
        ({"clips": 2, "container": "mp4", "width": 17}, "16 x 17"),
        ({"clips": 2, "height": 4}, "4 x 16"),
        ({"clips": 2, "level": 2, "materials": "all"}, "level 2 has all of them"),
        ({"clips": 2, "workers": 0}, "workers"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_written(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path / "a", **settings)
    assert not (tmp_path / "a").exists()


def test_other_peoples_folders_are_left_alone(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        make(tmp_path / "full", 1)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="is a file"):
        make(tmp_path / "file", 1)
    made = make(tmp_path / "made", 1)
    with pytest.raises(ValueError, match="level 1 .now 2."):
        make(made, 1, level=2)
