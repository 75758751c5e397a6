"""Options of sampling: each declared once, and with its default spelt out the same as left out."""

import subprocess
import sys

import pytest
import torch

import syncflow
from syncflow import flow, sampling
from syncflow.cli import main
from syncflow.clip import Clip
from syncflow.config import SamplingConfig
from syncflow.generation.request import resolve
from syncflow.serving.demo import Studio
from tests.small_model import PROMPT, build

CASCADE = {"steps": 3, "audio_steps": 2, "guidance": 2.0, "audio_guidance": 1.0,
           "schedule": "cascade", "shift": 2.0, "eta": 0.5}  # fmt: skip
ADDED = """    dummy: Annotated[float | None, Option(0.25, "a dummy", least=0, most=1)]
    solver: Annotated["""
PROBE = """
import sys, types
path, added = sys.argv[1:]
source = open(path).read()
assert source.count("    solver: Annotated[") == 1
module = types.ModuleType("syncflow.sampling")
sys.modules["syncflow.sampling"] = module
exec(compile(source.replace("    solver: Annotated[", added), path, "exec"), module.__dict__)

from syncflow.cli import _parser
from syncflow.commands import generate
from syncflow.commands.evaluate import sync
from syncflow.config import SamplingConfig
from syncflow.evaluation.suites import sweep
from syncflow.generation.request import resolve
from syncflow.training.settings import SamplesConfig

assert SamplingConfig().dummy == 0.25 and "a dummy" in str(SamplingConfig.model_fields["dummy"])
assert resolve(SamplingConfig(), ["x"], {"dummy": 0.5}).sampling.dummy == 0.5
for command in (["generate", "x"], ["evaluate", "sync"]):
    assert _parser().parse_args([*command, "--dummy", "0.5"]).dummy == 0.5
assert "dummy" in generate._OPTIONS and "dummy" in sweep.OPTIONS and "dummy" in sync.OPTIONS
samples = {"every": 1, "video_vae": "v", "audio_vae": "a", "sampling": {"dummy": 0.75}}
assert SamplesConfig.parse(samples).sampling.dummy == 0.75
"""


def test_an_option_is_declared_in_one_place():
    """A new line in ``sampling.py`` reaches everybody who offers the options."""
    command = [sys.executable, "-c", PROBE, sampling.__file__, ADDED]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_choices_are_those_of_the_flow():
    assert sampling.OPTIONS["solver"].choices == flow.SOLVERS
    for schedule in sampling.OPTIONS["schedule"].choices:
        flow.schedule(schedule, 2)


def test_the_sound_follows_unless_the_folder_states_its_own():
    stated, none = SamplingConfig.parse(CASCADE), SamplingConfig(schedule="cascade")
    asked = resolve(stated, ["x"], {"steps": 5, "guidance": 4.0})
    assert len(asked.path) == 1 + 5 + 2 and asked.audio_guidance == 1.0
    asked = resolve(stated, ["x"], {"audio_steps": 4, "audio_guidance": 3.0})
    assert len(asked.path) == 1 + 3 + 4 and asked.audio_guidance == 3.0
    asked = resolve(none, ["x"], {"steps": 5, "guidance": 4.0})
    assert len(asked.path) == 1 + 5 + 5 and asked.audio_guidance == 4.0
    # Spelt out where it plays no part, as it is left out.
    joint = resolve(stated, ["x"], {"schedule": "joint", "audio_steps": 2})
    assert len(joint.path) == 1 + 3


def test_an_unknown_option_is_named():
    with pytest.raises(TypeError, match="no option 'guidence'; did you mean 'guidance'"):
        syncflow.generation.pipeline.SyncFlow.generate(build(), PROMPT, guidence=2.0)


@pytest.fixture(scope="module")
def model():
    return build(sampling=CASCADE)


def same(a: Clip, b: Clip) -> bool:
    return torch.equal(a.video, b.video) and torch.equal(a.audio, b.audio)


def test_defaults_spelt_out_are_the_defaults(model):
    plain = model.generate(PROMPT, progress=False)
    stated = {name: getattr(model.config.sampling, name) for name in sampling.OPTIONS}
    assert same(plain, model.generate(PROMPT, progress=False, **stated))
    for name, value in stated.items():
        assert same(plain, model.generate(PROMPT, progress=False, **{name: value})), name
    geometry = model.config.geometry.model_dump(include={"seconds", "height", "width"})
    rest = {"seed": 0, "negative_prompt": None, "audio_takes": 1, "v2a": "one-pass", "rank": "sync"}
    assert same(plain, model.generate(PROMPT, progress=False, **stated, **geometry, **rest))


def test_the_demo_and_the_command_line_make_the_same_clip(model, tmp_path):
    plain = model.generate(PROMPT, progress=False)
    folder = model.save(tmp_path / "model")
    expected = Clip.load(plain.save(tmp_path / "plain.mp4"))
    arguments = ["generate", PROMPT, "--model", str(folder), "--device", "cpu", "--no-progress"]
    assert main([*arguments, "-o", str(tmp_path / "command.mp4")]) == 0
    assert same(expected, Clip.load(tmp_path / "command.mp4"))
    stated = [
        word
        for name in sampling.OPTIONS
        for word in (f"--{name.replace('_', '-')}", str(getattr(model.config.sampling, name)))
    ]
    assert main([*arguments, *stated, "-o", str(tmp_path / "stated.mp4")]) == 0
    assert same(expected, Clip.load(tmp_path / "stated.mp4"))
    studio = Studio(model)
    try:
        # The page's sliders always say something: what they say at first is the model's own.
        (take,) = studio.clip(PROMPT, seed=0, takes=1, guidance=model.config.sampling.guidance)
        assert same(expected, Clip.load(take.clip))
    finally:
        studio.close()
