"""Memory and work of training, counted without a GPU, and the limits that the configs must keep."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from made import flow_config, write_latents
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import memory  # noqa: E402

from benchmarks import counting, fake_backward, footprint, random_latents  # noqa: E402
from syncflow.training import runner  # noqa: E402
from syncflow.training.settings import TrainConfig  # noqa: E402
from syncflow.training.tasks.flow import FlowTraining  # noqa: E402

LIMIT = 75.0  # GiB, of an H100 of 80 GB with its context and fragmentation
ONE_CARD = 21.0  # GiB, of a card of 24 GB
RECORDED = ROOT / "benchmarks" / "results" / "counted.json"
# On as many GPUs as the paper: 16 clips a GPU in stage 2, 2 in stage 3.
PAPER = {
    **dict.fromkeys(("stage1", "stage2", "stage3", "one_pass"), 32),
    **dict.fromkeys(("opensora/stage2", "opensora/stage3"), 32),
    **dict.fromkeys(("paper/stage1", "paper/stage2", "paper/stage3"), 32),
    "paper/greatest_hits": 8,
}
VAES = {"audio_vae": 8, "paper/audio_vae": 8, "video_vae": 8}


def configs(*tasks: str) -> list[str]:
    found = []
    for path in sorted((ROOT / "configs").rglob("*.json")):
        if json.loads(path.read_text()).get("task") in tasks:
            found.append(str(path.relative_to(ROOT / "configs").with_suffix("")))
    return found


@pytest.mark.parametrize("name", configs("flow"))
def test_every_config_fits_its_gpu_and_launches_no_more_than_it_did(name):
    config = runner.read(ROOT / "configs" / f"{name}.json")
    found = memory.report(config, PAPER.get(name, 1))
    limit = ONE_CARD if name.startswith("one_gpu/") else LIMIT
    for what, size in found["peak_gib"].items():
        assert 0 < size <= limit, f"{name}: {what} takes {size} GiB"
    if name.endswith(("stage2", "stage3")) and name in PAPER:
        assert found["batch_per_gpu"] == {"2": 16, "3": 2}[name[-1]]
    before = json.loads(RECORDED.read_text())[name]
    assert found["step"]["launches"] <= 1.05 * before["step"]["launches"]
    assert found["guided_step"]["launches"] <= 1.05 * before["guided_step"]["launches"]
    for what, size in found["peak_gib"].items():
        assert size <= 1.05 * before["peak_gib"][what], what
    # All that a step may wait for (DeepSpeed's own apart): its gradient's norm and whether all is
    # finite, in one copy.
    allowed = {} if found["zero"] else {"syncflow.training.distributed.replicas.step": 1}
    assert found["step"]["waits"] == allowed
    assert found["step"]["copies"].get("to the host", 0) == len(allowed)


@pytest.mark.parametrize("name", VAES)
def test_every_vae_config_fits_its_gpu(name):
    config = runner.read(ROOT / "configs" / f"{name}.json")
    found = memory.report(config, VAES[name])
    before = json.loads(RECORDED.read_text())[name]
    for what, size in found["peak_gib"].items():
        assert 0 < size <= LIMIT and size <= 1.05 * before["peak_gib"][what], what
    assert found["step"]["launches"] <= 1.05 * before["step"]["launches"]


def test_no_vae_config_of_paper_size_is_left_out():
    known = configs("audio_vae", "video_vae")
    assert set(VAES) == {name for name in known if not name.startswith("impacts/")}


def small(tmp_path, **changes):
    latents = write_latents(tmp_path / "latents", 8)
    loop = {"batch_size": 8, "randomness": "sample"}
    config = flow_config(latents, tmp_path / "run", "both", loop, **changes)
    return TrainConfig.parse({"run": config}).run


@pytest.mark.parametrize("draws", [1, 4])
def test_the_counter_counts_what_a_real_step_allocates(tmp_path, draws):
    """Bytes that a forward pass leaves for the backward pass, against PyTorch's profiler."""
    training = FlowTraining(small(tmp_path, draws=draws))
    batch = training.drawn(training.batch(0), torch.Generator().manual_seed(0))
    with torch.profiler.profile(profile_memory=True) as profile:
        loss, told = training.loss(batch, torch.Generator())
    real = sum(event.self_cpu_memory_usage for event in profile.key_averages())
    assert real > 1e5
    del loss, told

    with counting.pretend("cpu") as counter:
        module = training.module
        for each in module.modules():
            for store in (each._parameters, each._buffers):
                for key, value in store.items():
                    fake = None if value is None else torch.empty_like(value)
                    is_weight = isinstance(value, nn.Parameter)
                    store[key] = nn.Parameter(fake, value.requires_grad) if is_weight else fake
        fakes = {
            key: torch.empty_like(value) if isinstance(value, torch.Tensor) else value
            for key, value in batch.items()
        }
        fakes["draws"] = type(batch["draws"])(
            **{
                key: torch.empty_like(value) if isinstance(value, torch.Tensor) else value
                for key, value in vars(batch["draws"]).items()
            }
        )
        before = counter.memory.live
        loss, told = training.loss(fakes, torch.Generator())
        counted = counter.memory.live - before
        assert loss.requires_grad and told
    assert counted == pytest.approx(real, rel=0.05)


