"""Sync as numbers: contacts seen in the picture against onsets heard in the sound.

Everything here is a pure function of lists of times in seconds, one list per clip. The picture is
the reference: recall is the share of contacts that have a sound, precision the share of sounds that
have a contact. Rates are pooled over clips (every event weighs the same) and intervals are
percentile bootstraps over clips (events of one clip are not independent); those of chance draw the
pictures and the soundtracks of the same clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Tolerances, in seconds, at which precision, recall and F1 are reported.
TOLERANCES = (0.05, 0.1)
Times = Sequence[float]


def match(a: Times, b: Times, tolerance: float) -> list[tuple[int, int]]:
    """Optimal one-to-one pairs ``(i, j)`` with ``|a[i] - b[j]| <= tolerance``.

    The most pairs, and among those the smallest total distance. On a line an optimal matching
    never needs to cross, so a dynamic programme over the sorted lists is exact.
    """
    if tolerance < 0:
        raise ValueError(f"tolerance must not be negative, got {tolerance}")
    order_a, order_b = np.argsort(a, kind="stable"), np.argsort(b, kind="stable")
    n, m = len(order_a), len(order_b)
    # best[i][j]: (pairs, -distance) over the first i of a and j of b; tuples compare as wanted.
    best = [[(0, 0.0)] * (m + 1) for _ in range(n + 1)]
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            value = max(best[i - 1][j], best[i][j - 1])
            distance = abs(a[order_a[i - 1]] - b[order_b[j - 1]])
            if distance <= tolerance:
                pairs, negative = best[i - 1][j - 1]
                value = max(value, (pairs + 1, negative - distance))
            best[i][j] = value
    found: list[tuple[int, int]] = []
    i, j = n, m
    while i and j:
        if best[i][j] == best[i - 1][j]:
            i -= 1
        elif best[i][j] == best[i][j - 1]:
            j -= 1
        else:
            found.append((int(order_a[i - 1]), int(order_b[j - 1])))
            i, j = i - 1, j - 1
    return found[::-1]


def nearest(contacts: Times, onsets: Times) -> np.ndarray:
    """Signed distance (onset - contact, s) from every contact to the onset nearest to it, [N].

    Infinite where the clip has no sound at all, so that silence cannot improve a median.
    """
    if not len(contacts) or not len(onsets):
        return np.full(len(contacts), np.inf)
    difference = np.asarray(onsets)[None] - np.asarray(contacts)[:, None]
    return difference[np.arange(len(contacts)), np.abs(difference).argmin(1)]


def derangement(count: int, rng: np.random.Generator) -> np.ndarray:
    """A random permutation of ``count`` without fixed points (one random cycle)."""
    if count < 2:
        raise ValueError(f"shuffling needs at least 2 clips, got {count}")
    cycle = rng.permutation(count)
    shuffled = np.empty(count, dtype=int)
    shuffled[cycle] = np.roll(cycle, 1)
    return shuffled


@dataclass(frozen=True)
class Tally:
    """What a set of pairs of picture and sound adds up to, still one row per pair, so that clips
    can be resampled. A row's picture is clip ``picture_N`` and its sound that of clip ``sound_N``.

    ``contacts_N``, ``onsets_N`` event counts; ``hits_KN`` matched pairs per tolerance;
    ``offsets_E`` signed distance from every contact to its nearest onset (s), of row ``row_E``;
    ``matched_P`` signed distance of every matched pair at the widest tolerance, of ``pair_row_P``.
    """

    picture_N: np.ndarray
    sound_N: np.ndarray
    contacts_N: np.ndarray
    onsets_N: np.ndarray
    hits_KN: np.ndarray
    offsets_E: np.ndarray
    row_E: np.ndarray
    matched_P: np.ndarray
    pair_row_P: np.ndarray

    def weights(self, drawn_RC: np.ndarray) -> np.ndarray:
        """How much every row counts when clip c is drawn ``drawn[r, c]`` times, [R,N].

        A shuffled pair depends on two clips, so it counts as often as both are drawn: resampling
        the pictures alone would make chance look better known than it is.
        """
        weights_RN = drawn_RC[:, self.picture_N]
        if (self.picture_N != self.sound_N).any():
            weights_RN = weights_RN * drawn_RC[:, self.sound_N]
        return weights_RN


def tally(
    contacts: Sequence[Times],
    onsets: Sequence[Times],
    rounds: Sequence[np.ndarray] | Sequence[Sequence[int]] | None = None,
) -> Tally:
    """Matches clip by clip. ``rounds``: permutations of the soundtracks, every pair a row."""
    if len(contacts) != len(onsets):
        raise ValueError(f"{len(contacts)} clips have contacts but {len(onsets)} have onsets")
    count = len(contacts)
    pairs_of_clips = [
        (n, int(sound[n])) for sound in rounds or [range(count)] for n in range(count)
    ]
    contacts_N = np.array([len(contacts[n]) for n, _ in pairs_of_clips], float)
    onsets_N = np.array([len(onsets[s]) for _, s in pairs_of_clips], float)
    hits_KN = np.zeros((len(TOLERANCES), len(pairs_of_clips)))
    offsets, matched = [np.zeros(0)], []
    rows, pair_rows = [np.zeros(0, int)], []
    for row, (n, s) in enumerate(pairs_of_clips):
        seen, heard = contacts[n], onsets[s]
        offsets.append(nearest(seen, heard))
        rows.append(np.full(len(seen), row))
        for k, tolerance in enumerate(TOLERANCES):
            pairs = match(seen, heard, tolerance)
            hits_KN[k, row] = len(pairs)
        matched += [heard[j] - seen[i] for i, j in pairs]
        pair_rows += [row] * len(pairs)
    picture_N, sound_N = np.array(pairs_of_clips, int).reshape(-1, 2).T
    return Tally(
        picture_N,
        sound_N,
        contacts_N,
        onsets_N,
        hits_KN,
        np.concatenate(offsets),
        np.concatenate(rows),
        np.array(matched),
        np.array(pair_rows, dtype=int),
    )


def weighted_quantile(values_E: np.ndarray, weights_RE: np.ndarray, q: float) -> np.ndarray:
    """Quantile ``q`` of ``values`` under every row of weights (>= 0), [R]; nan if all are 0."""
    if not len(values_E):
        return np.full(len(weights_RE), np.nan)
    order = np.argsort(values_E)
    total_RE = np.cumsum(weights_RE[:, order], axis=1)
    mass_R = total_RE[:, -1]
    index_R = (total_RE < q * mass_R[:, None]).sum(1).clip(max=len(values_E) - 1)
    return np.where(mass_R > 0, values_E[order][index_R], np.nan)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def _numbers(table: Tally, drawn_RC: np.ndarray) -> dict[str, np.ndarray]:
    """Every number of the report, [R], with clip c counted ``drawn[r, c]`` times."""
    weights_RN = table.weights(drawn_RC)
    contacts_R, onsets_R = weights_RN @ table.contacts_N, weights_RN @ table.onsets_N
    numbers = {}
    for tolerance, hits_N in zip(TOLERANCES, table.hits_KN, strict=True):
        hits_R, name = weights_RN @ hits_N, round(tolerance * 1000)
        numbers[f"f1_{name}"] = _ratio(2 * hits_R, contacts_R + onsets_R)
        numbers[f"precision_{name}"] = _ratio(hits_R, onsets_R)
        numbers[f"recall_{name}"] = _ratio(hits_R, contacts_R)
    weights_RE, offsets_E = weights_RN[:, table.row_E], np.abs(table.offsets_E) * 1000
    numbers["median_ms"] = weighted_quantile(offsets_E, weights_RE, 0.5)
    numbers["p90_ms"] = weighted_quantile(offsets_E, weights_RE, 0.9)
    numbers["bias_ms"] = weighted_quantile(
        table.matched_P * 1000, weights_RN[:, table.pair_row_P], 0.5
    )
    return numbers


def resampling(count: int, resamples: int, seed: int) -> np.ndarray:
    """Bootstrap weights [R,N]: how often every clip is drawn in every resample."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(count, np.full(count, 1 / count), size=resamples).astype(float)


