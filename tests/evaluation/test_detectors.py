import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from syncflow.detect import contacts, matching, onsets, settings
from syncflow.evaluation.probes import wear
from syncflow.evaluation.suites import fit, systems


def test_contacts_of_rendered_clips(cases, clips):
    result = contacts.score([c.video for c in clips], [c.seen for c in cases], 16)
    assert result["f1_50"] >= 0.98 and result["count_accuracy"] >= 0.93
    assert result["median_ms"] <= 6 and abs(result["bias_ms"]) <= 4


def test_contacts_bear_worn_pictures(cases, clips):
    worn = [wear.picture(c.video, 0.6, i) for i, c in enumerate(clips)]
    assert any((a != b.video).any() for a, b in zip(worn, clips, strict=True))
    assert contacts.score(worn, [c.seen for c in cases], 16)["f1_50"] >= 0.9


def test_contacts_follow_the_picture(cases, clips):
    """Backwards, contacts come in reverse; a frame late, a frame later."""
    backwards = [[(31 / 16) - t for t in contacts.times(c.video.flip(0))][::-1] for c in clips]
    assert matching.score(backwards, [c.seen for c in cases])["f1_50"] >= 0.9
    late = [torch.cat([c.video[:1], c.video[:-1]]) for c in clips]
    assert contacts.score(late, [c.seen for c in cases])["bias_ms"] == pytest.approx(62.5, abs=5)


