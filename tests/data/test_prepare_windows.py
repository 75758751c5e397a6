"""Scene cuts, placement of windows, and the filters."""

import itertools

import numpy as np
import pytest
import torch
from made_clips import moving, noise

from syncflow.data.impacts_dataset import iterate
from syncflow.data.prepare import filters, windows
from syncflow.data.prepare.cuts import cuts


def test_cuts_are_found_where_they_are() -> None:
    video = torch.cat([moving(20, 1), moving(37, 2), moving(9, 3), moving(30, 4)])
    assert cuts(video) == [20, 57, 66]
    assert cuts(video[:1]) == [] and cuts(video[18:22]) == [2]


def test_a_flash_is_no_cut_and_neither_is_a_pan() -> None:
    flash = moving(40, 1)
    flash[17] = 255
    assert cuts(flash) == []
    wide = torch.from_numpy(
        np.random.default_rng(0).integers(0, 255, (3, 48, 60)).astype(np.uint8)
    ).repeat_interleave(8, 2)  # fmt: skip
    pan = torch.stack([wide[:, :, 6 * i : 6 * i + 64] for i in range(60)])
    assert cuts(pan) == []
    fast = moving(40, 1)
    fast[20:23, :, 4:34, 4:40] = 250  # a quarter of the picture, for three frames
    assert cuts(fast) == []
    fade = (moving(40, 1).float() * torch.linspace(1, 0, 40)[:, None, None, None]).byte()
    assert cuts(fade) == []


def test_things_that_bounce_are_no_cuts_and_not_static() -> None:
    for level in (1, 4):
        for _, video, audio in iterate(4, seed=3, level=level):
            clip = torch.from_numpy(video)
            assert cuts(clip) == []
            assert filters.motion(clip) > 12
            assert filters.loudness_db(torch.from_numpy(audio), 48000) > -40


@pytest.mark.parametrize("seed", range(20))
def test_no_window_crosses_a_cut(seed) -> None:
    rng = np.random.default_rng(seed)
    frames, length = int(rng.integers(1, 300)), int(rng.integers(1, 40))
    at = sorted(set(rng.integers(1, max(2, frames), rng.integers(0, 12)).tolist()))
    at = [cut for cut in at if cut < frames]
    spans = windows.spans(frames, at)
    for draw in (rng, None):
        for count in (1, 7, 1000):
            starts = windows.place(spans, length, count, draw)
            assert starts == sorted(set(starts)) and len(starts) <= count
            for start in starts:
                assert 0 <= start and start + length <= frames
                assert not any(start < cut <= start + length for cut in at)
            assert all(a + length <= b for a, b in itertools.pairwise(starts)), "one over another"
            assert len(starts) == min(count, windows.capacity(spans, length))
    # What fits side by side fits.
    fit = windows.capacity(spans, length)
    assert len(windows.place(spans, length, fit, rng)) == fit


def test_random_windows_are_anywhere_and_fixed_ones_in_the_middle() -> None:
    spans = [(0, 50), (60, 100)]
    assert windows.place(spans, 20, 1, None) == [25]  # the middle one of 31 + 21 places
    seen = np.zeros(100, dtype=int)
    for seed in range(4000):
        seen[windows.place(spans, 20, 1, np.random.default_rng(seed))] += 1
    places = [*range(31), *range(60, 81)]
    assert seen.sum() == 4000 and seen[places].min() > 40 and set(np.flatnonzero(seen)) == {*places}
    first = windows.place(spans, 20, 3, np.random.default_rng(5))
    assert first == windows.place(spans, 20, 3, np.random.default_rng(5))


def test_filters_measure_what_they_say() -> None:
    still = moving(1).expand(32, -1, -1, -1)
    assert filters.motion(still) == 0
    grain = (still.int() + torch.randint(-6, 7, still.shape)).clamp(0, 255).byte()
    assert filters.motion(grain) < 8 < filters.motion(moving(32))
    assert filters.loudness_db(torch.zeros(96000), 48000) == float("-inf")
    assert filters.loudness_db(noise(96000, level=0.1), 48000) == pytest.approx(-19.5, abs=0.5)
    tick = torch.zeros(96000)
    tick[50000:50480] = noise(480, level=0.1)
    assert -30 < filters.loudness_db(tick, 48000) < -25
    assert filters.loudness_db(noise(10), 48000) < 0
