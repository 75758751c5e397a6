"""Averages of any length after training, from snapshots of two (arXiv 2312.02696, section 3).

An average with the power function profile weighs the weights of step t by t^gamma; its length,
relative to the run's, is ``sigma``. Two of them are kept while a run lasts and written now and
then; afterwards the least-squares combination of all snapshots comes near the average of any other
length, at any step that has a snapshot.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from syncflow.model_io import tensors

FOLDER = "averages"


def gamma_of(sigma: float) -> float:
    """The exponent of a profile whose standard deviation is ``sigma`` of the run.

    Raises:
        ValueError: there is no such profile; sigma must lie between 0 and about 0.289.
    """
    inverse = sigma**-2 if sigma > 0 else 0.0
    found = np.roots([1, 7, 16 - inverse, 12 - inverse])
    best = float(found[np.isreal(found)].real.max()) if inverse else -1.0
    if best <= 0:
        raise ValueError(f"the length of an average must lie between 0 and 0.288, got {sigma}")
    return best


def decay_at(gamma: float, update: int) -> float:
    """What is kept of the average in an update, counted from 1."""
    return (1 - 1 / update) ** (gamma + 1)


def _overlap(t: np.ndarray, gamma: np.ndarray, s: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """Inner products of two profiles that end at t and s."""
    exponent = np.where(t < s, delta, -gamma)
    product = (gamma + 1) * (delta + 1) * (t / s) ** exponent
    return product / ((gamma + delta + 1) * np.maximum(t, s))


def combination(steps: list[int], sigmas: list[float], step: int, sigma: float) -> list[float]:
    """Weights of snapshots (each of a step and a length) that together come nearest the average of
    length ``sigma`` at ``step``."""
    t = np.array(steps, dtype=np.float64)
    gamma = np.array([gamma_of(each) for each in sigmas])
    wanted = np.array([float(step)]), np.array([gamma_of(sigma)])
    products = _overlap(t[:, None], gamma[:, None], t[None], gamma[None])
    right = _overlap(t[:, None], gamma[:, None], wanted[0][None], wanted[1][None])
    return np.linalg.solve(products, right)[:, 0].tolist()


def path_of(out: Path, step: int, sigma: float) -> Path:
    """The file of a snapshot."""
    return out / FOLDER / f"{step:08d}-{sigma:.3f}.safetensors"


def synthesise(run: str | Path, sigma: float, step: int | None = None) -> dict[str, Tensor]:
    """The weights of a run averaged over the length ``sigma``, float32.

    Args:
        run: a folder with snapshots.
        step: where the average ends; the last snapshot's when not given.

    Raises:
        FileNotFoundError: there are no snapshots. ValueError: none is of that step, or the length
            cannot be.
    """
    files = sorted((Path(run) / FOLDER).glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"no snapshots of averages in {run}; loop.average_every makes them")
    named = [path.stem.split("-") for path in files]
    steps, sigmas = [int(name[0]) for name in named], [float(name[1]) for name in named]
    step = steps[-1] if step is None else step
    if step not in steps:
        raise ValueError(f"{run} has no snapshot at step {step}; the last is {steps[-1]}")
    used = [index for index, each in enumerate(steps) if each <= step]
    weights = combination([steps[i] for i in used], [sigmas[i] for i in used], step, sigma)
    out: dict[str, Tensor] = {}
    for index, weight in zip(used, weights, strict=True):
        with safe_open(files[index], "pt") as file:
            for key in file.keys():  # noqa: SIM118
                value = weight * file.get_tensor(key).double()
                out[key] = out[key] + value if key in out else value
    return {key: value.float() for key, value in out.items()}


def write(
    out: Path, step: int, sigma: float, values: dict[str, Tensor], about: dict[str, str], tag: str
) -> None:
    """A snapshot of the average of that length, and what is known ``about`` it; ``tag`` as
    ``durable.replacing`` has it.

    Raises:
        OSError: it cannot be written.
    """
    path = path_of(out, step, sigma)
    path.parent.mkdir(exist_ok=True)
    tensors.save(path, half(values), {**about, "steps": str(step)}, tag)


def half(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """As snapshots keep them: float16, and what float16 cannot hold as it is."""
    out = {}
    for key, value in values.items():
        fits = value.is_floating_point() and float(value.abs().max()) < 65504
        out[key] = value.to(torch.float16) if fits else value
    return out
