"""What a report says clip by clip, and the second detectors."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from syncflow.data.export import loudness
from syncflow.detect import matching, second
from syncflow.evaluation.suites import rows, sync, systems
from syncflow.evaluation.suites.systems import Observation


@pytest.fixture(scope="module")
def case():
    """A caption that says count, material and colour."""
    found = systems.cases("val", 60, [1])
    return next(c for c in found if c.count == 2 and c.material and c.colour)


def observed(case, **changes) -> Observation:
    right = Observation([0.5, 1.0], [0.51, 0.98], case.material, case.colour, 0.5, -20.0, -23.0)
    return replace(right, **changes)


def test_wholly_right_needs_everything_that_the_caption_says(case) -> None:
    assert rows.wholly_right(case, observed(case))
    wrong = [
        {"onsets": [0.51]}, {"onsets": [0.51, 0.98, 1.5]}, {"onsets": [0.51, 1.06]},
        {"contacts": [], "onsets": []}, {"contacts": [0.5], "onsets": [0.5]},
        {"material": "other"}, {"colour": "other"},
    ]  # fmt: skip
    for changes in wrong:
        assert not rows.wholly_right(case, observed(case, **changes)), changes
    free = replace(case, count=None, material=None, colour=None)
    for changes in wrong[4:]:
        assert rows.wholly_right(free, observed(case, **changes)), changes
    assert not rows.wholly_right(free, observed(case, contacts=[], onsets=[]))


def test_rows_tell_what_a_mean_over_events_hides(case) -> None:
    seen = [
        observed(case),
        observed(case, contacts=[0.5], onsets=[0.5, 0.9, 1.4]),
        observed(case, contacts=[0.2, 0.5, 1.0], onsets=[1.0]),
        observed(case, contacts=[], onsets=[]),
    ]
    (row,) = rows.measured("x", [case] * 4, seen, 0)
    assert row["whole"][0] == row["all_matched"][0] == row["no_contact"][0] == 0.25
    assert row["missed"][0] == 0.5 and row["invented"][0] == 0.5
    assert row["lufs"][0] == -23.0
    assert row["whole"][1] < 0.25 < row["whole"][2]
    assert "whole_second" not in row and "f1_50_second" not in row


def test_the_second_detectors_judge_by_themselves(case) -> None:
    both = ([0.5, 1.0], [0.5, 1.0])
    seconds = [both, both, ([0.5], [0.5]), ([0.5], [1.0])]
    seen = [observed(case, second=each) for each in seconds]
    seen[1] = replace(seen[1], onsets=[])
    row, *_ = rows.measured("x", [case] * 4, seen, 0)
    assert row["whole"][0] == 0.75 and row["whole_second"][0] == 0.5
    assert row["f1_50_second"][0] == pytest.approx(10 / 12)


def test_loudness_is_what_the_standard_says() -> None:
    """A full-scale sine of 1 kHz has -3.01 LUFS; halving the amplitude takes 6.02 LU."""
    time = torch.arange(96000) / 48000
    sine = torch.sin(2 * np.pi * 1000 * time)
    assert loudness.lufs(sine, 48000) == pytest.approx(-3.01, abs=0.02)
    assert loudness.lufs(sine / 2, 48000) == pytest.approx(-9.03, abs=0.02)
    # The gate: a pause does not make it quieter, and another rate is the same sound.
    pause = torch.cat([sine, torch.zeros(96000)])
    assert loudness.lufs(pause, 48000) == pytest.approx(-3.01, abs=0.4)
    other = torch.sin(2 * np.pi * 1000 * torch.arange(32000) / 16000)
    assert loudness.lufs(other, 16000) == pytest.approx(-3.01, abs=0.05)
    assert loudness.lufs(torch.zeros(96000), 48000) == loudness.SILENCE
    assert loudness.lufs(torch.zeros(0), 48000) == loudness.SILENCE
    assert -12 < loudness.lufs(sine[:4800], 48000) < -3  # shorter than a block of the standard


def test_the_low_point_finds_contacts(cases, clips) -> None:
    """``conftest``'s clips are the renderer's, of level 1."""
    found = [second.contacts(clip.video, clip.fps) for clip in clips]
    score = matching.score(found, [case.seen for case in cases])
    assert score["f1_50"] > 0.85 and score["f1_100"] > 0.9
    still = torch.zeros(32, 3, 64, 64, dtype=torch.uint8)
    assert second.contacts(still) == [] and np.isnan(second.low_point(still)).all()


@pytest.mark.parametrize("speed", [3.0, 5.0])
def test_a_contact_lies_between_frames(speed: float) -> None:
    """A square falls to row 48 and rises again, at 16 frames/s."""
    for turn in (10.0, 10.3, 10.7):
        video = torch.full((24, 3, 64, 64), 40, dtype=torch.uint8)
        for frame in range(24):
            bottom = 48 - speed * abs(frame - turn)
            rows_64 = torch.arange(64)
            cover = (torch.minimum(rows_64 + 1, torch.tensor(bottom)) - torch.maximum(
                rows_64, torch.tensor(bottom - 8))).clamp(0, 1)  # fmt: skip
            video[frame, :, :, 28:36] = (40 + 200 * cover)[None, :, None].round().to(torch.uint8)
        (found,) = second.contacts(video, 16)
        assert found == pytest.approx(turn / 16, abs=0.02)


def test_librosas_onsets(cases, clips) -> None:
    pytest.importorskip("librosa")
    assert second.onsets(torch.zeros(48000)) == []
    found = [second.onsets(clip.audio, clip.sample_rate) for clip in clips]
    assert matching.score(found, [case.heard for case in cases])["f1_50"] > 0.85


def test_candidates_are_for_pictures_that_are_drawn(renderer, cases, clips) -> None:
    model = renderer()
    scope = sync.Scope(takes=2, paper_way=True, reconstruct=False)
    sampling = {"seed": 0, "batch": 4, "progress": False}
    sync._made(model, {}, cases[:4], clips[:4], scope, {"candidates": 3, "guidance": 1.5}, sampling)
    assert len(model.calls) == 3  # takes, and two ways of video to audio
    assert all("candidates" not in call and call["guidance"] == 1.5 for call in model.calls)


def test_groups_tell_colours_and_unseen_pairs_apart() -> None:
    found = systems.cases("test", 40, [1])
    groups = rows.groups_of(found)
    seen, unseen = (groups[f"colour and material {x}seen together"] for x in ("", "un"))
    both = [i for i, case in enumerate(found) if case.colour and case.material]
    assert sorted(seen + unseen) == both and len(unseen) > 5
    assert {(found[i].material, found[i].colour) for i in unseen} <= {
        ("metal", "cyan"), ("wood", "white"), ("glass", "red"), ("rubber", "blue"),
    }  # fmt: skip
    for i in groups["colour blue"]:
        assert found[i].colour == "blue"
    familiar = rows.groups_of(systems.cases("val", 20, [1]))
    assert not any(name.startswith("colour and") for name in familiar)
