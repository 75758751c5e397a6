"""Numbers by what the device can: bfloat16 where it multiplies them itself."""

import pytest
import torch

from syncflow.training.optim import optimizer, precision
from syncflow.training.optim.muon import Float32Muon, orthogonal
from syncflow.training.settings import LoopConfig
from tests.training.made import flow_config, write_latents

CPU = torch.device("cpu")


def loop(**changes) -> LoopConfig:
    return LoopConfig(steps=1, batch_size=1, **changes)


def capable(monkeypatch, *names: str) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(names, True))


@pytest.mark.parametrize(
    ("names", "found"),
    [(("avx2",), "fp32"), (("avx2", "avx512_f"), "fp32"), (("avx512_bf16",), "bf16"),
     (("amx_bf16",), "bf16"), ((), "fp32")],
)  # fmt: skip
def test_auto_follows_the_cpu(monkeypatch, names, found) -> None:
    capable(monkeypatch, *names)
    assert precision.chosen(loop(), CPU) == found
    for asked in ("bf16", "fp32"):
        assert precision.chosen(loop(precision=asked), CPU) == asked


def test_the_first_line_says_both(monkeypatch, tmp_path, capsys) -> None:
    import json

    from syncflow.training import runner

    capable(monkeypatch, "avx2")
    config = flow_config(
        write_latents(tmp_path / "latents"), tmp_path / "run", "video",
        {"precision": "auto", "optimizer": "muon"},
    )  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(config))
    runner.run(tmp_path / "run.json", progress=False)
    first = capsys.readouterr().out.splitlines()[0]
    assert first == (
        f"{tmp_path / 'run'}: computes in fp32 (this cpu has no bfloat16 instructions), "
        "Muon's iterations in fp32"
    )


@pytest.mark.parametrize(("name", "kind"), [("avx2", Float32Muon), ("amx_bf16", torch.optim.Muon)])
def test_muon_follows_the_cpu_too(monkeypatch, name, kind) -> None:
    capable(monkeypatch, name)
    module = torch.nn.Linear(32, 32)
    muon, _ = optimizer.build(module, loop(optimizer="muon"))
    assert type(muon) is kind


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (16, 16)])
def test_muon_in_float32_is_muon_without_the_rounding(shape) -> None:
    torch.manual_seed(0)
    start = torch.randn(shape)
    weights = [torch.nn.Parameter(start.clone()) for _ in range(2)]
    options = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.95, "adjust_lr_fn": "match_rms_adamw"}
    ours, theirs = Float32Muon([weights[0]], **options), torch.optim.Muon([weights[1]], **options)
    for _ in range(4):
        gradient = torch.randn(shape)
        for weight, each in zip(weights, (ours, theirs), strict=True):
            weight.grad = gradient.clone()
            each.step()
    moved = (weights[1] - start).norm()
    assert (weights[0] - weights[1]).norm() < 0.03 * moved
    state, other = (each.state_dict()["state"][0] for each in (ours, theirs))
    assert state.keys() == other.keys()
    assert torch.equal(state["momentum_buffer"], other["momentum_buffer"])


def test_orthogonal() -> None:
    torch.manual_seed(1)
    for shape in ((20, 50), (50, 20)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
        assert 0.6 < values.min() < values.max() < 1.3


def test_whoever_builds_an_engine_gets_the_devices_precision(monkeypatch) -> None:
    from syncflow.training.distributed.groups import Group
    from syncflow.training.distributed.replicas import Replicas

    class Task:
        module = torch.nn.Linear(4, 4)

    for name, dtype in (("avx2", torch.float32), ("avx512_bf16", torch.bfloat16)):
        capable(monkeypatch, name)
        engine = Replicas(Task(), loop(), Group())
        with engine.autocast():
            assert Task.module(torch.zeros(1, 4)).dtype is dtype
