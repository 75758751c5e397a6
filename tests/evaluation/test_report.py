import csv
import json
import re
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image

from syncflow import cli
from syncflow.clip import Clip
from syncflow.data import media
from syncflow.detect import fidelity
from syncflow.evaluation.probes import looks, materials
from syncflow.evaluation.probes.probe import ProbeSettings
from syncflow.evaluation.report import tables
from syncflow.evaluation.suites import provenance, rows, sweep, sync, systems

SCOPE = sync.Scope(
    paper_way=True, takes=2, calibrate=6, guidance=(1.0,), sizes=(128,), players=3,
    accelerations=2, counterfactual=2,
    compare={"late": "late"},
)  # fmt: skip
QUICK = (
    ProbeSettings(clips=96, held=40, epochs=8, batch=16),
    ProbeSettings(clips=160, held=40, epochs=30, rate=1e-2),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def written(folder, renderer):
    model = renderer()
    named = provenance.load_model
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(
        provenance, "load_model", lambda m: (renderer(0.3), {}) if m == "late" else named(m)
    )
    result = sync.run(
        model, clips=12, split="val", out=folder / "eval", batch=5, seed=3,
        options={"guidance": 1.5}, probe_settings=QUICK, progress=False, scope=SCOPE,
    )  # fmt: skip
    monkeypatch.undo()
    return model, result


#: What every call of the model has.
ALWAYS = ("seed", "progress", "video", "prompts")


def _row(result, system, group="all clips"):
    return next(r for r in result["rows"] if (r["system"], r["group"]) == (system, group))


def test_material_and_colour_probes_learn(cases, clips, folder):
    heard, looked, kind = systems.load_probes(folder / "probes", (1,), QUICK)
    assert heard.accuracy >= 0.9 and looked.accuracy >= 0.8
    assert kind is None, "level 1 only bounces"
    names = materials.predict(heard, [c.audio for c in clips])
    truth = [c.scene.attributes["material"] for c in cases]
    assert sum(a == b for a, b in zip(names, truth, strict=True)) >= 14
    # Loudness is not material; a probe from the cache is the same probe.
    assert materials.predict(heard, [c.audio * 0.2 for c in clips]) == names
    again = systems.load_probes(folder / "probes", (1,), QUICK).material
    assert materials.predict(again, [c.audio for c in clips]) == names
    assert again.facts == heard.facts
    assert looks.predict(looked, []) == []


def test_other_settings_are_another_probe(folder):
    name = materials.load(folder / "probes", QUICK[0]).facts["fingerprint"]
    other = ProbeSettings(clips=8, held=4, epochs=1)
    assert materials.load(None, other).facts["fingerprint"] != name


def test_a_perfect_model_scores_as_the_real_clips(written):
    _, result = written
    systems_seen = {row["system"] for row in result["rows"]}
    assert systems_seen == {
        "generated", "video to audio", "video to audio, the paper's way", "real, after the VAEs",
        "generated, best of 2 takes", "generated, late", "video to audio, late", "real",
        "generated, shuffled", "real, shuffled", "real, silent",
    }  # fmt: skip
    made, real = _row(result, "generated"), _row(result, "real")
    assert made["f1_50"] == real["f1_50"] and made["f1_50"][0] >= 0.97
    assert made["count_picture"][0] >= 0.9 and made["count_sound"][0] == 1
    assert made["material"][0] >= 0.8
    chance = _row(result, "generated, shuffled")
    assert chance["f1_50"][0] < 0.4 and "count_picture" not in chance
    for value, low, high in (made["f1_100"], made["count_picture"], chance["f1_50"]):
        assert low <= value <= high


def test_files_hold_the_report(written, folder):
    _, result = written
    out = folder / "eval"
    data = json.loads((out / "report.json").read_text())
    assert data["rows"][0]["f1_50"] == result["rows"][0]["f1_50"]
    assert {"model", "date", "machine", "command", "seed"} <= set(data["facts"])
    page = (out / "report.md").read_text()
    assert "| generated |" in page and "F1 at 50 ms" in page and "renderer" in page
    lines = list(csv.DictReader((out / "clips.csv").open()))
    assert len(lines) == 8 * 12 and {line["system"] for line in lines} >= {"generated", "real"}
    assert int(lines[0]["matched_100"]) <= len(lines[0]["contacts"].split())
    first = [float(t) for t in lines[0]["onsets"].split()]
    assert all(0 <= t <= 2 for t in first)
    for name in ("clips.png", "offsets.png"):
        assert Image.open(out / name).size[0] > 200


def test_batches_seeds_and_options_reach_the_model(written):
    model, _ = written
    calls = [c for c in model.calls if not c["video"] and set(c) == {"guidance", *ALWAYS}]
    calls = calls[:3]  # those after them are the strengths of guidance that are tried
    assert [c["prompts"] for c in calls] == [5, 5, 2] and [c["seed"] for c in calls] == [3, 8, 13]
    assert all(c["guidance"] == 1.5 and "steps" not in c for c in calls)
    by_way = [c.get("v2a", "one-pass") for c in model.calls if c["video"]]
    assert by_way[:6] == ["one-pass"] * 3 + ["paper"] * 3  # then come counterfactuals
    assert [c["audio_takes"] for c in model.calls if "audio_takes" in c] == [2, 2, 2]
    sizes = [c["height"] for c in model.calls if "height" in c]
    assert sizes == [128]


def test_a_late_or_silent_model_is_caught(folder, written, renderer):
    options = dict(
        clips=8, split="val", seed=0, probe_settings=QUICK, progress=False,
        scope=sync.Scope(video_to_audio=False, reconstruct=False, players=1),
    )  # fmt: skip
    late = sync.run(renderer(delay=0.08), out=folder / "late", **options)
    row = _row(late, "generated")
    assert row["f1_50"][0] < 0.2 and row["f1_100"][0] > 0.8
    assert row["bias_ms"][0] == pytest.approx(80, abs=8)
    silent = sync.run(renderer(silent=True), out=folder / "silent", **options)
    row = _row(silent, "generated")
    assert row["f1_100"][0] == 0 and row["count_sound"][0] == 0
    assert (
        json.loads((folder / "silent" / "report.json").read_text())["rows"][0]["median_ms"][0]
        is None
    )


def test_a_sound_that_is_not_finite_is_left_out_of_every_row(folder, written, renderer):
    """It has no onsets, and would pass for a silent one."""

    class Broken(renderer):
        def generate(self, prompts, **options):
            made = super().generate(prompts, **options)
            if options["seed"] == 0:
                made[1].audio[100] = float("nan")
            return made

    options = {"split": "val", "probe_settings": QUICK, "progress": False}
    scope = sync.Scope(video_to_audio=False, reconstruct=False, players=1)
    result = sync.run(Broken(), out=folder / "broken", clips=8, batch=4, scope=scope, **options)
    seed = systems.cases("val", 8, [1])[1].seed
    said = f"1 clips, of every system: level 1, seed {seed} (not finite: generated)"
    assert result["facts"]["left out"] == said
    for system in ("generated", "real", "real, silent"):
        assert _row(result, system)["clips"] == 7
    assert _row(result, "generated")["f1_50"] == _row(result, "real")["f1_50"]
    found = sweep.sweep(
        Broken(), clips=4, out=folder / "swept", grid={"guidance": [1.0]}, cache=folder / "probes",
        **options,
    )  # fmt: skip
    assert found["rows"][0]["clips"] == 3
    assert found["rows"][0]["left_out"] == {f"level 1, seed {seed}": "not finite: guidance 1.0"}
    with pytest.raises(ValueError, match=r"1 of 2 clips can be measured; level 1, seed \d+: not f"):
        sync.run(Broken(), out=folder / "few", clips=2, scope=scope, **options)


def test_sweep_ranks_and_refuses_test(folder, written, renderer):
    class Guided(renderer):
        def generate(self, prompts, **options):
            self.delay = 0.03 * options["guidance"]
            return super().generate(prompts, **options)

    result = sweep.sweep(
        Guided(), clips=6, grid={"guidance": (3.0, 0.0)}, out=folder / "sweep",
        probe_settings=QUICK, progress=False,
    )  # fmt: skip
    assert result["best"] == {"guidance": 0.0}
    assert [row["options"]["guidance"] for row in result["rows"]] == [0.0, 3.0]
    assert "guidance 3.0" in (folder / "sweep" / "sweep.md").read_text()
    with pytest.raises(ValueError, match="must not be chosen on test"):
        sweep.sweep(Guided(), split="test")
    with pytest.raises(ValueError, match="got guidence"):
        sweep.sweep(Guided(), grid={"guidence": (1.0,)})


def test_windows_and_fidelity(tmp_path, clips):
    path = clips[0].save(tmp_path / "a.mp4")
    clips[1].save(tmp_path / "b.mkv")
    cut = systems.windows([tmp_path], 3, clips[0])
    assert len(cut) == 3 and all(c.video.shape == clips[0].video.shape for c in cut)
    close = fidelity.measure(clips[0], Clip.load(path))
    assert fidelity.measure(clips[0], clips[0])["spectral_db"] == 0
    far = fidelity.measure(clips[0], Clip(clips[1].video, torch.zeros(96000)))
    assert close["psnr"] > 30 > far["psnr"] and far["spectral_db"] > close["spectral_db"]
    (tmp_path / "a.txt").write_text("not a film")
    with pytest.raises(FileNotFoundError, match="no mp4"):
        systems.windows([tmp_path / "a.txt"], 3, clips[0])


def test_bad_requests(renderer):
    with pytest.raises(ValueError, match="at least 2 clips"):
        sync.run(renderer(), clips=1)
    with pytest.raises(ValueError, match="batch"):
        sync.run(renderer(), batch=0)
    with pytest.raises(ValueError, match="got guidence"):
        sync.run(renderer(), options={"guidence": 2})


def test_sounds_from_outside_are_judged_apart():
    """A knock outside the picture has no contact to meet: its clip is in no group but its own."""
    cases = systems.cases("val", 30, [1, 4])
    outside = [case for case in cases if case.outside]
    assert outside and all(case.level == 4 for case in outside)
    assert all(len(case.heard) > len(case.seen) for case in outside)
    groups = rows.groups_of(cases)
    apart = groups.pop("with sounds from outside the picture")
    assert [cases[i] for i in apart] == outside
    assert all(not set(apart) & set(members) for members in groups.values())
    assert len(groups["all clips"]) == len(cases) - len(outside)
    assert len(groups["level 1"]) == 30 and any(name.startswith("material ") for name in groups)


def test_recordings_are_measured_and_set_to_sound(greatest, clips, renderer):
    scope = sync.Scope(recordings=greatest, calibrate=4)
    found = {"calibration": {}}
    sampling = {"seed": 0, "batch": 4, "progress": False}
    sync._recorded(found, renderer(), scope, clips[0], {}, sampling)
    assert "agreement" in found["calibration"]["recordings"]["metrics"]
    values = {row["system"]: row["f1_100"][0] for row in found["recordings"]}
    assert values["recorded"] > 0.8 and values["video to audio"] == 0
    assert values["recorded, kind hit"] == values["recorded"]
    assert any(name.startswith("video to audio, material ") for name in values)
    assert tables.markdown(found["recordings"], tables.MAIN).startswith("| system | clips |")


def test_the_page_opens_from_disk_alone(written, folder):
    """Every file that it names is there and is itself; nothing is fetched from elsewhere."""
    text = (folder / "eval" / "index.html").read_text()
    assert not re.findall(r"(?:src|href)=[\"']?(?:https?:)?//|@import|url\(", text)
    named = re.findall(r'(?:src|poster)="([^"]+)"', text)
    systems_made = 8
    assert len([n for n in named if n.endswith(".mp4")]) == 3 * systems_made
    for name in set(named):
        path = folder / "eval" / name
        assert path.is_file(), name
        if name.endswith(".mp4"):
            assert media.probe(path).seconds == pytest.approx(2.0, abs=0.05)
        else:
            assert Image.open(path).size == (10 * 40, 40)
    HTMLParser().feed(text)
    parts = ("<h2>Clips", "<h2>Results", "How good the metrics are: impacts", "guidance")
    assert all(part in text for part in parts)
    assert text.count('class="timeline"') == 3 * systems_made and 'class="seen"' in text


def test_a_page_is_drawn_again_with_other_curves(written, folder, tmp_path):
    losses = {"runs": {"stage1": {"validation": [
        {"step": 1, "val_video": 0.5}, {"step": 2, "val_video": 0.25},
    ]}}}  # fmt: skip
    (tmp_path / "losses.json").write_text(json.dumps(losses))
    _, result = written
    apart = {"what": "a world apart", **result["calibration"]["impacts"]}
    tables.write_json(tmp_path / "curves.json", apart)
    sweep_file = folder / "eval" / "guidance" / "sweep.json"
    assert cli.main([
        "evaluate", "redraw", str(folder / "eval"), "--out", str(tmp_path / "page"),
        "--sweep", str(sweep_file),
        "--calibration", str(tmp_path / "curves.json"), "--training", str(tmp_path / "losses.json"),
    ]) == 0  # fmt: skip
    text = (tmp_path / "page" / "index.html").read_text()
    assert "a world apart" in text and "Validation loss" in text and "Strength of guidance" in text
    first = folder / "eval" / "clips" / "001-generated.mp4"
    assert (tmp_path / "page" / "clips" / first.name).read_bytes() == first.read_bytes()
    old = (folder / "eval" / "index.html").read_text()
    assert text.count("<video") == old.count("<video") and text.count('class="seen"') > 0


def test_the_reports_metrics_are_calibrated(written):
    _, result = written
    found = result["calibration"]["impacts"]
    assert found["clips"] == 6 and found["metrics"]["f1_50"]["fit"]
    assert result["notes"]["128 x 128"].startswith("refused")
    assert [row["options"]["guidance"] for row in result["guidance"]["rows"]]


def test_media_that_cannot_be_measured_are_refused_before_anything_is_made(
    tmp_path, clips, renderer
):
    model = renderer()
    short = Clip(clips[0].video[:8], clips[0].audio[:24000])
    short.save(tmp_path / "short.mp4")
    for name, error, message in (
        ("gone.mp4", FileNotFoundError, "no such file"),
        ("short.mp4", ValueError, "0.50 s; at least 2 s"),
    ):
        with pytest.raises(error, match=message):
            scope = sync.Scope(real_media=[tmp_path / name])
            sync.run(model, clips=2, out=tmp_path / "out", scope=scope)
    with pytest.raises(FileNotFoundError, match="no video with a '_times.txt'"):
        sync.run(model, clips=2, out=tmp_path / "out", scope=sync.Scope(recordings=tmp_path))
    assert not model.calls and not (tmp_path / "out").exists()


def test_the_suite_says_what_follows_where_one_thing_changes(written, folder):
    _, result = written
    systems_of = {row["system"] for row in result["counterfactual"]["rows"]}
    assert {"real", "text to clip", "video to audio", "real, shuffled"} <= systems_of
    assert (folder / "eval" / "counterfactual" / "counterfactual.md").exists()
    assert "One thing changes" in (folder / "eval" / "index.html").read_text()
    assert sync.SUITE.counterfactual and sync.SUITE.accelerations
