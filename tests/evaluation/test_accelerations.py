"""Accelerations: a grid's cells, the models that answer them, and a rule that finds each fault."""

import functools
import json
import time

import numpy as np
import pytest
import torch

from syncflow import cli
from syncflow.clip import Clip
from syncflow.config import ModelConfig
from syncflow.evaluation.probes import looks, materials
from syncflow.evaluation.suites import accelerations, cells, systems, verdicts
from syncflow.evaluation.suites.systems import Observation
from syncflow.evaluation.suites.verdicts import Criterion
from syncflow.sampling import OPTIONS
from tests import small_model

CLIPS = 4


def test_cells_are_products_beside_a_full_run():
    grids = [
        {"steps": ["4", "40"], "cache": ["off", "first-block"]},
        {"guidance-interval": ["0.1-0.6"]},
        {"dtype": ["int8:audio", "fp32"], "compile": ["on"]},
        {"steps": ["4"], "cache": ["both"]},
    ]
    full, others = cells.cells(grids, {"steps": 25})
    base = {"cache": "off", "steps": 40, "guidance_start": 0.0, "guidance_end": 1.0}
    assert (full.sampling, full.dtype, full.compile) == (base, "fp32", False)
    assert [cell.label for cell in others] == [
        "steps 4, cache off", "steps 4, cache first-block", "steps 40, cache first-block",
        "guidance-interval 0.1-0.6", "dtype int8:audio, compile on", "dtype fp32, compile on",
    ]  # fmt: skip
    assert others[1].sampling == {**base, "steps": 4, "cache": "both"}
    assert others[3].sampling == {**base, "guidance_start": 0.1, "guidance_end": 0.6}
    assert (others[4].dtype, others[4].part, others[4].compile) == ("int8", "audio", True)


def test_the_full_run_has_the_models_steps_where_they_are_more():
    assert cells.cells([{"steps": ["4"]}], {"steps": 25})[0].sampling["steps"] == 25
    full, (cell,) = cells.cells([{"cache": ["video"]}], {"steps": 25})
    assert full.sampling == {"cache": "off"} and cell.sampling == {"cache": "video"}


def test_a_solver_that_draws_no_noise_gets_none():
    _, others = cells.cells([{"solver": ["heun", "2m"]}, {"solver": ["heun"], "eta": ["0.5"]}], {})
    assert [cell.sampling.get("eta") for cell in others] == [0.0, None, 0.5]
    assert others[0].label == "solver heun, eta 0"


@pytest.mark.parametrize(
    "axis, value, said",
    [
        ("speed", "9", "unknown axis 'speed' of a grid; known are dtype, compile"),
        ("steps", "many", "steps 'many' of a grid: it"),
        ("steps", "0", "steps '0' of a grid: it must be"),
        ("cache", "all", "unknown cache 'all'; known are off, video, audio, both"),
        ("dtype", "fp64", "unknown dtype 'fp64' of a grid; known are fp32, bf16, int8, fp8"),
        ("dtype", "int8:text", "unknown part of dtype 'text' of a grid; known are both"),
        ("compile", "yes", "unknown compile 'yes' of a grid; known are off, on"),
        ("guidance-interval", "0.5", "guidance-interval '0.5' of a grid is no pair"),
        ("guidance-interval", "0.1-2", "guidance-end '2' of a grid: it must be"),
    ],
)
def test_mistakes_in_a_grid_are_told(axis, value, said):
    with pytest.raises(ValueError) as error:
        cells.cells([{axis: [value]}], {})
    assert str(error.value).startswith(said)


@pytest.fixture(scope="module")
def model():
    return small_model.build()


def _made(model, **options):
    return model.generate([small_model.PROMPT], progress=False, **options)[0]


