"""Fréchet distance between two sets of features: float64, streamed, with an interval.

``d = |m_a - m_b|^2 + tr C_a + tr C_b - 2 tr (C_a C_b)^(1/2)``. The last trace is the sum of the
singular values of ``C_a^(1/2) C_b^(1/2)``: no square root of a product that need not be symmetric,
nothing imaginary to cut off, and exact where there are fewer samples than dimensions.

``Statistics`` adds samples up in memory that does not grow with them. Its interval is a Poisson
bootstrap: every clip is counted Poisson(1) times in each of a fixed number of replicas, which is
drawn as the clip passes, so that no clip has to be kept.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from syncflow import durable

Features = Tensor | np.ndarray


@dataclass(frozen=True)
class Moments:
    """``count`` samples, their ``mean_D`` and ``cov_DD`` (divided by count - 1), float64."""

    count: float
    mean_D: np.ndarray
    cov_DD: np.ndarray


def frechet_distance(a_ND: Features, b_MD: Features) -> float:
    """Fréchet distance between Gaussians fitted to two sets of features (Heusel et al., 2017).

    Raises:
        ValueError: not two matrices of one width, fewer than two samples, or values not finite.
    """
    return distance(_moments(a_ND, "a"), _moments(b_MD, "b"))


def distance(a: Moments, b: Moments) -> float:
    """Fréchet distance between two Gaussians."""
    if a.mean_D.shape != b.mean_D.shape:
        raise ValueError(
            f"cannot compare features of {len(a.mean_D)} and {len(b.mean_D)} dimensions"
        )
    # Of two factors with few columns the product is small, whatever the dimension.
    cross = np.linalg.svd(_factor(a.cov_DD).T @ _factor(b.cov_DD), compute_uv=False).sum()
    shift = float(np.square(a.mean_D - b.mean_D).sum())
    value = shift + np.trace(a.cov_DD) + np.trace(b.cov_DD) - 2 * cross
    return float(max(value, 0.0))


def _factor(cov_DD: np.ndarray) -> np.ndarray:
    """F [D, rank] with F F' = cov; what rounding made negative is zero."""
    values, vectors = np.linalg.eigh(cov_DD)
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return vectors[:, kept] * np.sqrt(values[kept])


def _matrix(features: Features, name: str = "features") -> np.ndarray:
    if torch.is_tensor(features):
        features = features.detach().cpu().double().numpy()
    array = np.asarray(features, dtype=np.float64)
    if array.ndim != 2 or not array.size:
        raise ValueError(f"{name} must be a matrix [samples, dimensions], got {list(array.shape)}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} have values that are not finite")
    return array


def _moments(features: Features, name: str) -> Moments:
    array = _matrix(features, name)
    if len(array) < 2:
        raise ValueError(f"{name} must hold at least 2 samples, got {len(array)}")
    mean = array.mean(0)
    centred = array - mean
    return Moments(len(array), mean, centred.T @ centred / (len(array) - 1))


