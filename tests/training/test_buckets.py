"""Several sizes and durations in one run."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from made import MODEL, flow_config, write_latents
from safetensors.torch import load_file

from syncflow import durable
from syncflow.clip import ClipSpec
from syncflow.training import runner
from syncflow.training.checkpoints import resume
from syncflow.training.datasets import buckets
from syncflow.training.distributed.groups import Group
from syncflow.training.settings import LoopConfig, TrainConfig
from syncflow.training.tasks.flow import FlowTraining

UNALIGNED = {**MODEL, "audio": {**MODEL["audio"], "upsampler_patches": 0}}
SIZES = {
    "square": {"height": 64, "width": 64, "seconds": 2.0},
    "wide": {"height": 64, "width": 96, "seconds": 2.0},
    "short": {"height": 64, "width": 64, "seconds": 1.0},
}


@pytest.fixture
def folders(tmp_path):
    counts = {"square": 8, "wide": 4, "short": 4}
    made = {name: write_latents(tmp_path / name, counts[name], **SIZES[name]) for name in SIZES}
    return {name: str(folder) for name, folder in made.items()}


def config(folders, out, loop=None, **changes):
    data = [folders["square"], {"data": folders["wide"], "batch_size": 2}, folders["short"]]
    loop = {"randomness": "sample", "log_every": 1, "ema": 0.9, "decay": 0, **(loop or {})}
    settings = {"model": UNALIGNED, "data": data, "validation": list(folders.values()), **changes}
    return flow_config(folders["square"], out, "both", loop, **settings)


def task(made):
    torch.manual_seed(0)
    return FlowTraining(TrainConfig.parse({"run": made}).run)


class Clips:
    """As many clips as it says, of which nothing is read."""

    def __init__(self, count):
        self.count, self.statistics, self.spec = count, {}, ClipSpec()

    def __len__(self):
        return self.count


def planned(counts, weights=None, sizes=None, **loop):
    settings = LoopConfig(**{"steps": 1, "batch_size": 4, **loop})
    sizes = sizes or [settings.batch_size] * len(counts)
    found = [
        buckets.Bucket(str(i), Clips(n), size)
        for i, (n, size) in enumerate(zip(counts, sizes, strict=True))
    ]
    return buckets.Plan(found, weights or [1.0] * len(counts), settings)


def test_buckets_come_as_often_as_their_clips_and_no_clip_more_than_another():
    made = planned([300, 100, 37], sizes=[4, 4, 2])
    seen = {name: [] for name in "012"}
    updates = 1024
    order = []
    for index in range(updates):
        what = made.at(index)
        seen[what.bucket.name].append(what.rows)
        order.append(what.bucket.name)
    batches = np.array([300 / 4, 100 / 4, 37 / 2])
    for name, share in zip("012", batches / batches.sum(), strict=True):
        assert len(seen[name]) == pytest.approx(updates * share, abs=4)
        rows = np.concatenate(seen[name])
        size = len(made.buckets[int(name)].latents)
        for epoch in range(len(rows) // size):
            assert sorted(rows[epoch * size : (epoch + 1) * size]) == list(range(size))
    assert len({"".join(order[i : i + 8]) for i in range(0, updates, 8)}) > 64, "not in turn"


def test_a_weight_is_how_often_a_clip_comes():
    made = planned([100, 100], weights=[3.0, 1.0])
    names = [made.at(index).bucket.name for index in range(512)]
    assert names.count("0") == 384


def test_an_update_is_the_same_in_one_part_or_in_four():
    whole = planned([30, 20], sizes=[8, 4], batch_size=8)
    parts = planned([30, 20], sizes=[2, 1], batch_size=2, accumulate=4)
    for update in range(300):
        one = whole.at(update)
        four = [parts.at(4 * update + part) for part in range(4)]
        assert {part.bucket.name for part in four} == {one.bucket.name}
        assert np.array_equal(one.rows, np.concatenate([part.rows for part in four]))
        assert list(one.places) == [place for part in four for place in part.places]


def test_a_plan_begun_anywhere_goes_on_alike():
    through = [planned([30, 20]).at(index) for index in range(700)]
    made = planned([30, 20])
    for index in (699, 3, 256, 255, 512):
        assert made.at(index).bucket.name == through[index].bucket.name
        assert np.array_equal(made.at(index).rows, through[index].rows)
    places = np.concatenate([each.places for each in through])
    assert len(set(places)) == len(places), "two clips with the same draws"


def test_the_tower_sees_the_geometry_of_the_batch(folders, tmp_path):
    training = task(config(folders, tmp_path / "run"))
    seen = set()
    real = training.module.video_tower.step

    def step(x, *arguments, **options):
        seen.add((*x.shape[2:], options["height"], options["width"], len(x)))
        return real(x, *arguments, **options)

    training.module.video_tower.step = step
    for index in range(12):
        loss, told = training.loss(training.batch(index), torch.Generator().manual_seed(0))
        assert torch.isfinite(loss) and sum("/" in name for name in told) == 2
    assert seen == {(4, 8, 8, 64, 64, 4), (4, 8, 12, 64, 96, 2), (2, 8, 8, 64, 64, 4)}


def test_cut_off_in_the_middle_it_goes_on_bit_for_bit(folders, tmp_path):
    for name, steps in (("whole", (6,)), ("cut", (3, 6))):
        for until in steps:
            loop = {"steps": until, "checkpoint_every": 3, "prefetch": 2 if name == "cut" else 0}
            made = config(folders, tmp_path / name, loop)
            (tmp_path / f"{name}.json").write_text(json.dumps(made))
            final = tmp_path / name / "model.safetensors"
            final.unlink(missing_ok=True)
            runner.run(tmp_path / f"{name}.json", progress=False)
    whole, cut = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[key], cut[key]) for key in whole)
    lines = [json.loads(x) for x in (tmp_path / "cut/metrics.jsonl").read_text().splitlines()]
    last = lines[-1]
    names = ("64x64x16", "64x96x16", "64x64x8")
    assert {f"val_audio_clean/{name}" for name in names} <= last.keys()
    each = [last[f"val_video/{name}"] for name in names]
    assert last["val_video"] == pytest.approx(np.mean(each)) and len(set(each)) == 3
    errors = [last[f"val_video_se/{name}"] for name in names]
    assert last["val_video_se"] == pytest.approx(np.linalg.norm(errors) / 3)
    assert sum(key.startswith("video/") for line in lines for key in line) == 6


def test_one_normalisation_serves_all(folders, tmp_path):
    path = Path(folders["wide"]) / "manifest.json"
    manifest = durable.read_sealed(path)
    manifest["statistics"]["video_mean"] = [10, 10]
    durable.write_sealed(path, manifest)
    training = task(config(folders, tmp_path / "run"))
    # 8 clips of 4*8*8 numbers with mean 0, 4 of 4*8*12 with mean 10, 4 of 2*8*8 with mean 0.
    share = 4 * 384 / (8 * 256 + 4 * 384 + 4 * 128)
    assert training.statistics["video_mean"] == pytest.approx([10 * share] * 2)
    spread = (1 + 100 * share * (1 - share)) ** 0.5
    assert training.statistics["video_std"] == pytest.approx([spread] * 2)
    for bucket in (*training.plan.buckets, *training.validation):
        assert bucket.latents.statistics == training.statistics


def test_a_batch_may_be_split_further_when_a_run_goes_on(folders, tmp_path):
    def text(loop, size):
        made = config(folders, tmp_path / "run", loop)
        made["data"][1]["batch_size"] = size
        return TrainConfig.parse({"run": made}).run.model_dump_json()

    whole = text({"batch_size": 8}, 4)
    assert not resume.differing(whole, text({"batch_size": 4, "accumulate": 2}, 2))
    assert resume.differing(whole, text({"batch_size": 4, "accumulate": 2}, 4))


def test_what_does_not_go_together_is_refused(folders, tmp_path):
    def refused(message, made, **group):
        with pytest.raises(ValueError, match=message):
            FlowTraining(TrainConfig.parse({"run": made}).run, group=Group(**group))

    good = config(folders, tmp_path / "run")
    refused("upsampler_patches is 4, but 64x64x16", {**good, "model": MODEL})
    other = str(write_latents(tmp_path / "other", 4, height=96))
    refused(f"{other} was made with other geometry", {**good, "validation": [other]})
    refused("batch_size 2 cannot be shared by 4 processes", good, rank=1, world=4)
    refused("data.folders.1.weight", {**good, "data": [other, {"data": other, "weight": 0}]})
    refused("data.folders", {**good, "data": []})
    path = Path(folders["wide"]) / "manifest.json"
    manifest = durable.read_sealed(path) | {"encoders": {"video_vae": "y"}}
    durable.write_sealed(path, manifest)
    refused("wide was made with other encoders", good)


def test_a_sample_that_cannot_be_shared_is_refused(folders, tmp_path):
    with pytest.raises(ValueError, match="is 2, and 1 process is not a multiple"):
        Group().of_neighbours(2)

    def refused(message, made, sequence):
        group = Group(0, sequence, sequence=sequence)
        with pytest.raises(ValueError, match=message):
            FlowTraining(TrainConfig.parse({"run": made}).run, group=group)

    good = config(folders, tmp_path / "run")
    short = {**good, "data": folders["short"], "validation": folders["short"]}
    refused("is 4, and 8 frames are 2 latent frames, which it does not divide", short, 4)
    longer = str(write_latents(tmp_path / "longer", 4, seconds=3.0, height=64, width=64))
    three = {**good, "data": longer, "validation": longer}
    refused("is 3, which does not divide model.adaptor.num_heads 2", three, 3)
