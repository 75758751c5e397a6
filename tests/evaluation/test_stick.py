"""The end of a swung stick: known angles are read back, whatever decoders leave around them."""

import numpy as np
import pytest
import torch

from syncflow.detect import contacts, matching, stick
from syncflow.detect.settings import TrackSettings
from syncflow.evaluation.probes import wear
from syncflow.evaluation.suites import systems

HINGE, LENGTH, SIZE = (20.5, 40.5), 28.0, 64  # row and column


def swing(blows=(9, 21), frames=32):
    """Slopes of a stick that points up and left and falls on each frame of ``blows``."""
    slope_F = np.full(frames, -0.4)
    for blow in blows:
        slope_F[blow - 2 : blow + 3] = [-0.2, 0.1, 0.45, 0.15, -0.2]
    return slope_F


def drawn(slope_F, away=-1, thick=2.0):
    """Weight of every pixel, [F, 64, 64], and the row of the free end, [F]."""
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    row, column = HINGE if away < 0 else (HINGE[0], SIZE - HINGE[1])
    weight_FHW = np.zeros((len(slope_F), SIZE, SIZE))
    for weight_HW, slope in zip(weight_FHW, slope_F, strict=True):
        cosine = 1 / np.hypot(1, slope)
        along = away * (columns - column) * cosine + (rows - row) * slope * cosine
        beside = np.abs(away * -(columns - column) * slope * cosine + (rows - row) * cosine)
        inside = (along >= 0) & (along <= LENGTH)
        weight_HW[:] = np.where(inside, np.clip(thick / 2 + 0.5 - beside, 0, 1), 0)
    return weight_FHW, row + slope_F / np.hypot(1, slope_F) * LENGTH


def read(weight_FHW):
    mass_F = weight_FHW.sum((1, 2))
    return stick.end(weight_FHW, mass_F, float(np.median(mass_F)), TrackSettings())


@pytest.mark.parametrize("away", [-1, 1])
def test_the_angle_is_read_back(away):
    weight_FHW, true_F = drawn(swing(), away)
    y_F, column = read(weight_FHW)
    np.testing.assert_allclose(y_F, true_F, atol=0.8)
    assert abs(column - (SIZE / 2 + away * (SIZE / 2 - HINGE[1]) + away * LENGTH)) < 2


def test_specks_on_what_is_struck_do_not_count():
    """The lowest pixel would be theirs."""
    weight_FHW, true_F = drawn(swing())
    weight_FHW[::2, 40:43, 14:18] = 1.0
    np.testing.assert_allclose(read(weight_FHW)[0], true_F, atol=0.8)


def test_of_a_stick_and_the_place_where_it_rested_the_stick_is_read():
    weight_FHW, true_F = drawn(swing())
    rest_HW = weight_FHW[0].copy()
    moved = true_F > true_F[0] + 7
    weight_FHW[moved] = np.maximum(weight_FHW[moved], rest_HW)
    np.testing.assert_allclose(read(weight_FHW)[0][moved], true_F[moved], atol=1.0)


def test_a_frame_without_it_is_not_a_number():
    weight_FHW, true_F = drawn(swing())
    weight_FHW[15] = 0.0
    y_F, _ = read(weight_FHW)
    assert np.flatnonzero(np.isnan(y_F)).tolist() == [15]
    np.testing.assert_allclose(np.delete(y_F, 15), np.delete(true_F, 15), atol=0.8)


def test_a_stick_that_fades_is_still_read():
    weight_FHW, true_F = drawn(swing())
    weight_FHW[[9, 21]] *= 0.3
    np.testing.assert_allclose(read(weight_FHW)[0], true_F, atol=0.8)


def test_what_is_round_is_no_stick():
    rows, columns = np.mgrid[:SIZE, :SIZE]
    weight_FHW = np.zeros((8, SIZE, SIZE))
    for f, weight_HW in enumerate(weight_FHW):
        weight_HW[(rows - 10 - 4 * f) ** 2 + (columns - 30) ** 2 < 25] = 1.0
    assert read(weight_FHW) is None
    assert read(np.zeros((8, SIZE, SIZE))) is None


