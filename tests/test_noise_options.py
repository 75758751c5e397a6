"""`eta`, "2m" and the interval of guidance, asked for by whoever generates."""

import pytest
import torch

from syncflow.clip import Clip
from syncflow.config import SamplingConfig
from syncflow.generation.request import resolve
from tests.small_model import PROMPT, build

NOISY = dict(solver="2m", eta=1.0)


@pytest.fixture(scope="module")
def model():
    return build()


def run(model, prompt=PROMPT, **options):
    return model.generate(prompt, progress=False, **options)


def rows(model, monkeypatch, **options) -> list[int]:
    """How many rows each pass of the video tower has."""
    passes = []
    step = type(model.ddit.video_tower).step
    monkeypatch.setattr(
        type(model.ddit.video_tower), "step",
        lambda self, x, *a, **k: (passes.append(len(x)), step(self, x, *a, **k))[1],
    )  # fmt: skip
    run(model, **options)
    monkeypatch.undo()
    return passes


@pytest.mark.parametrize("solver", ["euler", "2m"])
def test_noise_is_part_of_the_seed_and_leaves_what_is_given_alone(model, solver: str) -> None:
    noisy = dict(solver=solver, eta=1.0)
    one = run(model, seed=5, **noisy)
    assert torch.equal(one.video, run(model, seed=5, **noisy).video)
    assert not torch.equal(one.video, run(model, seed=5, solver=solver).video)
    assert not torch.equal(one.video, run(model, seed=6, **noisy).video)
    among = run(model, [PROMPT, PROMPT], seed=4, **noisy)[1]
    assert (among.video.int() - one.video.int()).abs().max() <= 1
    several = run(model, seed=5, audio_takes=2, rank=None, **noisy)
    assert all((take.video.int() - one.video.int()).abs().max() <= 1 for take in several)
    given = Clip(one.video, one.audio, 16, 48000)
    assert torch.equal(run(model, video=given, **noisy).video, given.video)
    seen = []
    keep = lambda step, x, t: seen.append(x[0][:, :, 0].clone())  # noqa: E731
    run(model, image=one.video[0], callback=keep, **noisy)
    assert len(seen) > 2 and all(torch.equal(frame, seen[0]) for frame in seen)


def test_eta_of_nothing_is_as_left_out(model) -> None:
    torch.testing.assert_close(run(model, eta=0.0).video, run(model).video)


def test_noise_is_replaced_from_its_time_on(model) -> None:
    noisy = dict(eta=1.0, steps=4, schedule="cascade", seed=3)
    assert torch.equal(run(model, **noisy, eta_start=0.0).video, run(model, **noisy).video)
    # Times 0, .25, .5, .75: the last step ends at 1, where no noise is left.
    late, later = (run(model, **noisy, eta_start=start).video for start in (0.5, 0.51))
    none = run(model, **{**noisy, "eta": 0.0}).video
    assert torch.equal(later, none)
    assert not torch.equal(late, none) and not torch.equal(late, run(model, **noisy).video)


def test_the_null_branch_runs_inside_the_interval_alone(model, monkeypatch) -> None:
    cascade = dict(steps=5, audio_steps=2, guidance=2.0, audio_guidance=1.0, schedule="cascade")
    assert rows(model, monkeypatch, **cascade) == [2] * 5 + [1]
    # Times 0, .2, .4, .6, .8: the first included, the last not.
    part = rows(model, monkeypatch, **cascade, guidance_start=0.2, guidance_end=0.6)
    assert part == [1, 2, 2, 1, 1, 1]
    everywhere = dict(guidance_start=0.0, guidance_end=1.0)
    assert torch.equal(run(model, **cascade, **everywhere).video, run(model, **cascade).video)
    nowhere = run(model, **cascade, guidance_start=0.5, guidance_end=0.5)
    assert torch.equal(nowhere.video, run(model, **{**cascade, "guidance": 1.0}).video)


def test_the_sound_has_the_interval_on_its_own_clock(model, monkeypatch) -> None:
    """Its context is made once for each number of branches."""
    options = dict(steps=2, audio_steps=4, guidance=1.0, audio_guidance=3.0, schedule="cascade")
    passes = rows(model, monkeypatch, **options, guidance_start=0.5, guidance_end=1.0)
    assert passes == [1, 1, 1, 2]
    plain = run(model, **{**options, "audio_guidance": 1.0})
    nowhere = run(model, **options, guidance_start=0.3, guidance_end=0.3)
    assert torch.equal(nowhere.audio, plain.audio)
    assert not torch.equal(run(model, **options).audio, plain.audio)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (dict(solver="ab2", eta=0.5), "solver 'ab2' draws no noise, and eta is 0.5; euler and 2m"),
        (dict(eta=-1.0), "eta must be a number between 0 and 1e+06, got -1"),
        (dict(guidance_start=0.6, guidance_end=0.2), "guidance_start 0.6 is beyond guidance_end"),
        (dict(eta_start=-0.1), "eta_start must be a number between 0 and 1, got -0.1"),
        (dict(guidance_end=1.5), "guidance_end must be a number between 0 and 1, got 1.5"),
    ],
)
def test_what_makes_no_sense_is_told_with_its_value(options: dict, said: str) -> None:
    with pytest.raises(ValueError) as error:
        resolve(SamplingConfig(), ["x"], options)
    assert said in str(error.value)
