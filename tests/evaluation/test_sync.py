import itertools

import numpy as np
import pytest

from syncflow.detect import matching


def _world(count=60, seed=0):
    """Contacts and matching onsets (2 ms of jitter) of ``count`` clips."""
    rng = np.random.default_rng(seed)
    contacts = [np.sort(rng.uniform(0.1, 1.9, rng.integers(1, 5))) for _ in range(count)]
    onsets = [c + rng.normal(0, 0.002, len(c)) for c in contacts]
    return contacts, onsets


def _brute_force(a, b, tolerance):
    """Most pairs, then least distance, by trying every assignment."""
    best = (0, 0.0)
    small, large = (a, b) if len(a) <= len(b) else (b, a)
    for chosen in itertools.permutations(range(len(large)), len(small)):
        gaps = [abs(small[i] - large[j]) for i, j in enumerate(chosen)]
        for mask in itertools.product([False, True], repeat=len(small)):
            used = [g for g, m in zip(gaps, mask, strict=True) if m]
            if all(g <= tolerance for g in used):
                best = max(best, (len(used), -sum(used)))
    return best


@pytest.mark.parametrize("seed", range(40))
def test_match_is_optimal(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(0, 0.5, rng.integers(0, 5)), rng.uniform(0, 0.5, rng.integers(0, 5))
    pairs = matching.match(a, b, 0.1)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    distance = sum(abs(a[i] - b[j]) for i, j in pairs)
    number, negative = _brute_force(a, b, 0.1)
    assert len(pairs) == number
    assert distance == pytest.approx(-negative, abs=1e-12)


def test_match_prefers_more_pairs_to_nearer_ones():
    # Greedily 0.10-0.09 would be paired, which leaves 0.00 alone.
    assert matching.match([0.0, 0.10], [0.09, 0.19], 0.1) == [(0, 0), (1, 1)]


def test_perfect_and_empty():
    contacts, _ = _world()
    table = matching.measure(contacts, contacts, resamples=50)
    assert table["f1_50"] == [1.0, 1.0, 1.0] and table["median_ms"][0] == 0
    silent = matching.measure(contacts, [[] for _ in contacts], resamples=50)
    assert silent["f1_100"][0] == 0 and silent["median_ms"][0] == np.inf
    with pytest.raises(ValueError, match="59 have onsets"):
        matching.measure(contacts, contacts[:-1])


def test_worse_systems_score_worse():
    contacts, onsets = _world()
    rng = np.random.default_rng(1)
    jittered = [o + rng.normal(0, 0.05, len(o)) for o in onsets]
    dropped = [o[rng.random(len(o)) < 0.6] for o in onsets]
    added = [np.append(o, rng.uniform(0, 2, 2)) for o in onsets]

    def table(heard, **options):
        found = matching.measure(contacts, heard, resamples=0, **options)
        return {k: v[0] for k, v in found.items()}

    good = table(onsets)
    assert good["f1_50"] > 0.99 and good["median_ms"] < 3
    worse = table(jittered)
    assert worse["f1_50"] < good["f1_50"] - 0.15 and worse["median_ms"] > 20
    worse = table(dropped)
    assert worse["recall_50"] < 0.75 and worse["precision_50"] > 0.99 and worse["p90_ms"] > 50
    worse = table(added)
    assert worse["precision_50"] < 0.75 and worse["recall_50"] > 0.99
    chance = table(onsets, shuffles=8)
    assert chance["f1_50"] < 0.35 and chance["median_ms"] > 60


def test_a_count_is_right_neither_when_more_nor_when_fewer_are_found():
    true = [[0.1, 0.5], [0.1, 0.5], [0.1, 0.5], []]
    found = [[0.1, 0.5], [0.1, 0.5, 0.9], [0.1], []]
    assert matching.score(found, true)["count_accuracy"] == 0.5


def test_bias_has_the_sign_of_a_late_sound_and_swapping_shows():
    contacts, onsets = _world()
    late = [np.asarray(o) + 0.03 for o in onsets]
    assert matching.measure(contacts, late, resamples=0)["bias_ms"][0] == pytest.approx(30, abs=1)
    assert matching.measure(late, contacts, resamples=0)["bias_ms"][0] == pytest.approx(-30, abs=1)
    extra = [np.append(o, 1.99) for o in onsets]
    right, swapped = (
        matching.measure(*pair, resamples=0) for pair in ((contacts, extra), (extra, contacts))
    )
    assert right["recall_50"][0] > right["precision_50"][0] + 0.2
    assert swapped["precision_50"][0] > swapped["recall_50"][0] + 0.2


def test_derangement_moves_every_clip():
    rng = np.random.default_rng(0)
    for count in (2, 3, 17):
        for _ in range(20):
            shuffled = matching.derangement(count, rng)
            assert sorted(shuffled) == list(range(count))
            assert (shuffled != np.arange(count)).all()
    with pytest.raises(ValueError, match="at least 2"):
        matching.derangement(1, rng)


def test_bootstrap_interval_covers():
    """95 % intervals of 40 clips hold the population's F1 in most of 60 experiments."""
    rng = np.random.default_rng(0)

    def experiment(count):
        contacts = [np.arange(1, 1 + rng.integers(1, 5)) * 0.4 for _ in range(count)]
        return contacts, [c[rng.random(len(c)) < rng.uniform(0.3, 1)] for c in contacts]

    truth = matching.measure(*experiment(20000), resamples=0)["f1_50"][0]
    inside = 0
    for _ in range(60):
        _, low, high = matching.measure(*experiment(40), resamples=300)["f1_50"]
        inside += low <= truth <= high
    assert 50 <= inside <= 60


def test_weighted_quantile_is_the_quantile_of_the_repeated_sample():
    rng = np.random.default_rng(3)
    values = rng.normal(size=30)
    weights = rng.integers(0, 4, size=(5, 30)).astype(float)
    for q in (0.5, 0.9):
        for row, got in zip(weights, matching.weighted_quantile(values, weights, q), strict=True):
            repeated = np.sort(np.repeat(values, row.astype(int)))
            assert got == repeated[int(np.ceil(q * len(repeated))) - 1]


def test_average():
    value, low, high = matching.average([True] * 30 + [False] * 10)
    assert value == 0.75 and 0.55 < low < 0.72 < 0.78 < high < 0.95
    assert np.isnan(matching.average([])[0])


def test_chance_interval_covers():
    """95 % intervals of shuffled clips hold chance in the population in most of 60 experiments."""
    rng = np.random.default_rng(0)

    def experiment(count):
        # Many or few events in a clip make it an easy or hard partner for every other.
        times = [np.sort(rng.uniform(0, 2, rng.choice([1, 1, 6]))) for _ in range(count)]
        return times, times

    truth = matching.measure(*experiment(1500), shuffles=4, resamples=0)["f1_100"][0]
    inside = 0
    for trial in range(60):
        pair = experiment(30)
        _, low, high = matching.measure(*pair, shuffles=4, resamples=200, seed=trial)["f1_100"]
        inside += low <= truth <= high
    assert 52 <= inside <= 60