@dataclass
class Statistics:
    """Mean and covariance of a stream of features, and of ``replicas`` bootstrap draws of it.

    Memory: (replicas + 1) x dimensions^2 float64, whatever the number of clips. ``facts`` says what
    made the features (network, rates, preprocessing); statistics of other facts are refused.
    """

    facts: dict[str, str] = field(default_factory=dict)
    replicas: int = 100
    seed: int = 0
    clips: int = 0
    samples: int = 0

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)
        self._origin: np.ndarray | None = None

    def update(self, clips: Sequence[Features]) -> None:
        """Adds clips: of each a matrix [samples, D], which the bootstrap keeps together."""
        parts = [_matrix(clip) for clip in clips]
        if not parts:
            return
        rows_ND = np.concatenate(parts)
        if self._origin is None:
            width, draws = rows_ND.shape[1], self.replicas + 1
            # Sums of squares are taken about a point inside the data, or they would cancel.
            self._origin = rows_ND.mean(0)
            self._count_R = np.zeros(draws)
            self._sum_RD = np.zeros((draws, width))
            self._square_RDD = np.zeros((draws, width, width))
        if rows_ND.shape[1] != len(self._origin):
            raise ValueError(f"features of {rows_ND.shape[1]} dimensions after {len(self._origin)}")
        rows_ND = rows_ND - self._origin
        clip_N = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        weight_RN = np.ones((self.replicas + 1, len(parts)))
        weight_RN[1:] = self._rng.poisson(1.0, (len(parts), self.replicas)).T
        for draw, weight_N in enumerate(weight_RN[:, clip_N]):
            used = weight_N > 0
            weighted = rows_ND[used] * weight_N[used, None]
            self._count_R[draw] += weight_N.sum()
            self._sum_RD[draw] += weighted.sum(0)
            self._square_RDD[draw] += weighted.T @ rows_ND[used]
        self.clips += len(parts)
        self.samples += len(rows_ND)

    def moments(self, draw: int = 0) -> Moments:
        """Of the data (0) or of bootstrap draw 1 .. ``replicas``."""
        if self._origin is None or self.samples < 2:
            raise ValueError(f"at least 2 samples are needed, got {self.samples}")
        count = self._count_R[draw]
        mean = self._sum_RD[draw] / max(count, 1)
        square = self._square_RDD[draw] - count * np.outer(mean, mean)
        return Moments(count, self._origin + mean, square / max(count - 1, 1))

    def save(self, path: str | Path) -> Path:
        """Writes everything as safetensors, so that a reference set is measured once."""
        from safetensors.numpy import save_file

        self.moments()
        path = Path(path)
        card = {
            name: getattr(self, name) for name in ("facts", "replicas", "seed", "clips", "samples")
        }
        assert self._origin is not None  # `moments` has seen to it
        arrays: dict[str, np.ndarray] = {
            "origin": self._origin,
            "count": self._count_R,
            "sum": self._sum_RD,
            "square": self._square_RDD,
        }
        with durable.replacing(path) as part:
            save_file(arrays, part, {"statistics": json.dumps(card)})
        return path

    @classmethod
    def load(cls, path: str | Path) -> Statistics:
        """Reads what ``save`` wrote; complete, so nothing more is added to it."""
        from safetensors import SafetensorError, safe_open

        if not Path(path).is_file():
            raise FileNotFoundError(f"there are no feature statistics at '{path}'")
        try:
            with safe_open(path, "np") as file:
                card = (file.metadata() or {}).get("statistics")
                if card is None:
                    raise ValueError(f"'{path}' holds no feature statistics")
                result = cls(**json.loads(card))
                result._origin = file.get_tensor("origin")
                result._count_R = file.get_tensor("count")
                result._sum_RD, result._square_RDD = map(file.get_tensor, ("sum", "square"))
        except (SafetensorError, TypeError) as error:
            raise ValueError(f"'{path}' is damaged: {error}") from None
        return result


def between(a: Statistics, b: Statistics) -> list[float]:
    """[distance, low, high]: the distance and its 95 % interval.

    A bootstrap draw has fewer different clips than the data, which alone moves the distance up; so
    the draws' spread is laid around the distance itself, and says nothing of its bias at this N.

    Raises:
        ValueError: the two were made in different ways, or of too few samples.
    """
    other = sorted(k for k in a.facts.keys() | b.facts.keys() if a.facts.get(k) != b.facts.get(k))
    if other:
        name = other[0]
        raise ValueError(
            f"statistics made with {name} {a.facts.get(name)!r} and {b.facts.get(name)!r} "
            "cannot be compared"
        )
    if min(a.clips, b.clips) < 2:
        raise ValueError("a Fréchet distance needs at least 2 clips of each, and one has 1 or none")
    value = distance(a.moments(), b.moments())
    replicas = min(a.replicas, b.replicas)
    draws = [
        distance(first, second)
        for first, second in ((a.moments(r), b.moments(r)) for r in range(1, replicas + 1))
        if first.count > 1 and second.count > 1
    ]
    if not draws:
        return [value, value, value]
    low, middle, high = np.quantile(draws, (0.025, 0.5, 0.975))
    return [value, max(0.0, value + float(low - middle)), value + float(high - middle)]
