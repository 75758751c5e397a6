"""Blocks compiled by config: whole graphs, shared by all layers, and the losses of eager ones."""

from copy import deepcopy

import pytest
import torch
from made import MODEL, flow_config, run, told, write_latents

from syncflow.training import compiling
from syncflow.training.checkpoints import checkpoint
from syncflow.training.settings import LoopConfig

DEPTH = 10  # more than the graphs that one function may have (8)


def losses(tmp_path, name, latents, train, **loop):
    model = deepcopy(MODEL)
    model["video"]["depth"] = DEPTH
    # Batches of two have captions of either length.
    settings = {"steps": 3, "batch_size": 2, "log_every": 1, "validate_every": 0, **loop}
    run(flow_config(latents, tmp_path / name, train, settings, model=model), tmp_path)
    return told(tmp_path / name, "loss")


@pytest.mark.parametrize(
    ("backend", "train"),
    [
        ("aot_eager", "both"),
        pytest.param("inductor", "both", marks=pytest.mark.slow),
        pytest.param("inductor", "audio", marks=pytest.mark.slow),
    ],
)
def test_compiled_blocks_train_as_eager_ones(tmp_path, monkeypatch, backend, train):
    """By the rule: a compiler that only puts operators in order changes nothing but rounding
    (1e-5 of the loss), one that makes kernels of its own a part in a thousand at most. Recomputed
    blocks are compiled ones too."""
    monkeypatch.setattr(compiling, "_BACKEND", backend)
    latents = write_latents(tmp_path / "latents", 8)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    eager = losses(tmp_path, "eager", latents, train)
    assert not torch._dynamo.utils.counters["stats"] and len(eager) == 3
    near = 1e-5 if backend == "aot_eager" else 1e-3
    compiled = losses(tmp_path, "compiled", latents, train, compile=True, recompute="blocks")
    assert compiled == pytest.approx(eager, rel=near)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert 0 < graphs < 2 * DEPTH, "layers must share their graphs"
    one, two = (checkpoint.newest(tmp_path / name) for name in ("eager", "compiled"))
    assert set(one) == set(two)
    if backend == "inductor":
        plain = losses(tmp_path, "plain", latents, train, compile=True)
        assert plain == pytest.approx(eager, rel=near)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recompute": "selective"}, "compile chooses itself"),
        ({"sequence_parallel": 2}, "leave out sequence_parallel"),
        ({"deepspeed": {"zero_optimization": {"stage": 3}}}, "stage to 1 or 2"),
    ],
)
def test_what_cannot_be_compiled_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LoopConfig.parse({"steps": 1, "batch_size": 1, "compile": True, **settings})


def test_a_module_without_blocks_is_refused():
    config = LoopConfig.parse({"steps": 1, "batch_size": 1, "compile": True})
    with pytest.raises(ValueError, match="nothing here has any"):
        compiling.compile_blocks(torch.nn.Linear(2, 2), config)