def interval(values_R: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of bootstrap values, nan ignored."""
    values_R = np.sort(values_R[~np.isnan(values_R)])
    if not len(values_R):
        return float("nan"), float("nan")
    tail = (1 - level) / 2
    last = len(values_R) - 1
    return float(values_R[round(tail * last)]), float(values_R[round((1 - tail) * last)])


def average(values: Sequence[float], resamples: int = 1000, seed: int = 0) -> list[float]:
    """[mean, low, high] of one number (or one True or False) per clip; nan where there is none."""
    values_N = np.asarray(values, dtype=float)
    if not len(values_N):
        return [float("nan")] * 3
    low, high = interval(resampling(len(values_N), resamples, seed) @ values_N / len(values_N))
    return [float(values_N.mean()), low, high]


def measure(
    contacts: Sequence[Times],
    onsets: Sequence[Times],
    *,
    shuffles: int = 0,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, list[float]]:
    """The sync table of a set of clips: name -> [value, low, high] (95 % interval over clips).

    ``contacts`` and ``onsets``: one list of seconds per clip. Names: ``f1_50``, ``precision_50``,
    ``recall_50``, the same at 100 ms, ``median_ms`` and ``p90_ms`` (|distance| from every contact
    to the nearest onset, unmatched ones included, infinite in a silent clip), ``bias_ms`` (median
    of onset - contact over pairs within 100 ms), ``contacts`` and ``onsets`` (events per clip).
    ``shuffles`` > 0 scores that many random derangements of the soundtracks instead: chance.
    ``resamples=0`` leaves the intervals out (low = high = value).
    """
    count = len(contacts)
    if not count:
        raise ValueError("no clips to measure")
    rng = np.random.default_rng(seed)
    rounds = [derangement(count, rng) for _ in range(shuffles)] or None
    table = tally(contacts, onsets, rounds)
    values = _numbers(table, np.ones((1, count)))
    draws = _numbers(table, resampling(count, resamples, seed)) if resamples else values
    result = {name: [float(value[0]), *interval(draws[name])] for name, value in values.items()}
    for name, totals_N in (("contacts", table.contacts_N), ("onsets", table.onsets_N)):
        mean = float(totals_N.mean())
        result[name] = [mean, mean, mean]
    return result


def score(found: Sequence[Times], true: Sequence[Times]) -> dict[str, float]:
    """A detector against the truth, as plain numbers: f1_50, f1_100, median_ms, bias_ms,
    count_accuracy (share of clips in which exactly as many events were found as there are)."""
    table = measure(true, found, resamples=0)
    names = ("f1_50", "f1_100", "median_ms", "bias_ms")
    result = {name: table[name][0] for name in names}
    same = [len(a) == len(b) for a, b in zip(found, true, strict=True)]
    return result | {"count_accuracy": float(np.mean(same))}
