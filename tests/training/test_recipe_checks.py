"""What is wrong with a recipe is told before anything runs."""

import pytest
from made import flow_config
from test_recipe import write

from syncflow.training import runner


def test_a_recipe_that_leads_back_to_itself_is_refused(tmp_path):
    write(tmp_path, "one", task="recipe", steps=["two.json"])
    write(tmp_path, "two", task="recipe", steps=["one.json"])
    with pytest.raises(ValueError, match="one.json has itself among its steps"):
        runner.run(tmp_path / "one.json", progress=False)


def test_a_config_that_is_no_text_is_named(tmp_path):
    (tmp_path / "picture.json").write_bytes(b"\x80\x81")
    with pytest.raises(ValueError, match="picture.json is not JSON"):
        runner.run(tmp_path / "picture.json", progress=False)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("validation", "runs/latents_vol"),
        ("init", "runs/stage0"),
        ("data", [{"data": "runs/latents"}, "runs/other"]),
        ("samples", {"every": 2, "video_vae": "runs/none", "audio_vae": "runs/audio_vae"}),
    ],
)
def test_what_no_step_makes_is_told_before_the_first_runs(tmp_path, key, value, monkeypatch):
    loop = {"steps": 1, "batch_size": 1}
    vae = {"task": "audio_vae", "data": "runs/raw", "validation": "runs/raw", "loop": loop}
    write(tmp_path, "render", task="render", out="runs/raw", clips=1)
    write(tmp_path, "audio", out="runs/audio_vae", model={"kind": "spectral"}, **vae)
    parts = {"video_vae": "syncflow/pretrained", "audio_vae": "runs/audio_vae"}
    write(
        tmp_path, "latents", task="latents", out="runs/latents", data="runs/raw",
        text_encoder="syncflow/pretrained", **parts,
    )  # fmt: skip
    good = flow_config("runs/latents", "runs/stage1", samples={"every": 2, **parts})
    write(tmp_path, "flow", **good)
    write(tmp_path, "inner", task="recipe", steps=["latents.json", "flow.json"])
    write(tmp_path, "all", task="recipe", steps=["render.json", "audio.json", "inner.json"])
    ran = []

    def make(config, *_):
        ran.append(config.task)
        (tmp_path / config.out).mkdir(parents=True, exist_ok=True)

    for task in list(runner._RUNNERS):
        monkeypatch.setitem(runner._RUNNERS, task, make)
    monkeypatch.chdir(tmp_path)
    runner.run(tmp_path / "all.json", progress=False)
    assert ran == ["render", "audio_vae", "latents", "flow"]
    write(tmp_path, "flow", **{**good, key: value})
    missing = {"data": "runs/other", "samples": "runs/none"}.get(key, value)
    name = "samples.video_vae" if key == "samples" else key
    with pytest.raises(ValueError, match=f"flow.json: {name} must be .*'{missing}' is not there"):
        runner.run(tmp_path / "all.json", progress=False)
    assert len(ran) == 4
