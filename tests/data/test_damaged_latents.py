"""Latents that are not what was written: told, put aside, made again; never used, never deleted."""

import json
import os

import numpy as np
import pytest
import torch

from syncflow import durable
from syncflow.clip import ClipSpec
from syncflow.data.latent_shards import Rows, Shard, ShardWriter, claim
from syncflow.data.latents import Latents

GEOMETRY = {"seconds": 1.0, "fps": 8, "height": 32, "width": 32, "sample_rate": 9600}


def rows(number):
    """Two clips of noise."""
    rng, spec = np.random.default_rng(number), ClipSpec(**GEOMETRY)
    shapes = {"video": (2, *spec.video_latent_shape), "audio": (spec.audio_latent_length, 3)}
    arrays = {
        f"{kind}_{which}": rng.uniform(0.1, 1, (2, *shape)).astype(np.float16)
        for kind, shape in shapes.items()
        for which in ("mean", "std")
    }
    captions = [f"caption {number} {row}" for row in range(2)]
    texts = {caption: rng.standard_normal((3, 8)).astype(np.float16) for caption in captions}
    records = [
        {"file": f"{number}.mp4", "start": row, "caption": caption}
        for row, caption in enumerate(captions)
    ]
    return Rows(arrays, texts, records)


def make(folder, parts=4):
    """Two shards of two parts; those that are there are not made again. Returns what was made."""
    writer = ShardWriter(folder, [range(0, 2), range(2, 4)])
    made = writer.missing()
    for number in made[:parts]:
        writer.add(number, rows(number))
    writer.finish({"encoders": {"video_vae": "x"}, "geometry": GEOMETRY})
    return made[:parts]


def flip(path, place=-3):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def cut(path):
    os.truncate(path, path.stat().st_size - 100)


def empty(path):
    os.truncate(path, 0)


@pytest.fixture
def whole(tmp_path):
    make(tmp_path / "whole")
    return tmp_path / "whole"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("damage", [flip, cut, empty])
def test_a_damaged_part_is_put_aside_and_made_again(whole, tmp_path, damage):
    out = tmp_path / "out"
    make(out, parts=1)
    part = out / ".work" / "part_0000000.safetensors"
    damage(part)
    damaged = part.read_bytes()
    writer = ShardWriter(out, [range(0, 2), range(2, 4)])
    assert writer.missing() == [0, 1, 2, 3]
    assert part.with_name(f"{part.name}.damaged").read_bytes() == damaged
    assert make(out) == [0, 1, 2, 3] and contents(out) == contents(whole)


@pytest.mark.parametrize("damage", [cut, empty])
def test_a_damaged_shard_is_put_aside_and_made_again(whole, tmp_path, damage):
    out = tmp_path / "out"
    make(out, parts=2)
    damage(out / "shard_00000.safetensors")
    damaged = (out / "shard_00000.safetensors").read_bytes()
    assert make(out) == [0, 1, 2, 3]
    assert contents(out) == contents(whole) | {"shard_00000.safetensors.damaged": damaged}


@pytest.mark.parametrize("damage", [cut, empty, lambda path: flip(path, 200)])
def test_what_a_message_says_of_a_finished_folder_helps(whole, tmp_path, damage):
    before = contents(whole)
    shard = whole / "shard_00001.safetensors"
    damage(shard)
    with pytest.raises(ValueError, match=r"shard_00001.*move it and manifest.json away and run"):
        Latents(whole)
    (tmp_path / "aside").mkdir()
    for path in (shard, whole / "manifest.json"):
        path.rename(tmp_path / "aside" / path.name)
    assert make(whole) == [2, 3] and contents(whole) == before


def test_no_bit_of_a_header_can_change_unnoticed(whole):
    shard = whole / "shard_00000.safetensors"
    data = shard.read_bytes()
    size = int.from_bytes(data[:8], "little")
    for place in [*range(8), *range(8, 8 + size, 37)]:
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        shard.write_bytes(changed)
        with pytest.raises(ValueError, match="shard_00000.safetensors' is damaged"):
            Latents(whole)
    shard.write_bytes(data)
    assert len(Latents(whole)) == 8


