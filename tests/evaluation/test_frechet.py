"""Fréchet distance: against scipy, closed forms, few samples, streams and its own interval."""

import numpy as np
import pytest
import torch

from syncflow.evaluation.metrics.frechet import (
    Moments,
    Statistics,
    between,
    distance,
    frechet_distance,
)


def by_sqrtm(a, b):
    from scipy.linalg import sqrtm

    mean = np.square(a.mean(0) - b.mean(0)).sum()
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    return mean + np.trace(first + second - 2 * sqrtm(first @ second).real)


def sets(n, m, width, seed=0):
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(width, width))
    return rng.normal(size=(n, width)) @ mix, rng.normal(size=(m, width)) * 1.5 + 0.3


@pytest.mark.parametrize("n, m, width", [(500, 300, 6), (200, 200, 64), (4000, 3000, 32)])
def test_agrees_with_scipy(n, m, width):
    a, b = sets(n, m, width)
    assert frechet_distance(a, b) == pytest.approx(by_sqrtm(a, b), rel=1e-6, abs=1e-6)


def test_agrees_with_closed_forms():
    # In one dimension: (difference of means)^2 + (difference of standard deviations)^2.
    one = distance(Moments(9, np.array([1.0]), np.array([[4.0]])),
                   Moments(9, np.array([-2.0]), np.array([[9.0]])))  # fmt: skip
    assert one == pytest.approx(9 + 1, abs=1e-12)
    # Covariances that share their axes: the same in each axis, in whatever frame.
    rng = np.random.default_rng(1)
    turn, _ = np.linalg.qr(rng.normal(size=(40, 40)))
    first, second = rng.uniform(0, 4, 40), rng.uniform(0, 4, 40)
    means = rng.normal(size=(2, 40))
    value = distance(Moments(9, means[0], (turn * first) @ turn.T),
                     Moments(9, means[1], (turn * second) @ turn.T))  # fmt: skip
    expected = np.square(means[0] - means[1]).sum() + np.square(first**0.5 - second**0.5).sum()
    assert value == pytest.approx(expected, abs=1e-9)


def test_fewer_samples_than_dimensions():
    """Against the nuclear norm of the centred samples, which needs no covariance at all."""
    a, b = sets(12, 9, 200)
    first, second = (x - x.mean(0) for x in (a, b))
    cross = np.linalg.svd(first @ second.T, compute_uv=False).sum() / np.sqrt(11 * 8)
    spread = np.square(first).sum() / 11 + np.square(second).sum() / 8
    expected = np.square(a.mean(0) - b.mean(0)).sum() + spread - 2 * cross
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_properties():
    a, b = sets(300, 300, 8)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))
    assert frechet_distance(a + 1e6, b + 1e6) == pytest.approx(frechet_distance(a, b), rel=1e-4)
    assert frechet_distance(torch.tensor(3 * a), 3 * b) == pytest.approx(9 * frechet_distance(a, b))
    worse = [frechet_distance(a, a + shift) for shift in (0.0, 0.5, 1.0, 2.0)]
    assert worse == sorted(worse) and worse[3] == pytest.approx(8 * 4.0)


@pytest.mark.parametrize("bad", [np.zeros(5), np.zeros((1, 4)), np.full((5, 4), np.nan)])
def test_refuses(bad):
    with pytest.raises(ValueError):
        frechet_distance(bad, np.random.default_rng(0).normal(size=(5, 4)))
    with pytest.raises(ValueError, match="3 and 4"):
        frechet_distance(np.random.rand(5, 3), np.random.rand(5, 4))


def streamed(data, size, facts=None, replicas=20, seed=0):
    stats = Statistics(facts or {}, replicas, seed)
    for first in range(0, len(data), size):
        stats.update([row[None] for row in data[first : first + size]])
    return stats


def test_a_stream_is_the_whole():
    a, b = sets(500, 400, 10)
    first, second = streamed(a + 1e4, 7), streamed(b + 1e4, 64, seed=1)
    assert between(first, second)[0] == pytest.approx(frechet_distance(a, b), rel=1e-9)
    # The same draws whatever the size of a batch, so the same interval.
    again = streamed(a + 1e4, 50)
    assert between(again, second) == pytest.approx(between(first, second), rel=1e-9)


def test_memory_does_not_grow():
    def size(stats):
        return sum(v.nbytes for v in vars(stats).values() if isinstance(v, np.ndarray))

    few, many = (streamed(np.random.default_rng(0).normal(size=(n, 5)), 250) for n in (250, 5000))
    assert size(few) == size(many) and many.clips == 5000


def test_the_interval_covers():
    """Of two sets of one law, new draws fall inside the interval of another draw, mostly."""
    values, inside = [], 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        a, b = rng.normal(size=(200, 4)), rng.normal(size=(200, 4)) + 1
        values.append(between(streamed(a, 200, replicas=40), streamed(b, 200, replicas=40, seed=9)))
    centre = np.mean([value[0] for value in values])
    inside = sum(low <= centre <= high for _, low, high in values)
    assert 15 <= inside <= 20
    assert all(low < value < high for value, low, high in values)


def test_windows_of_a_clip_stay_together():
    """Ten copies of each row in its clip: the same covariance but for N - 1, the same interval."""
    a, b = sets(80, 80, 3)
    single, copies = streamed(a, 80), Statistics(replicas=20)
    copies.update([np.repeat(row[None], 10, 0) for row in a])
    other = streamed(b, 80, seed=3)
    assert between(copies, other)[1:] == pytest.approx(between(single, other)[1:], rel=0.05)


def test_saved_and_refused_when_made_otherwise(tmp_path):
    a, b = sets(50, 50, 3)
    first = streamed(a, 50, {"network": "x", "sample_rate": "16000 Hz"})
    read = Statistics.load(first.save(tmp_path / "reference.safetensors"))
    second = streamed(b, 50, {"network": "x", "sample_rate": "16000 Hz"}, seed=1)
    assert between(read, second) == between(first, second)
    assert (read.clips, read.facts) == (50, first.facts)
    other = streamed(b, 50, {"network": "x", "sample_rate": "48000 Hz"}, seed=1)
    with pytest.raises(ValueError, match="sample_rate '16000 Hz' and '48000 Hz'"):
        between(first, other)
    with pytest.raises(FileNotFoundError):
        Statistics.load(tmp_path / "nothing.safetensors")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes((tmp_path / "reference.safetensors").read_bytes()[:200])
    with pytest.raises(ValueError, match="damaged.safetensors' is damaged"):
        Statistics.load(damaged)
