"""Blocks compiled by config: whole graphs, shared by all layers, and the losses of eager ones."""

import json
from copy import deepcopy

import pytest
import torch
from made import MODEL, flow_config, write_latents

from syncflow.training import compiling, runner
from syncflow.training.checkpoints import checkpoint

DEPTH = 10  # more than the graphs that one function may have


def losses(tmp_path, name, latents, **loop):
    model = deepcopy(MODEL)
    model["video"]["depth"] = DEPTH
    settings = {"steps": 3, "log_every": 1, "validate_every": 100, **loop}
    config = flow_config(latents, tmp_path / name, "both", settings, model=model)
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(config))
    runner.run(path, progress=False)
    lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
    return [found["loss"] for found in map(json.loads, lines) if "loss" in found]


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_blocks_train_as_eager_ones(tmp_path, monkeypatch, backend):
    monkeypatch.setattr(compiling, "_BACKEND", backend)
    latents = write_latents(tmp_path / "latents", 8)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    eager = losses(tmp_path, "eager", latents)
    assert not torch._dynamo.utils.counters["stats"]
    compiled = losses(tmp_path, "compiled", latents, compile=True)
    assert compiled == pytest.approx(eager, rel=1e-5 if backend == "aot_eager" else 1e-3)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert 0 < graphs < 2 * DEPTH, "layers must share their graphs"
    one, two = (checkpoint.newest(tmp_path / name) for name in ("eager", "compiled"))
    assert set(one) == set(two)