@pytest.mark.parametrize("schedule", ["cascade", "joint"])
@pytest.mark.parametrize("dtype", ["bf16", "int8"])
def test_fewer_bits_of_one_tower_leave_the_others_weights(model, dtype, schedule):
    plain = _made(model, schedule=schedule)
    before = {key: value.clone() for key, value in model.ddit.state_dict().items()}
    made = {}
    for part in cells.PARTS:
        _, (cell,) = cells.cells([{"dtype": [f"{dtype}:{part}"]}], {})
        other = cells.variant(model, cell)
        assert other is not model and not cells.is_as_loaded(model, cell)
        made[part] = _made(other, schedule=schedule)
        found = {p.dtype for p in other.ddit.audio_tower.parameters()} - {torch.float32}
        halved = dtype == "bf16" and part != "video"
        assert found == ({torch.bfloat16} if halved else set())
    # The picture reads no sound: fewer bits of the sound leave it alone.
    assert torch.equal(made["audio"].video, plain.video)
    for part in cells.PARTS:
        assert not torch.equal(made[part].audio, plain.audio)
        if part != "audio":
            change = (made[part].video.float() - plain.video.float()).abs().mean()
            assert 0 < change < 25
    assert all(torch.equal(before[key], value) for key, value in model.ddit.state_dict().items())
    assert torch.equal(_made(model, schedule=schedule).audio, plain.audio)


def test_a_cell_of_sampling_alone_is_the_model_itself(model):
    full, (cell,) = cells.cells([{"steps": ["2"], "dtype": ["fp32"]}], {"steps": 3})
    assert cells.is_as_loaded(model, full) and cells.variant(model, cell) is model
    _, (cell,) = cells.cells([{"compile": ["on"]}], {})
    assert not cells.is_as_loaded(model, cell)
    assert cells.variant(model, cell).steps.compiled and not model.steps.compiled


@pytest.mark.parametrize(
    "options, passes",
    [
        # Steps of the picture, both captions, and the finished one once for the sound's captions.
        ({"guidance": 2.0, "audio_guidance": 1.0}, 4 * 2 + 1),
        ({"guidance": 1.0, "audio_guidance": 1.5}, 4 + 2),
        ({"guidance": 2.0, "audio_guidance": 1.0, "guidance_end": 0.5}, 2 * 2 + 2 + 1),
        # The first block alone is a quarter of this tower.
        ({"guidance": 1.0, "audio_guidance": 1.0, "cache": "video", "cache_threshold": 10.0},
         1 + 3 / 4 + 1),
    ],
)  # fmt: skip
def test_passes_of_the_video_tower_are_counted(model, options, passes):
    with cells.counted(model) as counted:
        model.generate([small_model.PROMPT] * 2, steps=4, progress=False, **options)
    assert cells.whole_passes(model, counted, 2) == pytest.approx(passes)
    model.generate([small_model.PROMPT], steps=4, progress=False)
    assert cells.whole_passes(model, counted, 2) == pytest.approx(passes)


@pytest.mark.parametrize(
    "interval, verdict",
    [
        ((-0.04, 0.09), "pass"),
        ((-0.05, 0.0), "pass"),
        ((-0.2, -0.06), "fail"),
        ((-0.2, 0.1), "undecided"),
        ((0.06, 0.2), "undecided"),
        ((0.15, 0.2), "fail"),
        ((float("nan"), float("nan")), "undecided"),
    ],
)
def test_a_criterion_passes_inside_its_range(interval, verdict):
    assert Criterion("sync", "x", "x", -0.05, 0.1).verdict([0, *interval]) == verdict


