"""Which metric is fit at which length: known answers of clips whose sound is moved."""

import numpy as np
import pytest

from syncflow.evaluation import lengths
from syncflow.evaluation.suites import calibration


@pytest.mark.parametrize("name", ["f1_50", "f1_100", "agreement", "median_ms", "correlation"])
def test_each_metric_finds_a_move_that_is_known(clips, cases, name):
    picture = np.zeros(200)
    picture[[50, 120]] = 1
    rise = np.roll(picture, 17)
    seen = calibration.Evidence([0.5, 1.2], [0.67, 1.37], picture, rise, 0.0, 2.0)
    score = lengths.SCORES[name]
    assert score(seen, 0.17) > max(score(seen, lag) for lag in (0.0, -0.17, 0.4, 0.06))


def test_av_align_finds_its_own_events():
    empty = np.zeros(200)
    seen = calibration.Evidence([], [], empty, empty, 0, 2, [0.5, 1.0], [0.7, 1.2], 16.0)
    score = lengths.SCORES["av_align"]
    assert score(seen, 0.2) == 1 and score(seen, 0.0) == 0


def test_the_report(tmp_path):
    given = {"with_av_align": False, "progress": False}
    (part,) = lengths.run(3, [2.0], out=tmp_path, **given)["lengths"]
    ours = part["metrics"]["agreement"]
    assert ours["within 80 ms"][0] >= 0.5 and ours["in sync"][0] > 0.7
    assert ours["within 20 ms"][0] <= ours["within 40 ms"][0] <= ours["within 80 ms"][0]
    text = (tmp_path / "lengths.md").read_text()
    assert "| agreement | 2 |" in text
    assert "| DeSync | 2 | not defined: its network reads 4.8 s at once |" in text
    for clips, seconds, said in ((1, [2.0], "at least 2"), (4, [0.5], "at least 1 s, got 0.5")):
        with pytest.raises(ValueError, match=said):
            lengths.run(clips, seconds, out=tmp_path, **given)


def test_desync_is_asked_of_long_clips_alone(tmp_path):
    assert "needs its network" in lengths.desync_of([], 5.0, None)
    with pytest.raises((ValueError, FileNotFoundError)):
        lengths.desync_of([], 5.0, tmp_path / "none.pt", allowed=True)


@pytest.mark.parametrize("more", [{"seconds": []}, {"levels": []}])
def test_no_length_and_no_level_are_refused(tmp_path, more):
    with pytest.raises(ValueError, match=rf"{next(iter(more))} must have at least one .* got \[\]"):
        lengths.run(2, out=tmp_path, progress=False, **more)
