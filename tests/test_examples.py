"""The scripts and the notebook in examples/ run, at their smallest, and leave what they say."""

import importlib.util
import json
import sys
import types
from pathlib import Path

import pytest

import syncflow
from syncflow.evaluation.probes.probe import ProbeSettings
from syncflow.evaluation.suites import systems

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(name: str, *argv: object) -> None:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main([str(word) for word in argv])


@pytest.mark.parametrize(
    "name, argv, made",
    [
        ("generate", [], 2),
        ("video_to_audio", [], 2),
        ("takes", ["--takes", 2], 2),
    ],
)
def test_clips_are_made(name, argv, made, tmp_path) -> None:
    run(name, *argv, "--out", tmp_path)
    clips = [syncflow.Clip.load(path) for path in tmp_path.glob("*.mp4")]
    assert len(clips) == made
    assert all(clip.video.shape == (32, 3, 64, 64) and clip.audio.any() for clip in clips)


def test_fine_tuning_from_clips_to_a_clip(tmp_path) -> None:
    pytest.importorskip("peft")
    run("finetune", "--steps", 2, "--batch", 2, "--workers", 0, "--out", tmp_path)
    assert syncflow.Clip.load(tmp_path / "clip.mp4").audio.any()
    assert (tmp_path / "lora" / "lora.safetensors").exists()


def test_evaluation_prints_the_rows_of_its_report(tmp_path, capsys, monkeypatch) -> None:
    load, small = systems.load_probes, ProbeSettings(clips=8, held=4, epochs=1)
    monkeypatch.setattr(systems, "load_probes", lambda cache, *_: load(cache, [1], (small, small)))
    run("evaluate", "--clips", 2, "--out", tmp_path / "report")
    said = capsys.readouterr().out
    assert "generated " in said and "real, shuffled" in said
    assert (tmp_path / "report" / "index.html").exists()


def test_every_script_is_run_here() -> None:
    scripts = {path.stem for path in EXAMPLES.glob("*.py")}
    assert scripts == {"generate", "video_to_audio", "takes", "finetune", "evaluate"}


def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch) -> None:
    """Without Jupyter: what it would show is counted."""
    shown: list[str] = []
    display = types.ModuleType("IPython.display")
    display.Video = lambda name, **options: name
    display.display = shown.append
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((EXAMPLES / "syncflow.ipynb").read_text())
    names: dict = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"], "clear the outputs before committing"
            exec(compile("".join(cell["source"]), "syncflow.ipynb", "exec"), names)
    assert len(shown) == 5 and all((tmp_path / name).exists() for name in shown)
    assert (names["glass"].video == syncflow.Clip.load("clip.mp4").video).all()
