"""Two processes against one: replicas and ZeRO 1 to 3 learn the same, and share checkpoints.

The two are started once for all tests of this page: most of their time is imports.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from made import MODEL, flow_config, told, write_latents
from safetensors.torch import load_file

from syncflow.data import media
from syncflow.training import runner
from syncflow.training.checkpoints import checkpoint

HERE = Path(__file__).parent
STEPS = 20
LOOP = {
    "steps": STEPS, "lr": 0.003, "ema": 0.9, "warmup": 2, "decay": 0.0, "randomness": "sample",
    "log_every": 1, "validate_every": STEPS, "checkpoint_every": 10, "keep_every": 10,
    "average_every": 10,
}  # fmt: skip
UNALIGNED = {**MODEL, "audio": {**MODEL["audio"], "upsampler_patches": 0}}
OPTIONS = {"coupling": "ot", "conditioned": 0.3, "decoupled": 0.2}


def start(arguments: list[str], rank: int, port: int, world: int = 2) -> subprocess.Popen:
    environment = {
        **os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1]),
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", *arguments], env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        # What runs in the background may have been told to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def losses(run: Path) -> list[float]:
    return told(run, "loss")


def write_sounds(folder: Path) -> None:
    folder.mkdir()
    for index in range(4):
        wave = torch.sin(torch.arange(9600) * (0.02 + 0.01 * index)) * torch.linspace(1, 0, 9600)
        media.write_wav(folder / f"{index}.wav", 0.5 * wave)


def audio_vae_config(sounds: Path, out: Path) -> dict:
    model = {"kind": "encodec", "latent_channels": 4, "num_filters": 2, "num_lstm_layers": 1}
    loop = {
        "steps": 5, "batch_size": 4, "lr": 0.002, "ema": 0.9, "warmup": 1, "precision": "fp32",
        "randomness": "sample", "log_every": 1, "validate_every": 5, "threads": 1,
    }  # fmt: skip
    return {
        "task": "audio_vae", "out": str(out), "data": str(sounds), "validation": str(sounds),
        "model": model, "seconds": 0.1, "reconstruction": "mel", "windows": [256],
        "adversarial": {"filters": 4, "start": 1, "lr": 2e-5}, "samples_every": 5, "loop": loop,
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("deepspeed")
    folder = tmp_path_factory.mktemp("distributed")
    latents = write_latents(folder / "latents", 12)

    def write(name, zero=None, loop=None, train="both", **changes):
        settings = {**LOOP, **(loop or {})}
        if zero:
            settings["deepspeed"] = {"zero_optimization": {"stage": zero}}
        if settings.get("precision") == "bf16" and zero == 2:  # as the shipped stages
            settings["deepspeed"]["data_types"] = {"grad_accum_dtype": "fp32"}
        config = flow_config(latents, folder / name, train, settings, **{**OPTIONS, **changes})
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(config))
        return folder / f"{name}.json"

    wide = write_latents(folder / "wide", 6, width=48)
    buckets = [str(latents), {"data": str(wide), "batch_size": 2}]
    several = {"data": buckets, "validation": [str(latents), str(wide)], "model": UNALIGNED}

    def write_vae(name, zero=None):
        config = audio_vae_config(folder / "sounds", folder / name)
        if zero:
            config["loop"]["deepspeed"] = {"zero_optimization": {"stage": zero}}
        (folder / f"{name}.json").write_text(json.dumps(config))
        return folder / f"{name}.json"

    write_sounds(folder / "sounds")
    runner.run(write_vae("vae_one"), progress=False)
    runner.run(write("one"), progress=False)
    runner.run(write("buckets_one", **several), progress=False)
    runner.run(write("device_one", None, {"steps": 6, "randomness": "device"}), progress=False)
    short = {"steps": 6, "max_nonfinite": 2}
    jobs = [
        write("replicas"),
        *(write(f"zero{stage}", stage) for stage in (1, 2, 3)),
        write("accumulated", 2, {"batch_size": 2, "accumulate": 2}, coupling="none"),
        write("frozen", 3, {"steps": 3, "precision": "bf16"}, "audio", init=str(folder / "one")),
        write("poison", 1, short),
        write("bf16/poison", 2, {**short, "precision": "bf16"}),
        *(write(f"{stage}/spike", stage, {**short, "max_spike": 20}) for stage in (2, 3)),
        write("from_one", 2),
        write("buckets", 2, **several),
        write("sequence", None, {"sequence_parallel": 2}),
        write("sequence_zero2", 2, {"sequence_parallel": 2}),
        write("device", None, {"steps": 6, "randomness": "device", "prefetch": 2, "readers": 2}),
        write("device_zero3", 3, {"steps": 6, "randomness": "device"}),
        write_vae("vae_two"),
        write_vae("vae_zero2", 2),
    ]
    runner.run(write("whole", coupling="none"), progress=False)
    begun = folder / "one" / "checkpoints" / "00000010"
    shutil.copytree(begun, folder / "from_one" / "checkpoints" / begun.name)
    port = free_port()
    workers = [start([str(HERE / "worker.py"), *map(str, jobs)], rank, port) for rank in (0, 1)]
    for worker in workers:
        said, _ = worker.communicate(timeout=1200)
        assert worker.returncode == 0, said[-3000:]
    return folder


@pytest.mark.parametrize(
    "name", ["replicas", "zero1", "zero2", "zero3", "sequence", "sequence_zero2"]
)
def test_two_processes_learn_what_one_does(folder, name):
    one, two = losses(folder / "one"), losses(folder / name)
    assert len(one) == len(two) == STEPS
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) < 1e-4
    for key in ("val_video", "val_audio_clean", "val_audio_other_se"):
        assert told(folder / "one", key) == pytest.approx(told(folder / name, key), abs=1e-4), key
    ours, theirs = (load_file(folder / run / "model.safetensors") for run in ("one", name))
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():  # averaged weights, from every shard
        torch.testing.assert_close(value, theirs[key], rtol=1e-3, atol=3e-4)


@pytest.mark.parametrize("name", ["replicas", "zero1", "zero2", "zero3", "sequence"])
def test_two_processes_write_the_averages_that_one_does(folder, name):
    files = sorted((folder / "one" / "averages").iterdir())
    assert len(files) == 4  # of two steps and two lengths
    # Averages that are never updated, or hold the weights themselves, do not differ so.
    lengths = [load_file(path) for path in files[2:]]
    assert max(float((v - lengths[1][k]).abs().max()) for k, v in lengths[0].items()) > 2e-3
    for path in files:
        ours, theirs = (load_file(folder / run / "averages" / path.name) for run in ("one", name))
        assert ours.keys() == theirs.keys() and len(ours) > 10
        for key, value in ours.items():
            torch.testing.assert_close(value, theirs[key], rtol=2e-3, atol=5e-4)


@pytest.mark.parametrize("name", ["vae_two", "vae_zero2"])
def test_two_processes_train_a_vae_against_one_discriminator(folder, name):
    one, two = (losses(folder / run) for run in ("vae_one", name))
    # Adam turns a gradient that is nothing but rounding into a step of lr: a discriminator has many
    # such at first, where what it says of both kinds cancels. Hence its small lr here.
    assert len(one) == 5 and one == pytest.approx(two, abs=2e-4)
    for key in ("adversarial", "features", "val_mel_db", "val_si_sdr_db"):
        expected = told(folder / "vae_one", key)
        assert expected == pytest.approx(told(folder / name, key), abs=2e-3), key
    mine, theirs = (checkpoint.newest(folder / run) for run in ("vae_one", name))
    critic = [key for key in mine if key.startswith("critic")]
    assert critic and set(mine) == set(theirs)
    for key in critic:
        torch.testing.assert_close(mine[key], theirs[key], rtol=1e-2, atol=1e-5)
    assert any(mine[key].abs().max() > 1e-3 for key in critic if key.startswith("critic_exp_avg/"))
    assert len(list((folder / name / "samples").iterdir())) == 4


@pytest.mark.parametrize("name", ["sequence", "sequence_zero2"])
def test_gradients_of_a_shared_sample_are_the_whole_ones(folder, name):
    one, two = (told(folder / run, "grad_norm") for run in ("one", name))
    assert one == pytest.approx(two, rel=1e-4) and len(one) == STEPS


def test_buckets_are_the_same_for_two_processes(folder):
    for key in ("loss", "video/32x32x8", "audio/32x48x8", "val_video/32x48x8"):
        one, two = (told(folder / run, key) for run in ("buckets_one", "buckets"))
        assert one and one == pytest.approx(two, abs=1e-4), key
    steps = [told(folder / "buckets", f"video/{name}") for name in ("32x32x8", "32x48x8")]
    assert len(steps[0]) + len(steps[1]) == STEPS


@pytest.mark.parametrize("name", ["one", "replicas", "zero1", "zero2", "zero3", "sequence"])
def test_communication_is_timed_where_there_is_any(folder, name):
    seconds = told(folder / name, "time/communication")
    assert len(seconds) == STEPS
    assert all(each == 0 if name == "one" else 0 < each < 60 for each in seconds)


@pytest.mark.parametrize("name", ["device", "device_zero3"])
def test_draws_on_the_device_are_the_same_for_two_processes(folder, name):
    one, two = losses(folder / "device_one"), losses(folder / name)
    assert len(one) == 6 and one == pytest.approx(two, abs=1e-4)
    # Posteriors are drawn by another generator than on the host.
    assert one != pytest.approx(losses(folder / "one")[:6], abs=1e-4)


def test_accumulated_parts_learn_what_a_batch_does(folder):
    # A batch's losses are means over its moving videos, so parts weigh them a little differently.
    runs = ("whole", "accumulated")
    whole, parts = (load_file(folder / run / "model.safetensors") for run in runs)
    far = max(float((whole[key] - parts[key]).abs().max()) for key in whole)
    assert far < 0.05


def test_what_is_frozen_comes_out_bit_identical(folder):
    before = load_file(folder / "one" / "model.safetensors")
    after = load_file(folder / "frozen" / "model.safetensors")
    moved = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert moved == {"adaptors", "audio_tower", "upsampler"}


@pytest.mark.parametrize("name", ["poison", "bf16/poison", "2/spike", "3/spike"])
def test_a_step_that_is_not_finite_is_left_out_by_zero(folder, name):
    saved = checkpoint.newest(folder / name)
    assert saved.about["step"] == 6 and saved.about["skipped"] == 1
    values = load_file(folder / name / "model.safetensors")
    assert all(torch.isfinite(value).all() for value in values.values())


@pytest.mark.parametrize(
    ("name", "alone"), [("zero1", "one"), ("zero3", "one"), ("buckets", "buckets_one")]
)
def test_one_process_goes_on_from_two(folder, tmp_path, name, alone):
    config = json.loads((folder / f"{alone}.json").read_text())
    config["out"] = str(tmp_path / "run")
    (tmp_path / "run.json").write_text(json.dumps(config))
    begun = folder / name / "checkpoints" / "00000010"
    shutil.copytree(begun, tmp_path / "run" / "checkpoints" / begun.name)
    runner.run(tmp_path / "run.json", progress=False)
    expected = losses(folder / alone)[10:]
    assert max(abs(a - b) for a, b in zip(losses(tmp_path / "run"), expected, strict=True)) < 1e-4


def test_two_processes_go_on_from_one(folder):
    found = losses(folder / "from_one")
    assert len(found) == STEPS - 10
    expected = losses(folder / "one")[10:]
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) < 1e-4


def test_a_checkpoint_of_zero3_is_a_place_to_start_from(folder, tmp_path):
    config = json.loads((folder / "one.json").read_text())
    saved = folder / "zero3" / "checkpoints" / f"{STEPS:08d}"
    config |= {"out": str(tmp_path / "next"), "init": str(saved)}
    config["loop"]["steps"] = 1
    (tmp_path / "next.json").write_text(json.dumps(config))
    runner.run(tmp_path / "next.json", progress=False)
    assert (tmp_path / "next" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("precision", "world"),
    [("fp32", 1), ("bf16", 1), pytest.param("bf16", 2, marks=pytest.mark.slow)],
)
def test_zero_goes_on_bit_for_bit_where_it_stopped(tmp_path, precision, world):
    """Also at step 0: ZeRO-3 had no moments before its first step, to save or to put back."""
    pytest.importorskip("deepspeed")
    latents = write_latents(tmp_path / "latents", 8)
    stages = (1, 2, 3)
    runs = [f"{name}{stage}" for stage in stages for name in ("whole", "early", "cut", "late")]
    for run in runs:
        zero = {"zero_optimization": {"stage": int(run[-1])}}
        if precision == "bf16" and run[-1] == "2":  # as the shipped stages
            zero["data_types"] = {"grad_accum_dtype": "fp32"}
        loop = {**LOOP, "steps": 4, "checkpoint_every": 2, "validate_every": 2, "batch_size": 4,
                "precision": precision,
                "randomness": "device" if precision == "bf16" else "sample",
                "deepspeed": zero}  # fmt: skip
        made = flow_config(latents, tmp_path / run, "both", loop, **OPTIONS)
        (tmp_path / f"{run}.json").write_text(json.dumps(made))

    def train(*names):
        configs = [str(tmp_path / f"{run}.json") for run in runs if run[:-1] in names]
        port, arguments = free_port(), [str(HERE / "worker.py"), *configs]
        workers = [start(arguments, rank, port, world) for rank in range(world)]
        for worker in workers:
            said, _ = worker.communicate(timeout=900)
            assert worker.returncode == 0, said[-3000:]

    train("whole", "early")
    for stage in stages:
        for begun, at, name in (("whole", 2, "cut"), ("early", 0, "late")):
            saved = tmp_path / f"{begun}{stage}" / "checkpoints" / f"{at:08d}"
            shutil.copytree(saved, tmp_path / f"{name}{stage}" / "checkpoints" / saved.name)
    train("cut", "late")
    for stage in stages:
        whole = load_file(tmp_path / f"whole{stage}" / "model.safetensors")
        for name, steps in (("cut", 2), ("late", 4)):
            found = load_file(tmp_path / f"{name}{stage}" / "model.safetensors")
            for key, value in whole.items():
                assert torch.equal(value, found[key]), (name, stage, key)
            ends = [checkpoint.newest(tmp_path / f"{run}{stage}") for run in ("whole", name)]
            powers = [key for key in ends[0] if key.startswith(("power0/", "power1/"))]
            assert powers and all(torch.equal(ends[0][key], ends[1][key]) for key in powers)
            told_again = losses(tmp_path / f"{name}{stage}")
            assert told_again == losses(tmp_path / f"whole{stage}")[-steps:]


@pytest.mark.slow
def test_two_processes_end_together_by_the_clock(tmp_path):
    """Each by its own clock would leave the other waiting for a step that never comes."""
    latents = write_latents(tmp_path / "latents", 8)
    loop = {**LOOP, "steps": None, "minutes": 0.1, "decay": 1.0, "checkpoint_every": 0}
    made = flow_config(latents, tmp_path / "run", "both", loop, **OPTIONS)
    (tmp_path / "run.json").write_text(json.dumps(made))
    arguments, port = [str(HERE / "worker.py"), str(tmp_path / "run.json")], free_port()
    workers = [start(arguments, rank, port) for rank in range(2)]
    for worker in workers:
        said, _ = worker.communicate(timeout=300)
        assert worker.returncode == 0, said[-3000:]
    about = checkpoint.newest(tmp_path / "run").about
    assert about["step"] > 1 and 6 <= about["seconds"] < 60
    rates = told(tmp_path / "run", "lr")
    assert len(rates) == about["step"] and rates[-1] < max(rates)


@pytest.mark.slow
def test_four_processes_share_batches_and_samples(tmp_path):
    """Two groups of two, and one of four with patches that four do not divide."""
    pytest.importorskip("deepspeed")
    latents = write_latents(tmp_path / "latents", 8, seconds=2.0, width=48)
    model = {**UNALIGNED, "adaptor": {"num_heads": 4}}
    temporal = {**UNALIGNED, "adaptor": {"num_heads": 4, "axis": "temporal"}}

    def write(name, loop=None, **changes):
        settings = {**LOOP, "steps": 8, **(loop or {})}
        made = flow_config(
            latents, tmp_path / name, "both", settings, **{"model": model, **OPTIONS, **changes}
        )
        (tmp_path / f"{name}.json").write_text(json.dumps(made))
        return tmp_path / f"{name}.json"

    runner.run(write("one"), progress=False)
    runner.run(write("one_temporal", model=temporal), progress=False)
    zero = {"deepspeed": {"zero_optimization": {"stage": 3}}}
    jobs = [
        write("two_by_two", {"sequence_parallel": 2, **zero}),
        write("four", {"sequence_parallel": 4, "recompute": "blocks"}),
        write("temporal", {"sequence_parallel": 2}, model=temporal),
    ]
    port = free_port()
    arguments = [str(HERE / "worker.py"), *map(str, jobs)]
    workers = [start(arguments, rank, port, world=4) for rank in range(4)]
    for worker in workers:
        said, _ = worker.communicate(timeout=600)
        assert worker.returncode == 0, said[-3000:]
    for name in ("two_by_two", "four", "temporal"):
        one = tmp_path / ("one_temporal" if name == "temporal" else "one")
        for key, near in (("loss", 1e-4), ("grad_norm", 1e-4)):
            assert told(tmp_path / name, key) == pytest.approx(told(one, key), rel=near), name