def test_the_backward_pass_gives_pytorchs_gradients_and_frees_what_was_kept():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 3))
    x = torch.randn(5, 8)

    def loss():
        inner = torch.utils.checkpoint.checkpoint(net[0:2], x, use_reentrant=False)
        return inner.square().mean() + net(x).sum() + net(x.half().float())[0, 0]

    loss().backward()
    wanted = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    fake_backward.backward(loss())
    for parameter, grad in zip(net.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, grad)

    with counting.pretend("cuda") as counter:
        net = nn.Sequential(*(nn.Linear(256, 256, device="cuda") for _ in range(8)))
        x = torch.empty(1024, 256, device="cuda")
        rest = counter.memory.live
        out = net(x).square().sum()
        assert counter.memory.live - rest > 8 * 2**20
        fake_backward.backward(out)
        weights = sum(p.numel() * 4 for p in net.parameters())
        assert counter.memory.live - rest == pytest.approx(weights, rel=0.01)
        assert counter.memory.peak - rest > 8 * 2**20


def test_a_count_does_not_depend_on_those_before_it():
    config = runner.read(ROOT / "configs/tiny/stage1.json")
    frames = tuple(random_latents.geometry(config).items())
    count = footprint._generation.__wrapped__
    first, again = (count(config.model.model_dump_json(), frames, 2.0) for _ in range(2))
    assert first == again


def test_xl2_is_what_was_counted_by_hand():
    """By hand: 1.2 B parameters; 12.64 TFLOP of a guided step, of which the captions' keys and
    values (.18) are made once a prompt and the adaptors' last products (.30) once a model; 9.63
    TFLOP of a sample of stage 2 with one draw."""
    config = runner.read(ROOT / "configs/stage2.json")
    peak, guided = footprint.generation(config, 2.0)
    assert guided.flops / 1e12 == pytest.approx(12.64 - 0.18 - 0.30, rel=0.005)
    assert guided.attention_flops / 1e12 == pytest.approx(1.59, rel=0.01)
    assert 3.7 < peak / 2**30 < 8  # its weights in bfloat16 are 3.7
    one = footprint.with_batch(config, 2, draws=1)
    step = footprint.training(one, 32, validates=False).step
    assert step.flops / 2e12 == pytest.approx(9.63, rel=0.01)


def test_zero_shares_out_and_recomputation_keeps_less():
    config = footprint.with_batch(runner.read(ROOT / "configs/tiny/stage3.json"), 4)

    def found(stage, gpus, recompute="none"):
        block = {"zero_optimization": {"stage": stage}} if stage else None
        loop = {"deepspeed": block, "recompute": recompute, "precision": "bf16"}
        changed = config.model_copy(update={"loop": config.loop.model_copy(update=loop)})
        return footprint.training(changed, gpus)

    one, eight = found(1, 1), found(1, 8)
    assert eight.parts["optimizer"] == pytest.approx(one.parts["optimizer"] / 8)
    assert eight.parts["gradients"] == one.parts["gradients"]
    assert found(2, 8).parts["gradients"] == pytest.approx(one.parts["gradients"] / 8)
    assert found(3, 8).parts["parameters"] < found(2, 8).parts["parameters"] * 1.2
    assert found(0, 1, "blocks").parts["activations"] < 0.6 * found(0, 1).parts["activations"]
    assert found(0, 1).train > found(0, 1, "blocks").train


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["configs/stage2.json", "--gpus", "7"], "cannot be shared by 7 GPUs"),
     (["configs/stage2.json", "--gpus", "0"], "--gpus must be at least 1"),
     (["configs/nothing.json"], "no config file"),
     (["configs/tiny/export.json"], "is a 'export' task; counted are flow, audio_vae, video_vae")],
)  # fmt: skip
def test_what_cannot_be_counted_is_one_line(arguments, said):
    command = [sys.executable, str(ROOT / "benchmarks/memory.py"), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1
