"""How training is started and stopped: launchers' arguments and environments, exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from made import flow_config, write_latents
from safetensors.torch import load_file
from test_distributed import free_port, losses, start

from syncflow import train
from syncflow.training import runner
from syncflow.training.checkpoints import checkpoint
from syncflow.training.distributed import groups
from syncflow.training.distributed.groups import Group

ROOT = Path(__file__).parents[2]


@pytest.fixture
def nothing_set(monkeypatch):
    for name in (*os.environ,):
        launcher = name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
        if launcher or name.startswith("SLURM_"):
            monkeypatch.delenv(name)
    # What the code sets by itself is undone too.
    monkeypatch.setenv("MASTER_ADDR", "")
    monkeypatch.delenv("MASTER_ADDR")
    monkeypatch.setenv("MASTER_PORT", "")
    monkeypatch.delenv("MASTER_PORT")
    return monkeypatch


def test_alone_without_a_launcher(nothing_set):
    assert groups.environment() == (0, 1, 0)


def test_torchrun_and_deepspeed(nothing_set):
    for name, value in {"RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1"}.items():
        nothing_set.setenv(name, value)
    nothing_set.setenv("MASTER_ADDR", "10.0.0.1")
    assert groups.environment() == (9, 16, 1)


def test_slurm_step(nothing_set):
    slurm = {
        "SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1",
        "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7", "SLURM_JOB_ID": "123456",
    }  # fmt: skip
    for name, value in slurm.items():
        nothing_set.setenv(name, value)
    assert groups.environment() == (5, 8, 1)
    assert os.environ["MASTER_ADDR"] == "10.0.0.7" and os.environ["MASTER_PORT"] == "23456"


def test_a_share_of_work_is_numbered_by_whoever_started_the_process(nothing_set):
    """No process of a share talks to another: nobody needs an address."""
    assert groups.share() == groups.Share(0, 1, 0, 0)
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}.items():
        nothing_set.setenv(name, value)
    nothing_set.setenv("LOCAL_WORLD_SIZE", "2")
    assert groups.share() == groups.Share(3, 4, 1, 2)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        nothing_set.delenv(name)
    array = {"TASK_ID": "7", "TASK_COUNT": "3", "TASK_MIN": "3", "TASK_STEP": "2"}  # 3, 5, 7
    for name, value in array.items():
        nothing_set.setenv(f"SLURM_ARRAY_{name}", value)
    assert groups.share() == groups.Share(2, 3, 0, 0)
    slurm = {"PROCID": "1", "STEP_NUM_TASKS": "4", "LOCALID": "1", "NTASKS_PER_NODE": "4"}
    for name, value in slurm.items():  # four processes in each task of the array
        nothing_set.setenv(f"SLURM_{name}", value)
    assert groups.share() == groups.Share(9, 12, 1, 4)
    nothing_set.setenv("SLURM_ARRAY_TASK_ID", "31")
    with pytest.raises(ValueError, match="SLURM_ARRAY_TASK_ID is 31 of 3 tasks.*--array=0-7"):
        groups.share()


def test_a_batch_script_alone_is_one_process(nothing_set):
    nothing_set.setenv("SLURM_PROCID", "0")
    nothing_set.setenv("SLURM_NTASKS", "8")  # of the job, not of a step
    assert groups.environment()[1] == 1


def test_what_a_launcher_forgot_is_named(nothing_set):
    nothing_set.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="MASTER_ADDR"):
        groups.environment()
    nothing_set.setenv("WORLD_SIZE", "two")
    with pytest.raises(ValueError, match="WORLD_SIZE is 'two'"):
        groups.environment()


@pytest.mark.parametrize("flag", [["--local_rank=1"], ["--local-rank", "1"], []])
def test_launchers_arguments_are_taken(nothing_set, capsys, tmp_path, flag):
    nothing_set.setenv("LOCAL_RANK", "0")
    assert train.main(["--config", str(tmp_path / "none.json"), "--device", "cpu", *flag]) == 2
    assert "no config file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "required: --config"),
        (["--confg", "a.json"], "required: --config"),
        (["--config", "a.json", "extra"], "unrecognized arguments: extra"),
        *(
            (["--config", "a.json", "--timeout-minutes", value], f"above 0, not '{value}'")
            for value in ("0", "-3", "nan", "inf", "x")
        ),
    ],
)
def test_a_wrong_argument_is_one_line(capsys, words, message):
    assert train.main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("syncflow: error: ") and said.count("\n") == 1 and message in said


def test_ctrl_c_while_pytorch_is_imported_is_no_traceback(monkeypatch, capsys):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "_run", interrupted)
    assert train.main(["--config", "a.json"]) == 130
    assert capsys.readouterr().err == "syncflow: error: interrupted\n"


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(ValueError, match="batch_size 6 cannot be shared by 4"):
        Group(0, 4).rows(6)
    assert [Group(rank, 2).rows(6) for rank in (0, 1)] == [slice(0, 3), slice(3, 6)]


@pytest.fixture
def begin():
    """``start``, but what still runs when the test ends is ended."""
    begun = []

    def start_one(*arguments, **options):
        begun.append(start(*arguments, **options))
        return begun[-1]

    yield start_one
    for process in begun:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture
def long_run(tmp_path):
    """The folder with the config of a run that takes minutes."""
    loop = {
        "steps": 100_000, "randomness": "sample", "log_every": 1, "validate_every": 10**6,
        "checkpoint_every": 5, "decay": 0,
    }  # fmt: skip
    latents = write_latents(tmp_path / "latents")
    config = flow_config(latents, tmp_path / "run", "video", loop)
    (tmp_path / "run.json").write_text(json.dumps(config))
    return tmp_path


def wait_for_checkpoint(run: Path, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not checkpoint.folders(run):
        assert time.monotonic() < deadline, "no checkpoint"
        time.sleep(0.1)


def script(folder: Path) -> list[str]:
    arguments = ["--config", str(folder / "run.json"), "--device", "cpu", "--no-progress"]
    return [str(ROOT / "syncflow" / "train.py"), *arguments]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_stopped_it_has_saved(long_run, begin, number, code):
    process = begin(script(long_run), 0, free_port(), world=1)
    wait_for_checkpoint(long_run / "run")
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == code, said
    saved = checkpoint.newest(long_run / "run")
    assert f"stopped at step {saved.about['step']}" in said


@pytest.mark.slow
def test_one_preempted_process_stops_both_and_nothing_is_lost(long_run, begin):
    port = free_port()
    both = [begin(script(long_run), rank, port) for rank in (0, 1)]
    wait_for_checkpoint(long_run / "run")
    both[1].send_signal(signal.SIGTERM)
    for process in both:
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, said
    stopped = checkpoint.newest(long_run / "run").about["step"]
    config = json.loads((long_run / "run.json").read_text())
    config["loop"]["steps"] = stopped + 5
    (long_run / "run.json").write_text(json.dumps(config))
    runner.run(long_run / "run.json", progress=False)
    config["out"] = str(long_run / "whole")
    (long_run / "whole.json").write_text(json.dumps(config))
    runner.run(long_run / "whole.json", progress=False)
    ours, whole = losses(long_run / "run"), losses(long_run / "whole")
    assert len(ours) == len(whole) == stopped + 5
    assert max(abs(a - b) for a, b in zip(ours, whole, strict=True)) < 1e-4


@pytest.mark.slow
def test_a_killed_process_brings_the_other_down(long_run, begin):
    port = free_port()
    both = [begin(script(long_run), rank, port) for rank in (0, 1)]
    wait_for_checkpoint(long_run / "run")
    begun = time.monotonic()
    both[1].kill()
    both[1].communicate()
    both[0].communicate(timeout=120)
    assert both[0].returncode not in (0, None) and time.monotonic() - begun < 120
    assert checkpoint.newest(long_run / "run") is not None


@pytest.mark.slow
@pytest.mark.parametrize("zero", [0, 2])
def test_a_silent_process_is_waited_for_so_long_and_no_longer(long_run, begin, zero):
    if zero:
        pytest.importorskip("deepspeed")
        config = json.loads((long_run / "run.json").read_text())
        config["loop"]["deepspeed"] = {"zero_optimization": {"stage": zero}}
        (long_run / "run.json").write_text(json.dumps(config))
    port = free_port()
    arguments = [*script(long_run), "--timeout-minutes", "0.25"]
    both = [begin(arguments, rank, port) for rank in (0, 1)]
    wait_for_checkpoint(long_run / "run")
    both[1].send_signal(signal.SIGSTOP)
    begun = time.monotonic()
    both[0].communicate(timeout=120)
    assert both[0].returncode != 0 and 5 < time.monotonic() - begun < 60


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "deepspeed"])
def test_the_launchers_start_both(tmp_path, launcher):
    pytest.importorskip("deepspeed")
    loop = {"steps": 2, "randomness": "sample", "deepspeed": {"zero_optimization": {"stage": 2}}}
    config = flow_config(write_latents(tmp_path / "latents"), tmp_path / "run", "both", loop)
    (tmp_path / "run.json").write_text(json.dumps(config))
    options = {
        "torchrun": ["--standalone", "--nproc_per_node", "2"],
        "deepspeed": ["--num_gpus", "2", "--master_port", str(free_port())],
    }[launcher]  # fmt: skip
    folder = Path(sys.executable).parent
    environment = {
        **os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "DS_ACCELERATOR": "cpu",
        "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        [str(folder / launcher), *options, *script(tmp_path)], env=environment,
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    saved = checkpoint.newest(tmp_path / "run").about
    assert saved["world"] == 2 and (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "1"}, "RANK is '1' and WORLD_SIZE is not set.*unset RANK"),
        ({"WORLD_SIZE": "1"}, "WORLD_SIZE is '1' and RANK is not set"),
        ({"RANK": "", "WORLD_SIZE": "2"}, "WORLD_SIZE is '2' and RANK is not set"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2 and WORLD_SIZE is 2: ranks count"),
        ({"RANK": "1", "WORLD_SIZE": "1"}, "RANK is 1 and WORLD_SIZE is 1"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK is '-1'"),
        ({"RANK": "²", "WORLD_SIZE": "3"}, "RANK is '²'"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE is '0'"),
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "x"}, "LOCAL_RANK is 'x'"),
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "3"}, "LOCAL_RANK is 3 and RANK is 0"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "p"}, "MASTER_PORT"),
        ({"SLURM_PROCID": "4", "SLURM_STEP_NUM_TASKS": "4"}, "SLURM_PROCID is 4 and SLURM_STEP"),
    ],
)
def test_variables_that_do_not_fit_each_other_are_one_error(
    nothing_set, tmp_path, capsys, variables, message
):
    """Before anything is trained: half a launcher would train to the end and keep no model."""
    for name, value in variables.items():
        nothing_set.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        groups.environment()
    (tmp_path / "c.json").write_text("{}")
    assert train.main(["--config", str(tmp_path / "c.json"), "--device", "cpu"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_nothing_is_lost_of_a_run_whose_process_stops(long_run, begin):
    """One of two stops for good; both are started again, and end with the same bits."""
    config = json.loads((long_run / "run.json").read_text())
    config["loop"]["steps"] = 60

    def both(name, arguments=()):
        config["out"] = str(long_run / name)
        (long_run / "run.json").write_text(json.dumps(config))
        port = free_port()
        return [begin([*script(long_run), *arguments], rank, port) for rank in (0, 1)]

    first = both("run", ["--timeout-minutes", "0.25"])
    wait_for_checkpoint(long_run / "run")
    first[1].send_signal(signal.SIGSTOP)
    first[0].communicate(timeout=300)
    assert first[0].returncode != 0 and not (long_run / "run" / "model.safetensors").exists()
    first[1].kill()
    first[1].communicate()
    assert checkpoint.newest(long_run / "run") is not None
    for process in (*both("run"), *both("whole")):
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 0, said
    ours, whole = (load_file(long_run / name / "model.safetensors") for name in ("run", "whole"))
    assert all(torch.equal(value, ours[name]) for name, value in whole.items())
