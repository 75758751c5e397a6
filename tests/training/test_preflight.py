"""Recipes look at every input of every step before the first step runs, from any folder."""

import json
from pathlib import Path

import pytest
from made import MODEL, flow_config, write_latents

from syncflow.training import runner
from syncflow.training.distributed.groups import Group

LOOP = {"steps": 1, "batch_size": 1, "threads": 1}
PATCH = {"kind": "patch", "latent_channels": 2, "width": 8, "depth": 1}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder: not the one where the recipes are."""
    (tmp_path / "work").mkdir()
    (tmp_path / "recipes").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def recipe(folder: Path, **steps: dict) -> Path:
    for name, config in steps.items():
        (folder / "recipes" / f"{name}.json").write_text(json.dumps(config))
    path = folder / "recipes" / "recipe.json"
    path.write_text(json.dumps({"task": "recipe", "steps": [f"{name}.json" for name in steps]}))
    return path


RENDER = {"task": "render", "out": "made", "clips": 1, "height": 16, "width": 16}
VAE = {"task": "video_vae", "out": "vae", "data": "made", "validation": "made", "model": PATCH,
       "loop": LOOP}  # fmt: skip
FLOW = {"task": "flow", "out": "flow", "data": "latents", "validation": "latents", "model": MODEL,
        "train": "video", "loop": LOOP}  # fmt: skip
LATENTS = {"task": "latents", "out": "latents", "data": "made", "video_vae": "shipped",
           "audio_vae": "shipped", "text_encoder": "shipped"}  # fmt: skip
EXPORT = {"task": "export", "out": "model", "name": "x", "latents": "latents", "ddit": "flow",
          "video_vae": "vae", "audio_vae": "shipped", "text_encoder": "shipped",
          "sampling": {"null_caption": "prompt"}}  # fmt: skip


def runs(monkeypatch) -> list[str]:
    """The tasks that a recipe would run, in order; none is."""
    seen: list[str] = []
    for kind in runner._RUNNERS:
        monkeypatch.setitem(
            runner._RUNNERS, kind, lambda config, group, progress: seen.append(config.task)
        )
    return seen


def test_what_an_earlier_step_makes_need_not_be_there(folder, monkeypatch, capsys):
    seen = runs(monkeypatch)
    steps = {"a": RENDER, "b": VAE, "c": LATENTS, "d": FLOW, "e": EXPORT,
             "f": {**FLOW, "out": "more", "init": "model"},
             "g": {**FLOW, "out": "most", "init": "more/checkpoints/00000001"}}  # fmt: skip
    path = recipe(folder, **steps)
    runner.run(path, progress=False)
    assert seen == ["render", "video_vae", "latents", "flow", "export", "flow", "flow"]
    assert "recipe.json: a.json" in capsys.readouterr().out
    outer = folder / "recipes" / "outer.json"
    outer.write_text(json.dumps({"task": "recipe", "steps": ["recipe.json", "a.json"]}))
    runner.run(outer, progress=False)
    assert seen[7:] == [*seen[:7], "render"]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ({"a": VAE, "b": RENDER}, r"a\.json: data must be a folder of rendered .*'made' is not"),
        ({"a": RENDER, "b": {**VAE, "validation": "v"}}, r"b\.json: validation .*'v' is not there"),
        ({"a": RENDER, "b": {**VAE, "init": "x"}}, r"b\.json: init must be a run of task 'video_"),
        ({"a": RENDER, "b": {**LATENTS, "audio_vae": "made"}}, r"audio_vae .*'made' is of task"),
        ({"a": FLOW}, r"a\.json: data must be a finished folder .*'latents' is not there"),
        ({"a": RENDER, "b": LATENTS, "c": {**FLOW, "data": ["latents", "there"]}},
         r"c\.json: data .*'there' is not that"),
        ({"a": RENDER, "b": LATENTS, "c": {**FLOW, "init_video": "vae.safetensors"}}, "init_video"),
        ({"a": RENDER, "b": LATENTS, "c": {**FLOW, "samples": {
            "every": 1, "video_vae": "there", "audio_vae": "shipped"}}}, r"samples\.video.*'there"),
        ({"a": RENDER, "b": LATENTS, "c": FLOW, "d": EXPORT}, r"d\.json: video_vae .*'vae' is not"),
        ({"a": {**RENDER, "clips": 10**9}}, r"a\.json: the train split has seeds"),
        ({"a": {**RENDER, "height": 8}}, r"a\.json: height and width must be at least 16"),
        ({"a": RENDER, "b": {**VAE, "out": "file/vae"}}, r"b\.json: out is .*file' is a file"),
        ({"a": RENDER, "b": {**VAE, "loop": {**LOOP, "sequence_parallel": 2}}}, r"b\.json: loop"),
    ],
)  # fmt: skip
def test_a_missing_input_of_any_step_is_told_before_the_first(folder, monkeypatch, steps, message):
    (folder / "work" / "there").mkdir()
    (folder / "work" / "file").write_text("")
    seen = runs(monkeypatch)
    with pytest.raises(ValueError, match=message):
        runner.run(recipe(folder, **steps), progress=False)
    assert not seen


def test_what_is_there_counts(folder, monkeypatch):
    """Latents and a run that are there from before; a run of another task does not fit."""
    latents = write_latents(folder / "work" / "latents")
    flow = flow_config(latents, folder / "work" / "flow", "video", {"steps": 1})
    (folder / "recipes" / "flow.json").write_text(json.dumps(flow))
    runner.run(folder / "recipes" / "flow.json", progress=False)
    seen = runs(monkeypatch)
    runner.run(recipe(folder, a={**FLOW, "out": "b", "init": "flow"}), progress=False)
    assert seen == ["flow"]
    with pytest.raises(ValueError, match="video_vae .*'flow' is of task 'flow'"):
        runner.run(recipe(folder, a={**EXPORT, "video_vae": "flow"}), progress=False)


FOLDERS = [{"data": "made"}, {"data": "made", "made": "drawn"}]
DRAWN = {"task": "made_latents", "out": "drawn", "data": "made", "model": "shipped"}
FEATURES = {"task": "features", "out": "heard", "latents": "latents", "audio_vae": "shipped",
            "encoder": "wav2vec2"}  # fmt: skip
ALIGNED = {**FLOW, "train": "both", "alignment": {"features": "heard"}}
AUDIO = {"task": "audio_vae", "out": "avae", "data": "sounds", "validation": "sounds",
         "model": {"kind": "spectral"}, "loop": LOOP}  # fmt: skip


def test_recordings_several_folders_and_features_are_inputs_too(folder, monkeypatch):
    """Of VAEs and of alignment; what only looks like it is refused."""
    sounds = folder / "work" / "sounds"
    sounds.mkdir()
    (sounds / "a.wav").write_bytes(b"")
    seen = runs(monkeypatch)
    steps = {"a": RENDER, "b": DRAWN, "c": {**VAE, "data": FOLDERS}, "d": LATENTS, "e": FEATURES,
             "f": ALIGNED, "g": AUDIO}  # fmt: skip
    runner.run(recipe(folder, **steps), progress=False)
    assert seen == [step["task"] for step in steps.values()]
    films = {**VAE, "data": "sounds", "validation": "sounds"}
    for wrong, message in (
        ({"a": films}, r"a\.json: data must be .* or of films; 'sounds' is not that"),
        (
            {"a": RENDER, "c": {**VAE, "data": FOLDERS}},
            r"c\.json: data\.made .*'drawn' is not",
        ),
        ({"a": RENDER, "d": LATENTS, "f": ALIGNED}, r"f\.json: alignment\.features .*'heard' is"),
        ({"a": {**DRAWN, "data": "sounds"}}, r"a\.json: data must be a folder of rendered clips"),
    ):
        with pytest.raises(ValueError, match=message):
            runner.run(recipe(folder, **wrong), progress=False)
    assert len(seen) == len(steps)


def test_several_processes_are_told_before_the_first_step(folder, monkeypatch):
    seen = runs(monkeypatch)
    write_latents(folder / "work" / "latents")
    with pytest.raises(ValueError, match=r"b\.json: task 'render' runs in one process"):
        runner.run(recipe(folder, a=FLOW, b=RENDER), progress=False, group=Group(0, 2))
    assert not seen


def test_a_step_may_be_named_as_on_the_command_line(folder, monkeypatch):
    seen = runs(monkeypatch)
    path = folder / "recipes" / "recipe.json"
    path.write_text(json.dumps({"task": "recipe", "steps": ["configs/tiny/recipe.json"]}))
    runner.run(path, progress=False)
    assert seen[:3] == ["render", "render", "latents"] and seen[-1] == "export"