class Renderer:
    """Answers a caption with the real clip, and does something wrong by the number of steps. Other
    seeds have everything four frames later; it takes processor time by the step."""

    name = "renderer"

    def __init__(self, cases):
        self.real = {case.prompt: systems.rendered(case, 64, 64) for case in cases}

    def generate(self, prompts, *, seed, steps, progress=True, **options):
        until = time.process_time() + 1e-3 * steps
        while time.process_time() < until:
            pass
        return [self._clip(prompt, seed >= CLIPS, steps) for prompt in prompts]

    @functools.cache  # noqa: B019  # lives as long as the test
    def _clip(self, prompt, later, steps):
        real = self.real[prompt]
        video, audio = real.video, real.audio
        if later:
            video, audio = video.roll(4, 0), audio.roll(12000)
        if steps == 10:  # silent
            audio = torch.zeros_like(audio)
        elif steps == 9:  # stands still
            video = video[:1].expand_as(video)
        elif steps == 8:  # late
            audio = audio.roll(9600)
        elif steps == 7:  # blurred
            video = torch.nn.functional.avg_pool2d(video.float(), 9, 1, 4).to(torch.uint8)
        elif steps == 6:  # loud
            audio = audio * 2
        elif steps == 5:  # all seeds alike
            video, audio = real.video, real.audio
        return Clip(video, audio, 16, 48000, prompt)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(systems, "load_probes", lambda *a: (None, None))
    asked = systems.cases("val", CLIPS, [1])
    for probe, name in ((materials, "material"), (looks, "colour")):
        right = [getattr(case, name) for case in asked]
        monkeypatch.setattr(probe, "predict", lambda _, clips, right=right: right)
    out = tmp_path_factory.mktemp("accelerations")
    grids = [
        {"steps": ["40", "20", "10", "9", "8", "7", "6", "5"]},
        {"steps": ["3"], "dtype": ["fp8", "int8"]},
    ]
    result = accelerations.run(
        Renderer(asked), grids, CLIPS, 2, out=out / "report",
        players=1, progress=False,
    )  # fmt: skip
    monkeypatch.undo()
    return out / "report", result


def test_every_fault_is_found_in_its_modality(report):
    rows = {row["cell"]: row for row in report[1]["rows"]}
    found = {name: row["verdicts"] for name, row in rows.items() if name != "full run"}
    good = dict.fromkeys(("picture", "sound", "sync"), "pass")
    assert found["steps 20"] == good and rows["steps 20"]["not passed"] == []
    assert found["steps 10"] == good | {"sound": "fail", "sync": "fail"}
    assert found["steps 9"]["picture"] == found["steps 9"]["sync"] == "fail"
    assert found["steps 9"]["sound"] == "pass"
    assert found["steps 8"] == good | {"sync": "fail"}
    assert found["steps 7"]["picture"] == "fail" and found["steps 7"]["sound"] == "pass"
    assert "detail (energy of edges), dB: fail" in rows["steps 7"]["not passed"]
    assert found["steps 6"] == good | {"sound": "fail"}
    assert rows["steps 6"]["not passed"] == ["loudness, LU: fail"]
    assert rows["steps 6"]["loudness_lu"][0] == pytest.approx(6.02, abs=0.1)
    assert rows["steps 8"]["bias_ms"] != rows["full run"]["bias_ms"]
    assert rows["steps 5"]["diversity_picture"][0] == rows["steps 5"]["diversity_sound"][0] == 0
    assert found["steps 5"]["picture"] == found["steps 5"]["sound"] == "fail"
    assert rows["full run"]["f1_50"][0] > 0.8 and rows["full run"]["whole_change"] == [0, 0, 0]


def test_the_fastest_that_passes_is_recommended(report):
    folder, result = report
    assert result["recommended"] == result["recommended for the folder"] == "steps 20"
    assert result["rows"][1]["faster"] == pytest.approx(2, rel=0.4)
    assert [item["cell"] for item in result["not_run"]] == [
        "steps 3, dtype fp8", "steps 3, dtype int8",
    ]  # fmt: skip
    assert "needs a GPU" in result["not_run"][0]["why"]
    assert json.loads((folder / "accelerations.json").read_text())["recommended"] == "steps 20"
    text = (folder / "accelerations.md").read_text()
    assert "| steps 8 | pass | pass | fail |" in text and "steps 3, dtype fp8: fp8 needs" in text


def test_the_page_has_players_of_every_cell(report):
    folder, _ = report
    text = (folder / "index.html").read_text()
    players = [part.split('"')[0] for part in text.split('<video src="')[1:]]
    assert len(players) == len(set(players)) == 7 * 2
    assert all((folder / player).is_file() for player in players)
    assert "steps 8: worst clips first" in text


def _observation(contacts, onsets):
    return Observation(contacts, onsets, "metal", "red", 0.0, -20.0, -20.0)


