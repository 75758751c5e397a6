"""Averages of any length, made afterwards from snapshots of two."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_loop import Line, settings

from syncflow.model_io import tensors
from syncflow.training.checkpoints import checkpoint
from syncflow.training.loop import fit
from syncflow.training.optim import power_ema


def test_profiles_have_the_lengths_that_they_are_asked_for():
    """The paper's own figures, and the standard deviation of t^gamma on [0, 1] by hand."""
    assert power_ema.gamma_of(0.05) == pytest.approx(16.97, abs=0.01)
    assert power_ema.gamma_of(0.10) == pytest.approx(6.94, abs=0.01)
    for sigma in (0.03, 0.2):
        gamma = power_ema.gamma_of(sigma)
        t = (np.arange(100_000) + 0.5) / 100_000
        weight = t**gamma / (t**gamma).sum()
        spread = ((weight * t**2).sum() - (weight * t).sum() ** 2) ** 0.5
        assert spread == pytest.approx(sigma, rel=1e-3)
    for sigma in (0.0, 0.3, -1.0):
        with pytest.raises(ValueError, match="between 0 and 0.288"):
            power_ema.gamma_of(sigma)


def test_an_average_of_another_length_is_the_one_that_would_have_been_kept():
    """On a noisy path of 400 steps with snapshots every 25."""
    rng = np.random.default_rng(0)
    path = np.cumsum(rng.standard_normal((400, 50)), axis=0) + 20 * rng.standard_normal((400, 50))

    def averages(sigma):
        gamma, out = power_ema.gamma_of(sigma), []
        for update, value in enumerate(path, start=1):
            kept = power_ema.decay_at(gamma, update)
            out.append(value if update == 1 else kept * out[-1] + (1 - kept) * value)
        return out

    kept = {sigma: averages(sigma) for sigma in (0.05, 0.1)}
    steps = [step for step in range(25, 401, 25) for _ in kept]
    sigmas = [sigma for _ in range(25, 401, 25) for sigma in kept]
    snapshots = np.stack([kept[s][t - 1] for t, s in zip(steps, sigmas, strict=True)])
    for sigma, within in ((0.05, 1e-6), (0.08, 0.02), (0.15, 0.05)):
        weights = power_ema.combination(steps, sigmas, 400, sigma)
        made, true = np.array(weights) @ snapshots, averages(sigma)[-1]
        assert np.linalg.norm(made - true) < within * np.linalg.norm(true), sigma
        plain = np.linalg.norm(kept[0.05][-1] - true)
        assert sigma == 0.05 or np.linalg.norm(made - true) < 0.2 * plain


def test_a_run_writes_snapshots_and_goes_on_with_them(tmp_path):
    options = {"average_every": 10, "checkpoint_every": 15, "decay": 0.0, "optimizer": "adamw"}
    fit(Line(), settings(**options), tmp_path / "whole", progress=False)
    for steps in (15, 40):
        fit(Line(), settings(**options, steps=steps), tmp_path / "cut", progress=False)
    files = sorted((tmp_path / "whole" / "averages").iterdir())
    assert [path.name for path in files[:3]] == [
        "00000010-0.050.safetensors", "00000010-0.100.safetensors", "00000020-0.050.safetensors",
    ]  # fmt: skip
    assert len(files) == 8
    for path in files:
        one, two = load_file(path), load_file(tmp_path / "cut" / "averages" / path.name)
        assert all(v.dtype == torch.float16 and torch.equal(v, two[k]) for k, v in one.items())
    saved = checkpoint.newest(tmp_path / "whole")
    assert not any(name.startswith("power") for name in saved.weights())
    made = power_ema.synthesise(tmp_path / "whole", 0.05)
    last = load_file(files[-2])
    for key, value in last.items():
        torch.testing.assert_close(made[key], value.float(), atol=2e-3, rtol=2e-3)
    longer = power_ema.synthesise(tmp_path / "whole", 0.2, step=30)
    assert any(not torch.allclose(longer[key], made[key], atol=1e-3) for key in made)
    Line().module.load_state_dict(longer)
    with pytest.raises(ValueError, match="no snapshot at step 31"):
        power_ema.synthesise(tmp_path / "whole", 0.2, step=31)
    with pytest.raises(FileNotFoundError, match="loop.average_every"):
        power_ema.synthesise(tmp_path, 0.2)
    about = tensors.about(files[-1])
    assert about["steps"] == "40" and json.dumps(about)