def test_a_still_or_empty_picture_has_no_contact():
    still = torch.full((32, 3, 64, 64), 90, dtype=torch.uint8)
    assert contacts.times(still) == []
    noise = torch.randint(80, 100, (32, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    assert contacts.times(noise.to(torch.uint8)) == []
    with pytest.raises(ValueError, match="uint8"):
        contacts.times(still.float())


def test_an_object_that_rests_is_not_background():
    """One drop that comes to rest within half a second: the median picture holds the object."""
    video = torch.full((32, 3, 64, 64), 200, dtype=torch.uint8)
    for frame in range(32):
        row = min(8 + 1.2 * frame**2 / 2, 46.0)
        video[frame, :, round(row) : round(row) + 10, 25:35] = torch.tensor([200, 20, 20])[
            :, None, None
        ]
    found = contacts.times(video)
    expected = math.sqrt(2 * 38 / 1.2) / 16
    assert len(found) == 1 and abs(found[0] - expected) < 0.03


@pytest.fixture(scope="module")
def others():
    """The first strikes and splashes of levels 2 and 3."""
    found = [c for c in systems.cases("val", 24, [2]) if c.kind == "strike"][:6]
    found += [c for c in systems.cases("val", 40, [3]) if c.kind == "splash"][:5]
    return found, [systems.rendered(case, 64, 64) for case in found]


def test_blows_of_a_stick_and_splashes(others):
    cases, clips = others
    found = {"strike": ([], [], [], []), "splash": ([], [], [], [])}
    for case, clip in zip(cases, clips, strict=True):
        rows = (contacts.times(clip.video), case.seen, onsets.times(clip.audio), case.heard)
        for column, times in zip(found[case.kind], rows, strict=True):
            column.append(times)
    for kind, least in (("strike", 0.95), ("splash", 0.7)):
        seen, contact, heard, sound = found[kind]
        assert matching.score(seen, contact)["f1_50"] >= least, kind
        assert matching.score(heard, sound)["f1_50"] >= 0.95, kind
    assert matching.score(found["strike"][0], found["strike"][1])["count_accuracy"] >= 0.8


def test_frame_rate_and_size_do_not_matter(cases):
    from syncflow import impacts

    for size, fps in ((64, 32), (128, 16)):
        videos, true = [], []
        for case in cases[:6]:
            scene = impacts.sample_scene(case.seed, 1, "val", fps=fps)
            videos.append(torch.from_numpy(impacts.render(scene, size, size)))
            true.append(case.seen)
        assert contacts.score(videos, true, fps)["f1_50"] >= 0.95, (size, fps)


def test_onsets_of_rendered_clips(cases, clips):
    result = onsets.score([c.audio for c in clips], [c.heard for c in cases])
    assert result["f1_50"] >= 0.99 and result["median_ms"] <= 3 and abs(result["bias_ms"]) <= 2
    worn = [wear.sound(c.audio, 0.7, i) for i, c in enumerate(clips)]
    assert onsets.score(worn, [c.heard for c in cases])["f1_50"] >= 0.97


def test_onsets_bear_beats_reverberation_and_noise():
    """Two strikes that ring and beat at 9 Hz, with an echo tail, over a noise floor at -50 dB."""
    rate, generator = 48000, torch.Generator().manual_seed(0)
    t = torch.arange(2 * rate) / rate
    audio = torch.zeros(2 * rate)
    for start in (0.4, 1.3):
        after = (t - start).clamp_min(0)
        ring = sum(torch.sin(2 * math.pi * f * after) for f in (700, 709, 1850, 4100))
        audio += (t >= start) * 0.1 * ring * torch.exp(-after / 0.5)
        tail = torch.randn(len(t), generator=generator) * torch.exp(-after / 0.15)
        audio += (t >= start + 0.01) * 0.02 * tail
    audio += 0.003 * torch.randn(len(t), generator=generator)
    found = onsets.detect(audio)
    assert [round(o.time, 2) for o in found] == [0.4, 1.3]
    assert all(-40 < o.loudness < 0 for o in found)
    assert onsets.times(torch.zeros(2 * rate)) == []


def test_onset_times_shift_with_the_sound():
    audio = torch.zeros(48000)
    audio[20000:22000] = 0.5 * torch.randn(2000, generator=torch.Generator().manual_seed(0))
    (first,) = onsets.times(audio)
    (second,) = onsets.times(torch.cat([torch.zeros(4800), audio])[:48000])
    assert second - first == pytest.approx(0.1, abs=1e-3)
    quiet, loud = onsets.detect(audio * 0.1)[0], onsets.detect(audio)[0]
    assert loud.loudness - quiet.loudness == pytest.approx(20, abs=0.5)


def test_settings_come_from_the_package_and_round_trip(tmp_path):
    detectors = settings.load()
    assert settings.PATH.is_file() and detectors.fitted["split"] == "val"
    detectors.save(tmp_path / "d.json")
    assert settings.parse(json.loads((tmp_path / "d.json").read_text())) == detectors
    data = dataclasses.asdict(detectors)
    data["onsets"]["treshold"] = 1
    with pytest.raises(TypeError, match="treshold"):
        settings.parse(data)


def test_fit_improves_bad_settings_and_refuses_test(monkeypatch):
    with pytest.raises(ValueError, match="must not be fitted on test"):
        fit.samples("test", 2, [1])
    found = fit.fit("val", clips=6, trials=3)
    assert found.fitted["contacts_clean"]["f1_50"] >= 0.95
    assert np.isclose(found.onsets.bias, found.fitted["onsets_clean"]["bias_ms"] / 1000, atol=1e-4)


def test_check_splits_by_kind_and_reads_each_truth_with_its_detector(monkeypatch):
    rows = fit.check(clips=8, levels=[2])
    assert set(rows) == {"bounce", "strike"}
    assert sum(row["contacts"]["clips"] for row in rows.values()) == 8
    assert all(score["f1_50"] >= 0.9 for row in rows.values() for score in row.values())
    case = dataclasses.replace(systems.cases("val", 2, [1])[0], seen=(0.5,), heard=(1.5,))
    monkeypatch.setattr(systems, "cases", lambda *a: [case])
    monkeypatch.setattr(contacts, "score", lambda clips, true: {"true": list(true)})
    monkeypatch.setattr(onsets, "score", lambda clips, true: {"true": list(true)})
    told = fit.check(clips=1)[case.kind]
    assert told["contacts"]["true"] == [(0.5,)] and told["onsets"]["true"] == [(1.5,)]


def test_wear_is_seeded_and_optional(clips):
    clip = clips[0]
    assert (
        wear.picture(clip.video, 0, 1) is clip.video and wear.sound(clip.audio, 0, 1) is clip.audio
    )
    assert (wear.picture(clip.video, 1, 1) == wear.picture(clip.video, 1, 1)).all()
    assert (wear.sound(clip.audio, 1, 1) != wear.sound(clip.audio, 1, 2)).any()
