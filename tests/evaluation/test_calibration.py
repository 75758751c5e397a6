import dataclasses

import numpy as np
import pytest
import torch

from syncflow.detect import matching
from syncflow.evaluation.suites import calibration, recordings

OFFSETS = (-500, -300, -200, -100, -50, 0, 50, 100, 200, 300, 500)


@pytest.fixture(scope="module")
def found(cases, clips):
    return calibration.calibrate(
        clips, [case.seen for case in cases], offsets_ms=OFFSETS, resamples=200,
        with_av_align=False, progress=False,
    )  # fmt: skip


def test_moving_the_sound_moves_its_onsets(clips):
    clip = clips[0]
    late, early = calibration.moved(clip, 0.1), calibration.moved(clip, -0.1)
    assert torch.equal(late.audio[4800:], clip.audio[:-4800]) and not late.audio[:4800].any()
    assert torch.equal(early.audio[:-4800], clip.audio[4800:]) and not early.audio[-4800:].any()
    assert torch.equal(calibration.moved(clip, 0.0).audio, clip.audio)


def test_event_metrics_fall_on_both_sides_and_to_chance(found):
    for name in ("f1_50", "f1_100", "agreement", "median_ms"):
        metric = found["metrics"][name]
        assert metric["fit"] and not metric["why"], (name, metric)
        curve = {ms: v for ms, (v, *_) in zip(OFFSETS, metric["curve"], strict=True)}
        sign = 1 if metric["better"] == "high" else -1
        for side in (-1, 1):
            assert sign * (curve[0] - curve[200 * side]) > 0
        assert all(ms <= 100 for ms in metric["resolution_ms"])
    assert found["metrics"]["f1_50"]["curve"][OFFSETS.index(0)][0] > 0.95
    assert found["metrics"]["f1_50"]["silent"] == [0, 0, 0]
    f1 = found["metrics"]["f1_100"]
    assert f1["shuffled"][0] < 0.5 < f1["curve"][OFFSETS.index(0)][1]


def test_events_are_kept_with_their_partners(cases, clips):
    """Moving the sound loses pairs at the edges, never one half of a pair: counting alone tells
    nothing."""
    for offset in (-0.5, 0.3):
        kept = 0
        for case, clip in zip(cases, clips, strict=True):
            part = calibration.evidence(clip, offset, case.seen, np.zeros(200))
            back = [t - offset for t in part.onsets]
            assert len(matching.match(part.contacts, back, 0.03)) == len(part.contacts) == len(back)
            kept += len(back)
        assert kept > len(cases) / 2


def test_a_blind_or_lopsided_metric_is_unfit(monkeypatch, cases, clips):
    """One that ignores the sound, one that likes late sound, one that is upside down."""

    def blind(evidence):
        return calibration._ratio([(1, 4) for _ in evidence])

    def counting(evidence):
        sizes = [(len(e.contacts), len(e.onsets)) for e in evidence]
        return calibration._ratio([(2 * min(pair), sum(pair)) for pair in sizes])

    def late(evidence):
        pairs = [(sum(e.onsets), len(e.onsets) + 1e-3) for e in evidence]
        return calibration._ratio(pairs)

    right = calibration.METRICS["f1_100"]
    made_up = {
        "blind": calibration.Metric("blind", "high", blind),
        "counting": calibration.Metric("counting", "high", counting),
        "late": calibration.Metric("late", "high", late),
        "upside down": dataclasses.replace(right, better="low"),
    }
    monkeypatch.setattr(calibration, "METRICS", made_up)
    metrics = calibration.calibrate(
        clips, [c.seen for c in cases], offsets_ms=(-200, 0, 200), resamples=100,
        with_av_align=False, progress=False,
    )["metrics"]  # fmt: skip
    assert not any(metric["fit"] for metric in metrics.values())
    assert "no worse 200 ms early; no worse 200 ms late" in metrics["blind"]["why"]
    assert metrics["late"]["why"].startswith("best at +200 ms")
    assert "no better than chance" in metrics["upside down"]["why"]


def test_av_align_is_read_where_its_libraries_are(cases, clips):
    pytest.importorskip("cv2")
    pytest.importorskip("librosa")
    found = calibration.calibrate(
        clips[:6], [c.seen for c in cases[:6]], offsets_ms=(-200, 0, 200), resamples=20,
        with_av_align=True, progress=False,
    )["metrics"]["av_align"]  # fmt: skip
    assert all(0 <= value <= 1 for value, *_ in found["curve"])
    assert found["curve"][1][0] > 0 and found["silent"][0] == 0
    assert found["fit"] == (not found["why"])


def test_bad_requests(clips):
    with pytest.raises(ValueError, match="at least 2 clips, got 1"):
        calibration.calibrate(clips[:1])
    with pytest.raises(ValueError, match=r"\[-200, 200\]"):
        calibration.calibrate(clips, offsets_ms=(-100, 0, 100))


def test_recordings_are_read_with_their_events(greatest, clips):
    found = recordings.windows(greatest, 10, clips[0])
    assert len(found) >= 2 and all(w.clip.seconds == 2 for w in found)
    assert all(w.kind == "hit" and w.material in ("metal", "wood", "glass", "rubber", "mixed")
               for w in found)  # fmt: skip
    heard = [calibration.onsets.times(w.clip.audio, w.clip.sample_rate) for w in found]
    assert matching.measure([w.times for w in found], heard, resamples=0)["f1_50"][0] > 0.8
    result = calibration.calibrate(
        [w.clip for w in found], [w.times for w in found], offsets_ms=(-200, 0, 200),
        resamples=50, with_av_align=False, progress=False,
    )  # fmt: skip
    curve = [v for v, *_ in result["metrics"]["agreement"]["curve"]]
    assert curve[1] > max(curve[0], curve[2])


def test_what_is_not_written_as_events_is_named(greatest, tmp_path):
    times = next(greatest.glob("*_times.txt"))
    times.write_text("0.5 None None\nsoon wood hit\n")
    with pytest.raises(ValueError, match="line 2: expected seconds first, got 'soon wood hit'"):
        recordings.read_events(times)
    times.write_text("1.5\n0.5 None scratch\n")
    first, second = recordings.read_events(times)
    assert (first.time, first.material, first.kind) == (0.5, None, "scratch")
    assert (second.material, second.kind) == (None, None)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        recordings.find(tmp_path / "gone")