@pytest.mark.parametrize("key", ["count", "encoders", "geometry", "statistics", "shards"])
@pytest.mark.parametrize("value", [0, -1, 1e12, float("nan"), "x", None, [], {}])
@pytest.mark.parametrize("seal", [True, False])
def test_no_value_of_a_manifest_can_change_unnoticed(whole, key, value, seal):
    """Nor, without a checksum, be of no use: version 0.1 wrote none."""
    path = whole / "manifest.json"
    manifest = json.loads(path.read_text()) | {key: value}
    if not seal:
        del manifest["checksum"]
    path.write_text(json.dumps(manifest))
    if key == "encoders" and value == {} and not seal:  # nothing is known of them
        return
    told = "manifest.json' is damaged|statistics cannot be used|manifest.json says"
    with pytest.raises(ValueError, match=told):
        Latents(whole)


def test_a_manifest_names_no_file_outside_its_folder(whole):
    path = whole / "manifest.json"
    manifest = durable.read_sealed(path)
    manifest["shards"][0]["file"] = "../whole/shard_00000.safetensors"
    durable.write_sealed(path, manifest)
    with pytest.raises(ValueError, match="manifest.json' is damaged"):
        Latents(whole)


def test_manifests_and_shards_without_checksums_are_read(whole):
    path = whole / "manifest.json"
    manifest = durable.read_sealed(path)
    for shard in manifest["shards"]:
        del shard["header"]
    path.write_text(json.dumps(manifest))
    assert len(Latents(whole)) == 8


@pytest.mark.parametrize("name", ["video_mean", "audio_std", "text"])
def test_latents_that_are_no_numbers_are_refused_by_their_clip(tmp_path, name):
    bad = rows(1)
    where = bad.texts["caption 1 0"] if name == "text" else bad.arrays[name]
    where.reshape(-1)[0] = np.nan
    writer = ShardWriter(tmp_path, [range(2)])
    writer.missing()
    writer.add(0, rows(0))
    told = "caption 1 0" if name == "text" else f"{name} of 1.mp4"
    with pytest.raises(ValueError, match=f"not finite.*{told}"):
        writer.add(1, bad)


def test_what_is_no_number_in_a_whole_shard_is_refused_by_its_clip(whole, monkeypatch):
    latents = Latents(whole)
    draw = np.random.default_rng(0)
    assert torch.isfinite(latents.batch(np.array([0, 1]), draw)["video"]).all()
    shard, row = latents._find(1)
    monkeypatch.setitem(shard.tensors, "video_mean", shard.tensors["video_mean"].clone())
    shard.tensors["video_mean"][row].view(-1)[0] = torch.nan
    with pytest.raises(ValueError, match=r"not finite in the latents of"):
        latents.batch(np.array([0, 1]), draw)


@pytest.mark.parametrize("std", [[0.0, 1.0], [1.0], [-1.0, 1.0], [float("nan"), 1.0], "x", None])
def test_statistics_that_would_spoil_all_are_refused(whole, std):
    latents = Latents(whole)
    with pytest.raises(ValueError, match="video_std"):
        latents.normalise({**latents.statistics, "video_std": std})


def test_damaged_settings_are_named(tmp_path):
    claim(tmp_path / "out", {"count": 3}, {"batch": 2})
    path = tmp_path / "out" / "settings.json"
    assert not claim(tmp_path / "out", {"count": 3}, {"batch": 2})
    path.write_text(path.read_text().replace("3", "4"))
    with pytest.raises(ValueError, match="settings.json' is damaged"):
        claim(tmp_path / "out", {"count": 4}, {"batch": 2})


def test_a_bit_of_a_tensor_is_noticed_where_all_is_read(whole):
    shard = whole / "shard_00000.safetensors"
    Shard(shard).verify()
    flip(shard)
    with pytest.raises(ValueError, match="checksum is that of other tensors"):
        Shard(shard).verify()
