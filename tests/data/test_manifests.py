"""Manifests, headers and weights that are read: every number is one, and what is not is named."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from syncflow import durable
from syncflow.data import impacts_dataset, latent_shards
from syncflow.data.latent_shards import Shard
from syncflow.data.latents import Latents
from syncflow.model_io import model_folder
from syncflow.training.checkpoints import weights
from tests.training.made import write_latents

SHARD = "shard_00000.safetensors"


@pytest.fixture
def folder(tmp_path) -> Path:
    """Without checksums, as versions before 0.2 wrote it: here the values themselves are judged."""
    out = write_latents(tmp_path / "latents")
    manifest = durable.read_sealed(out / "manifest.json")
    for shard in manifest["shards"]:
        del shard["header"]
    (out / "manifest.json").write_text(json.dumps(manifest))
    return out


def change(path: Path, *keys, to) -> None:
    found = inner = json.loads(path.read_text())
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = to
    path.write_text(json.dumps(found))


def rewrite(path: Path, header=None, **tensors: torch.Tensor) -> None:
    with safe_open(path, "pt") as file:
        said = file.metadata()
    if header is not None:
        said = {"syncflow": json.dumps(header(json.loads(said["syncflow"])))}
    save_file(load_file(path) | tensors, path, said)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("count",), 1e12, "count: must be a whole number"),
        (("count",), 3, "count is 3, and the shards have 4 rows"),
        (("count",), 0, "count: must be"),
        (("geometry", "fps"), math.nan, "geometry.fps: must be a number"),
        (("geometry", "height"), "32", "geometry.height: must be a whole number"),
        (("statistics", "video_std", 1), 0, "statistics.video_std.1: must be a number, more"),
        (("statistics", "audio_mean", 0), math.inf, "statistics.audio_mean.0: must be"),
        (("statistics", "audio_mean"), [0], "1 means and 3 deviations of audio latents"),
        (("shards", 0, "count"), -1, "shards.0.count: must be"),
        (("shards", 0, "file"), "../x.safetensors", "shards.0.file: must be the name of a file"),
        (("shards",), {}, "shards: "),
        (("text_tokens",), True, "text_tokens: must be"),
        (("encoders",), None, "encoders: "),
        (("encodres",), {}, "unknown key 'encodres'"),
    ],
)  # fmt: skip
def test_a_manifest_names_the_key(folder, keys, value, message) -> None:
    change(folder / "manifest.json", *keys, to=value)
    with pytest.raises(ValueError, match=f"manifest.json' is damaged: .*{message}"):
        Latents(folder)


def test_a_manifest_that_is_none_is_named(folder) -> None:
    for text in ("[]", "{", "null", "[" * 100_000):
        (folder / "manifest.json").write_text(text)
        with pytest.raises(ValueError, match="manifest.json"):
            Latents(folder)


@pytest.mark.parametrize("name", ["video_mean", "video_std", "audio_mean", "audio_std", "text"])
def test_a_latent_that_is_no_number_is_refused_when_it_is_read(folder, name) -> None:
    values = load_file(folder / SHARD)[name].clone()
    values[2, 0] = math.nan
    rewrite(folder / SHARD, **{name: values})
    latents, rng = Latents(folder), np.random.default_rng(0)
    row = 1 if name == "text" else 2  # the first caption has two tokens
    with pytest.raises(ValueError, match=f"{SHARD}' has numbers that are not finite"):
        latents.batch(np.array([3, row]), rng)
    latents.batch(np.array([3, 0]), rng)


def test_a_header_names_what_is_wrong(folder) -> None:
    def broken(header):
        header["records"][1]["start"] = math.nan
        return header

    rewrite(folder / SHARD, broken)
    with pytest.raises(ValueError, match=f"header of '.*{SHARD}': records.1.start: must be"):
        Latents(folder).record(1)
    save_file(load_file(folder / SHARD), folder / SHARD)
    with pytest.raises(ValueError, match="its header says nothing of its rows"):
        Latents(folder)


def test_tensors_of_a_shard_fit_each_other(folder) -> None:
    path, found = folder / SHARD, load_file(folder / SHARD)
    whole = path.read_bytes()
    for changed, message in (
        ({"audio_std": found["audio_std"][:2]}, "audio_std has 2 rows for 4 clips"),
        ({"video_mean": found["video_mean"][:, 0].clone()}, "video_mean has 4 axes"),
        ({"audio_mean": torch.tensor(1.0).half()}, "audio_mean has 0 axes"),
        ({"text_bounds": found["text_bounds"] + 1}, "captions' places are not within its text"),
        ({"text_of": found["text_of"] - 1}, "captions' places are not within its text"),
        ({"text_of": found["text_of"] + 9}, "captions' places are not within its text"),
    ):
        rewrite(path, **changed)
        with pytest.raises(ValueError, match=message):
            Shard(path)
        path.write_bytes(whole)
    rewrite(path, lambda header: header | {"records": []})
    with pytest.raises(ValueError, match="for 0 clips it holds audio_mean"):
        Shard(path)
    path.write_bytes(whole)
    with safe_open(path, "pt") as file:
        said = file.metadata()
    del found["video_std"]
    save_file(found, path, said)
    with pytest.raises(ValueError, match="it holds audio_mean, audio_std, text"):
        Shard(path)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_weight_that_is_no_number_is_refused_when_it_is_read(toy_model, tmp_path, value) -> None:
    for part in ("ddit", "video_vae", "audio_vae", "text_encoder"):
        folder = shutil.copytree(toy_model, tmp_path / part)
        path = folder / f"{part}.safetensors"
        values = load_file(path)
        name = max(values, key=lambda key: values[key].numel())
        values[name].view(-1)[3] = value
        save_file(values, path)
        told = f"{part}.safetensors' has numbers that are not finite in '{name}'"
        with pytest.raises(ValueError, match=told.replace("[", r"\[")):
            model_folder.load(folder)
        with pytest.raises(ValueError, match="not finite"):
            weights.load(folder, part)


def test_captions_are_not_read_by_another_encoder_than_the_one_that_is_there(toy_model) -> None:
    """A config without its text encoder would say T5."""
    folder = shutil.copytree(toy_model, toy_model.with_name("other"))
    config = json.loads((folder / "config.json").read_text())
    del config["text_encoder"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"text_encoder.safetensors' is there, and .*config.json"):
        model_folder.load(folder)


def test_great_weights_are_numbers(tmp_path) -> None:
    """Their sum need not be one."""
    save_file({"x": torch.full((4,), 3e38)}, tmp_path / "x.safetensors")
    assert weights.load(tmp_path / "x.safetensors")["x"].isfinite().all()


def test_rendered_clips_say_what_they_are(tmp_path) -> None:
    made = impacts_dataset.write_dataset(
        tmp_path / "made", 2, height=16, width=16, seconds=1, workers=1, container="shards",
        progress=False,
    )  # fmt: skip
    card, lines = made / "dataset.json", made / "metadata.jsonl"
    for path, keys, value, message in (
        (card, ("fps",), math.inf, "dataset.json: fps: must be a number"),
        (card, ("clips",), 10**12, "dataset.json: clips: must be a whole number"),
        (card, ("container",), 3, "dataset.json: container: "),
        (card, ("fps",), 12, r"video.npy' must hold uint8 \[N, 12, 3, 16, 16\], got uint8 \[2, 16"),
        (card, ("seconds",), 0.5, r"video.npy' must hold uint8 \[N, 8, 3, 16, 16\]"),
        (card, ("sample_rate",), 1, r"audio.npy' must hold int16 \[N, 1\], got int16 \[2, "),
    ):
        before = path.read_text()
        change(path, *keys, to=value)
        with pytest.raises(ValueError, match=message):
            impacts_dataset.read_shards(made)
        path.write_text(before)
    text = lines.read_text()
    for old, new, message in (
        ('"row": 1', '"row": -1', "metadata.jsonl', line 2: row: must be"),
        ('"time_s": ', '"time_s": NaN, "x": ', "line 1: contacts.0.time_s: must be"),
        ('"file": "', '"file": "../', "line 1: file: must be the name of a file"),
    ):
        assert old in text
        lines.write_text(text.replace(old, new))
        with pytest.raises(ValueError, match=message):
            impacts_dataset.read_shards(made)
    lines.write_text(text + text + text)
    with pytest.raises(ValueError, match="has 2 pictures for 6 clips"):
        impacts_dataset.read_shards(made)
    lines.write_text(text)
    sound = made / "shard_00000.audio.npy"
    whole = sound.read_bytes()
    for damaged in (b"\x93NUMPY", whole.replace(b"), }", b"(, }"), whole.replace(b"}", b"=")):
        assert damaged != whole
        sound.write_bytes(damaged)
        with pytest.raises(ValueError, match="shard_00000.audio.npy' is damaged"):
            impacts_dataset.read_shards(made)


def test_what_is_written_is_utf_8_whatever_the_machine_says(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Path, "write_text", _ascii_unless_told(Path.write_text))
    latent_shards.write_json(tmp_path / "a.json", {"x": "größe"})
    latent_shards.write_lines(tmp_path / "a.jsonl", [{"x": "größe"}])
    assert "größe".encode() in (tmp_path / "a.jsonl").read_bytes()


def _ascii_unless_told(write):
    return lambda path, text, encoding="ascii": write(path, text, encoding=encoding)
