"""The video decoder on latents as the tower makes them."""

import json
import shutil

import numpy as np
import pytest
import torch

from syncflow import durable
from syncflow.data import impacts_dataset
from syncflow.data.made_latents import MadeLatents
from syncflow.training import runner
from syncflow.training.datasets.clips import Films
from syncflow.training.distributed.groups import Group
from syncflow.training.losses import reconstruction
from syncflow.training.settings import ClipsConfig, LoopConfig, TrainConfig
from syncflow.training.tasks import export, randomness
from syncflow.training.tasks.video_vae import VideoVAETraining
from tests import small_model

GEOMETRY = {"seconds": 2.0, "fps": 16, "height": 32, "width": 32}
LOOP = {"steps": 2, "batch_size": 4, "threads": 1, "precision": "fp32", "validate_every": 2}


def run(folder, **config):
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    runner.run(path, progress=False)


def made_config(folder, out="made", **changes):
    return {
        "task": "made_latents", "out": str(folder / out), "data": str(folder / "clips"),
        "model": str(folder / "model"), "batch_size": 2, **changes,
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three clips of level 1, six of level 3, a small model and what it makes of the three."""
    folder = tmp_path_factory.mktemp("made")
    for name, clips, level in (("clips", 3, 1), ("clips3", 6, 3)):
        impacts_dataset.write_dataset(
            folder / name, clips, level=level, height=32, width=32, container="shards",
            workers=1, progress=False,
        )  # fmt: skip
    small_model.build(geometry=GEOMETRY).save(folder / "model")
    run(folder, **made_config(folder))
    return folder


def vae_config(folder, **changes):
    config = {
        "task": "video_vae", "out": str(folder / "vae"), "validation": str(folder / "clips"),
        "data": [
            {"data": str(folder / "clips"), "made": str(folder / "made"), "share": 2},
            {"data": str(folder / "clips3")},
        ],
        "model": small_model.CONFIG["video_vae"], "init": str(folder / "model"),
        "freeze_encoder": True, "loop": LOOP, **changes,
    }  # fmt: skip
    return TrainConfig.parse({"run": config}, "test").run


def encoded(folder):
    """The encoder's latents of the three clips."""
    vae = export.load_part(folder / "model", "video_vae")
    clips = impacts_dataset.read_shards(folder / "clips")
    video = torch.from_numpy(np.stack([clips.video(i) for i in range(3)]))
    return vae.encode(video.movedim(2, 1) / 127.5 - 1).mode()


def test_made_latents_are_nearer_the_later_they_start(folder):
    latent = encoded(folder)
    std = torch.tensor(small_model.CONFIG["latent_std_video"]).reshape(1, -1, 1, 1, 1)
    means = []
    for start in (0.1, 0.5, 0.99):
        run(folder, **made_config(folder, f"made_{start}", start=[start, start]))
        made = MadeLatents(folder / f"made_{start}")
        rows, distances = zip(*(made.row(i) for i in range(3)), strict=True)
        told = torch.stack(distances)
        counted = ((torch.stack(rows) - latent) / std).square().mean((1, 3, 4))
        # float16 rounds what is stored.
        torch.testing.assert_close(told, counted, rtol=0.02, atol=1e-4)
        means.append(float(told.mean()))
    assert means[0] > means[1] > means[2] > 0
    assert means[2] < 0.01


def test_noise_is_replaced_as_the_model_says(folder):
    made = {}
    for name, sampling in {
        "none": {}, "all": {"eta": 1.0}, "late": {"eta": 1.0, "eta_start": 0.9}
    }.items():  # fmt: skip
        model = folder / f"model_{name}"
        shutil.copytree(folder / "model", model)
        config = json.loads((model / "config.json").read_text())
        config["sampling"] = {**config["sampling"], "steps": 6, **sampling}
        (model / "config.json").write_text(json.dumps(config))
        out = f"noise_{name}"
        run(folder, **made_config(folder, out, model=str(model), start=[0.3, 0.3]))
        made[name] = MadeLatents(folder / out).row(0)[0]
    torch.testing.assert_close(made["late"], made["none"], rtol=0, atol=1e-2)
    assert (made["all"] - made["none"]).abs().max() > 0.05


def test_what_was_cut_off_is_made_alike(folder):
    run(folder, **made_config(folder, "again"))
    whole = sorted((folder / "made").glob("*.safetensors"))
    again = sorted((folder / "again").glob("*.safetensors"))
    assert len(whole) == len(again) == 2
    (folder / "again" / "manifest.json").unlink()
    again[0].unlink()
    run(folder, **made_config(folder, "again"))
    assert [path.read_bytes() for path in whole] == [path.read_bytes() for path in again]
    with pytest.raises(ValueError, match="other seed: 0, expected 1"):
        run(folder, **made_config(folder, "again", seed=1))


def test_what_is_damaged_is_named_and_made_again(folder):
    run(folder, **made_config(folder, "spoilt"))
    out = folder / "spoilt"
    card, (first, second) = out / "manifest.json", sorted(out.glob("*.safetensors"))
    whole, said = first.read_bytes(), card.read_bytes()
    size = 8 + int.from_bytes(whole[:8], "little")
    no_numbers = whole[:size] + b"\xff" * 8 + whole[size + 8 :]
    for damaged in (b"", whole[:90], second.read_bytes(), no_numbers):
        first.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"made_00000.safetensors' is damaged.*run again"):
            MadeLatents(out)
        card.unlink()
        run(folder, **made_config(folder, "spoilt"))
        assert first.read_bytes() == whole and card.read_bytes() == said
    assert len(list(out.glob("made_00000.safetensors.damaged*"))) == 4
    manifest = durable.read_sealed(card)
    for key, value in (("count", 10**12), ("count", -1), ("batch_size", 0), ("encoder", None)):
        durable.write_sealed(card, manifest | {key: value})
        with pytest.raises((ValueError, FileNotFoundError), match="manifest.json' is damaged|made"):
            MadeLatents(out)
        card.write_text(json.dumps(manifest | {key: value}) + "{")
        with pytest.raises(ValueError, match="manifest.json' is damaged"):
            MadeLatents(out)


