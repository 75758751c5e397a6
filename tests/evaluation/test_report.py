import csv
import json

import pytest
import torch
from PIL import Image

from syncflow.clip import Clip
from syncflow.evaluation import looks, materials, report, sweep, systems
from syncflow.evaluation.probe import ProbeSettings

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
    result = report.run(
        model, clips=12, split="val", out=folder / "eval", batch=5, seed=3, guidance=1.5,
        probe_settings=QUICK, progress=False,
    )  # fmt: skip
    return model, result


def _row(result, system, group="all clips"):
    return next(r for r in result["rows"] if (r["system"], r["group"]) == (system, group))


def test_material_and_colour_probes_learn(cases, clips, folder):
    heard, looked = report.load_probes(folder / "eval", (1,), QUICK)
    assert heard.accuracy >= 0.9 and looked.accuracy >= 0.8
    names = materials.predict(heard, [c.audio for c in clips])
    truth = [c.scene.attributes["material"] for c in cases]
    assert sum(a == b for a, b in zip(names, truth, strict=True)) >= 14
    # Loudness is not material; a probe from the cache is the same probe.
    assert materials.predict(heard, [c.audio * 0.2 for c in clips]) == names
    again, _ = report.load_probes(folder / "eval", (1,), QUICK)
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
        "generated", "video to audio", "real, after the VAEs", "real", "generated, shuffled",
        "real, shuffled",
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
    assert len(lines) == 4 * 12 and {line["system"] for line in lines} >= {"generated", "real"}
    first = [float(t) for t in lines[0]["onsets"].split()]
    assert all(0 <= t <= 2 for t in first)
    for name in ("clips.png", "offsets.png"):
        assert Image.open(out / name).size[0] > 200


def test_batches_seeds_and_options_reach_the_model(written):
    model, _ = written
    calls = [c for c in model.calls if not c["video"]]
    assert [c["prompts"] for c in calls] == [5, 5, 2] and [c["seed"] for c in calls] == [3, 8, 13]
    assert all(c["guidance"] == 1.5 and "steps" not in c for c in calls)
    assert sum(c["prompts"] for c in model.calls if c["video"]) == 12


def test_a_late_or_silent_model_is_caught(folder, written, renderer):
    options = dict(
        clips=8, split="val", seed=0, probe_settings=QUICK, progress=False,
        video_to_audio=False, reconstruct=False,
    )  # fmt: skip
    late = report.run(renderer(delay=0.08), out=folder / "late", **options)
    row = _row(late, "generated")
    assert row["f1_50"][0] < 0.2 and row["f1_100"][0] > 0.8
    assert row["bias_ms"][0] == pytest.approx(80, abs=8)
    silent = report.run(renderer(silent=True), out=folder / "silent", **options)
    row = _row(silent, "generated")
    assert row["f1_100"][0] == 0 and row["count_sound"][0] == 0
    assert (
        json.loads((folder / "silent" / "report.json").read_text())["rows"][0]["median_ms"][0]
        is None
    )


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
    with pytest.raises(ValueError, match="never chosen on test"):
        sweep.sweep(Guided(), split="test")
    with pytest.raises(ValueError, match="got guidence"):
        sweep.sweep(Guided(), grid={"guidence": (1.0,)})


def test_windows_and_fidelity(tmp_path, clips):
    path = clips[0].save(tmp_path / "a.mp4")
    clips[1].save(tmp_path / "b.mkv")
    cut = systems.windows([tmp_path], 3, clips[0])
    assert len(cut) == 3 and all(c.video.shape == clips[0].video.shape for c in cut)
    close = systems.fidelity(clips[0], Clip.load(path))
    assert systems.fidelity(clips[0], clips[0])["spectral_db"] == 0
    far = systems.fidelity(clips[0], Clip(clips[1].video, torch.zeros(96000)))
    assert close["psnr"] > 30 > far["psnr"] and far["spectral_db"] > close["spectral_db"]
    (tmp_path / "a.txt").write_text("not a film")
    with pytest.raises(FileNotFoundError, match="no mp4"):
        systems.windows([tmp_path / "a.txt"], 3, clips[0])


def test_bad_requests(renderer):
    with pytest.raises(ValueError, match="at least 2 clips"):
        report.run(renderer(), clips=1)
    with pytest.raises(ValueError, match="batch"):
        report.run(renderer(), batch=0)


def test_media_that_cannot_be_measured_are_refused_before_anything_is_made(
    tmp_path, clips, renderer
):
    model = renderer()
    short = Clip(clips[0].video[:8], clips[0].audio[:24000])
    short.save(tmp_path / "short.mp4")
    for media, error, message in (
        ("gone.mp4", FileNotFoundError, "no such file"),
        ("short.mp4", ValueError, "0.50 s, at least 2 s"),
    ):
        with pytest.raises(error, match=message):
            report.run(model, clips=2, out=tmp_path / "out", real_media=[tmp_path / media])
    assert not model.calls and not (tmp_path / "out").exists()