def test_a_compiled_cell_is_timed_after_compiling_and_counted_without(model, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda f, **k: (compiled.append(f), f)[1])
    nothing = _observation([], [])
    monkeypatch.setattr(systems, "observe", lambda clips, *probes: [nothing] * len(clips))
    cases = systems.cases("val", 3, [1])
    full, (cell,) = cells.cells([{"compile": ["on"]}], {})
    making = {"seed": 0, "batch": 2, "seeds": 2}
    run, row = accelerations._run(model, cell, cases, (None, None), making)
    plain, same = accelerations._run(model, full, cases, (None, None), making)
    assert compiled and row["compile"] and row["passes"] == same["passes"] > 0
    assert torch.equal(run.clips[1][2].audio, plain.clips[1][2].audio)

    def broken(function, **options):
        raise RuntimeError("no compiler\nand much more")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(accelerations._NotRun, match="^RuntimeError: no compiler$"):
        accelerations._run(model, cell, cases, (None, None), making)


def test_the_worst_clips_come_first(cases):
    clip = Clip(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.ones(2048))
    other = Clip(clip.video, 0.5 * clip.audio)
    chosen = cases[:3]
    good = [_observation([0.1] * (c.count or 1), [0.1] * (c.count or 1)) for c in chosen]
    full = verdicts.Run(chosen, [[clip] * 3] * 2, [good, good])
    lost = _observation(good[1].contacts, [])
    run = verdicts.Run(chosen, [[clip] * 3, [clip, clip, other]], [good, [good[0], lost, good[2]]])
    assert verdicts.worst_first(run, full)[:2] == [(1, 1), (1, 2)]
    row = verdicts.measured(run, full)
    assert row["f1_50"][0] < row["f1_50"][0] - row["f1_50_change"][0] == 1
    assert np.isfinite(row["f1_50_change"]).all()


def test_a_setting_is_written_beside_what_the_config_has(tmp_path):
    folder = small_model.build().save(tmp_path / "model")
    before = json.loads((folder / "config.json").read_text())
    row = {"cell": "steps 2", "options": {"steps": 2, "cache": "video", "guidance_end": 0.6}}
    report = {"rows": [row], "recommended for the folder": "steps 2"}
    assert accelerations._write_setting(folder, report) == "steps 2"
    after = json.loads((folder / "config.json").read_text())
    assert after["sampling"] == before["sampling"] | row["options"]
    assert {k: v for k, v in after.items() if k != "sampling"} == {
        k: v for k, v in before.items() if k != "sampling"
    }
    assert ModelConfig.load(folder / "config.json").sampling.cache == "video"
    assert accelerations._write_setting(folder, {"recommended for the folder": None}) is None


@pytest.mark.parametrize(
    "words, said",
    [
        (["--grid", "steps"], "'steps' is no axis such as steps=4,8"),
        (["--grid", "steps=4,"], "is no axis"),
        (["--grid", "steps=4", "steps=8"], "a grid names steps twice"),
        (["--grid", "speed=9"], "unknown axis 'speed'"),
        (["--grid", "guidance-interval=0.6-0.1"], "cell 'guidance-interval 0.6-0.1': guidance_sta"),
        (["--grid", "cache=off"], "no cell beside the full run"),
        (["--seeds", "1"], "seeds must be at least 2"),
        (["--write"], "write needs a model folder"),
        (["--write", "--split", "test"], "must not be chosen on test clips"),
    ],
)
def test_mistakes_are_one_line(words, said, capsys):
    assert cli.main(["evaluate", "accelerations", "--clips", "2", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.strip().splitlines()) <= 2


def test_the_command_passes_on_what_was_asked(monkeypatch, capsys):
    asked = {}

    def run(*given, **named):
        asked.update(given=given, **named)
        return {"recommended": None, "written": None}

    monkeypatch.setattr(accelerations, "run", run)
    words = "--grid steps=4,8 cache=both --grid dtype=bf16 --clips 5 --write --out here --model m"
    assert cli.main(["evaluate", "accelerations", *words.split()]) == 0
    assert asked["given"][:3] == (
        "m", [{"steps": ["4", "8"], "cache": ["both"]}, {"dtype": ["bf16"]}], 5
    )  # fmt: skip
    assert asked["write"] and "here/index.html" in capsys.readouterr().out


def test_options_of_the_cache_are_options_of_a_folder():
    assert OPTIONS["cache"].default == "off"
    assert ModelConfig().sampling.cache == "off"