def test_clips_must_be_of_the_models_size(folder):
    impacts_dataset.write_dataset(
        folder / "large", 1, height=64, width=64, container="shards", workers=1, progress=False
    )
    with pytest.raises(ValueError, match="64"):
        run(folder, **made_config(folder, "other", data=str(folder / "large")))
    assert not (folder / "other").exists()


def test_the_decoder_is_given_what_was_made(folder):
    task = VideoVAETraining(vae_config(folder))
    made, pixels = MadeLatents(folder / "made"), impacts_dataset.read_shards(folder / "clips")
    latents = torch.stack([made.row(i)[0] for i in range(3)])
    seen = 0
    for index in range(8):
        pieces = task.batch(index)
        assert pieces.originals.shape == (4, 3, 16, 32, 32)
        if pieces.latent is None:
            continue
        assert len(pieces.latent) == pieces.made_B.sum()
        for video, latent in zip(pieces.originals[pieces.made_B], pieces.latent, strict=True):
            places = [
                (clip, first) for clip in range(3) for first in range(5)
                if torch.equal(latents[clip, :, first : first + 4], latent)
            ]  # fmt: skip
            ((clip, first),) = places  # and the very pixels of that clip at that time
            there = torch.from_numpy(pixels.video(clip)[4 * first : 4 * first + 16].copy())
            assert torch.equal(((video + 1) * 127.5).round().byte().movedim(0, 1), there)
            seen += 1
    assert 10 <= seen <= 31  # two thirds of 32 by the shares


def test_only_the_decoder_learns(folder):
    config = vae_config(folder)
    run(folder, **config.model_dump())
    before, after = (
        export.load_part(folder / name, "video_vae").state_dict() for name in ("model", "vae")
    )
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder"}