def test_blows_are_found_in_what_a_decoder_leaves():
    """Noise, half of the resting stick in the background, a tip that fades in its fastest frame:
    both blows are still found within a frame."""
    slope_F = swing()
    weight_FHW, _ = drawn(slope_F)
    generator = torch.Generator().manual_seed(0)
    video = torch.full((32, 3, SIZE, SIZE), 120.0)
    colour = torch.tensor([-60.0, -40.0, -90.0])[:, None, None]
    weight = torch.from_numpy(weight_FHW).float()
    for blow in (9, 21):
        weight[blow, :, :18] *= 0.4
    video += weight[:, None] * colour
    video += 3 * torch.randn(video.shape, generator=generator)
    found = contacts.times(video.clamp(0, 255).to(torch.uint8))
    assert len(found) == 2
    np.testing.assert_allclose(found, [9 / 16, 21 / 16], atol=0.07)


def in_colour(weight_FHW):
    colour = torch.tensor([-60.0, -40.0, -90.0])[:, None, None]
    video = 120 + torch.from_numpy(weight_FHW).float()[:, None] * colour
    return video.to(torch.uint8)


def test_a_stick_that_is_not_seen_at_first_strikes_when_it_does():
    weight_FHW, _ = drawn(swing())
    weight_FHW[:5] = 0
    np.testing.assert_allclose(contacts.times(in_colour(weight_FHW)), [9 / 16, 21 / 16], atol=0.05)


@pytest.mark.parametrize("away", [-1, 1])
def test_one_blow_does_not_make_the_tip_a_hinge(away):
    weight_FHW, true_F = drawn(swing([16]), away)
    weight_FHW = np.maximum(weight_FHW, 0.6 * np.roll(weight_FHW, 1, 1))  # a soft edge
    np.testing.assert_allclose(read(weight_FHW)[0], true_F + 0.4, atol=1.0)
    found = contacts.detect(in_colour(weight_FHW))
    assert [round(16 * contact.time) for contact in found] == [16]
    assert 0 <= found[0].column <= 1


def test_one_blow_of_a_rendered_stick_is_found_in_large_pictures_too():
    """Its tip rests in nine tenths of the frames, and its hinge flickers."""
    (case,) = (c for c in systems.cases("val", 24, [2]) if c.seed == 10_000_013)
    for size in (64, 128):
        found = contacts.times(systems.rendered(case, size, size).video)
        np.testing.assert_allclose(found, case.seen, atol=0.05)


def test_what_rolls_is_no_stick_however_wide_the_place_where_it_moves():
    """A bar that is bent to and fro: no ray explains it."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    weight_FHW = np.zeros((16, SIZE, SIZE))
    for f, weight_HW in enumerate(weight_FHW):
        height = 16 + 14 * np.abs((columns + f) % 10 - 5) / 5
        weight_HW[(np.abs(rows - height) < 2) & (columns > 8) & (columns < 40)] = 1.0
    assert read(weight_FHW) is None
    faint = np.full((8, 4, SIZE), 0.5)
    assert stick.end(faint, faint.sum((1, 2)), 128.0, TrackSettings()) is None


def test_what_sinks_touches_nothing_more(monkeypatch):
    """A splash's spray and the slow way down have no second contact; a second thing that falls from
    above has."""
    cases = [c for c in systems.cases("val", 64, [3]) if c.kind == "splash"]
    found = [contacts.times(systems.rendered(case, 64, 64).video) for case in cases]
    score = matching.score(found, [case.seen for case in cases])
    assert score["f1_50"] >= 0.85
    several = [len(times) for times, case in zip(found, cases, strict=True) if len(case.seen) > 1]
    assert several and min(several) >= 1 and max(several) >= 2
    worn = [wear.picture(systems.rendered(case, 64, 64).video, 0.7, case.seed) for case in cases]
    with_rule = sum(len(contacts.times(video)) for video in worn)
    monkeypatch.setattr(contacts, "_comes_again", lambda *_: True)
    assert with_rule < sum(len(contacts.times(video)) for video in worn)
    monkeypatch.undo()
    y_F = np.array([10.0, 20, 30, 31, 32, 33, 12, 22, 30])
    assert contacts._comes_again(y_F, 2.0, 30.0, 8.0)
    assert not contacts._comes_again(y_F, 2.0, 30.0, 5.5)