def test_frames_that_moved_away_count_less(folder):
    task = VideoVAETraining(vae_config(folder, made_distance=0.5))
    pieces = next(p for p in map(task.batch, range(8)) if 0 < p.made_B.sum() < 4)
    counts = pieces.nearness(0.5)
    assert counts.shape == (4, 1, 16, 1, 1)
    assert (counts[~pieces.made_B] == 1).all()
    expected = 1 / (1 + pieces.distance / 0.5)
    assert torch.equal(counts[pieces.made_B][:, 0, ::4, 0, 0], expected)
    assert torch.equal(counts[pieces.made_B][:, 0, 3::4, 0, 0], expected)

    video = torch.zeros(1, 3, 2, 4, 4)
    out = video.clone()
    out[:, :, 1] = 0.5
    half = reconstruction.video_reconstruction(
        out, video, 8.0, counts_B1F11=torch.tensor([1.0, 0.5])[None, None, :, None, None]
    )  # noqa: E501
    assert half == 0.5 * reconstruction.video_reconstruction(out, video, 8.0)


def test_processes_share_the_pieces_of_one(folder):
    config = vae_config(folder, loop={**LOOP, "randomness": "sample"})
    whole = VideoVAETraining(config)
    index = next(i for i in range(8) if 0 < whole.batch(i).made_B.sum() < 4)
    pieces = whole.batch(index)
    latents, _ = whole._latents(pieces, randomness.SampleGenerators(0, range(4)))
    for rank in range(2):
        half = VideoVAETraining(config, group=Group(rank, 2))
        rows = slice(2 * rank, 2 * rank + 2)
        share = half.batch(index)
        assert torch.equal(share.originals, pieces.originals[rows])
        assert torch.equal(share.made_B, pieces.made_B[rows])
        drawn, _ = half._latents(share, randomness.SampleGenerators(0, range(4)[rows]))
        torch.testing.assert_close(drawn, latents[rows], atol=1e-5, rtol=1e-4)
    some = np.array([1, 3])
    each = randomness.normal((4, 5), randomness.SampleGenerators(0, range(4)))
    of_them = randomness.of_rows(randomness.SampleGenerators(0, range(4)), some)
    assert torch.equal(randomness.normal((2, 5), of_them), each[some])


def test_kinds_come_as_often_as_asked(folder):
    clips = impacts_dataset.read_shards(folder / "clips3")
    kinds = [entry["attributes"]["kind"] for entry in clips.metadata]
    wanted = kinds[0]
    others = dict.fromkeys(set(kinds) - {wanted}, 0.0)
    loop = LoopConfig(**{**LOOP, "batch_size": 16})
    entry = ClipsConfig(data=str(folder / "clips3"), kinds=others)
    pieces = Films([entry], 32, loop, "any").batch(0)
    shown = ((pieces.originals + 1) * 127.5).round().byte().movedim(1, 2)
    allowed = [torch.from_numpy(clips.video(i).copy()) for i in range(6) if kinds[i] == wanted]
    assert all(any(torch.equal(each, clip) for clip in allowed) for each in shown)
    with pytest.raises(ValueError, match="has no strikes"):
        Films([ClipsConfig(data=str(folder / "clips3"), kinds={"strikes": 2})], 32, loop, "any")


def test_latents_must_be_of_the_clips_and_of_the_encoder(folder):
    elsewhere = [{"data": str(folder / "clips3"), "made": str(folder / "made")}]
    with pytest.raises(ValueError, match="other clips"):
        VideoVAETraining(vae_config(folder, data=elsewhere))
    with pytest.raises(ValueError, match="another encoder"):
        VideoVAETraining(vae_config(folder, init=None))
    with pytest.raises(ValueError, match="freeze_encoder"):
        VideoVAETraining(vae_config(folder, freeze_encoder=False))
    with pytest.raises(FileNotFoundError, match="no finished made latents"):
        missing = [{"data": str(folder / "clips"), "made": str(folder / "nothing")}]
        VideoVAETraining(vae_config(folder, data=missing))
