"""A video tower that learns what its teacher's guidance makes of two passes."""

import copy
import json

import pytest
import torch
from made import MODEL, flow_config, run, told, write_latents
from safetensors.torch import load_file, save_file

from syncflow import flow
from syncflow.generation.sampler import Captions, GuidedVelocity, advance
from syncflow.models.ddit import DDiT
from syncflow.training import runner
from syncflow.training.settings import TrainConfig
from syncflow.training.tasks.flow import FlowTraining

TOLD = {**MODEL, "event_bins": 2}
GUIDED = {"guidance": 3.0, "guidance_start": 0.5, "guidance_end": 0.78}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Latents, and a tower with random weights that has learnt nothing."""
    folder = tmp_path_factory.mktemp("distillation")
    write_latents(folder / "latents", 6, told=True)
    torch.manual_seed(0)
    training = FlowTraining(parsed(flow_config(folder / "latents", folder, "video", model=TOLD)))
    for parameter in training.module.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    (folder / "teacher").mkdir()
    save_file(training.module.state_dict(), folder / "teacher" / "model.safetensors")
    return folder


def parsed(values):
    return TrainConfig.parse({"run": values}).run


def config(made, out, loop=None, **changes):
    changes = {"distillation": GUIDED, "init": str(made / "teacher"), "model": TOLD, **changes}
    return flow_config(made / "latents", out, "video", loop, **changes)


def lesson(made, **changes):
    """A training, its batch and draws, and the velocity that its student is to have."""
    settings = {
        "events": 0.5, "conditioned": 0.5, "text_dropout": 0.4, "time_kind": "uniform", **changes,
    }  # fmt: skip
    training = FlowTraining(parsed(config(made, made, {"batch_size": 6}, **settings)))
    batch = training.drawn(training.batch(0), torch.Generator().manual_seed(5))
    seen = []
    original = training.teacher.velocity

    def velocity(*given):
        seen.append((given, original(*given)))
        return seen[-1][1]

    training.teacher.velocity = velocity
    total, parts = training.loss(batch, torch.Generator().manual_seed(5))
    ((given, wanted),) = seen
    return training, batch, given, wanted, parts


@pytest.mark.parametrize("null_caption", ["prompt", "full"])
def test_the_target_is_the_samplers_guided_velocity(made, null_caption):
    """Known answer: what generation integrates with that guidance, clip by clip."""
    training, batch, (_, x_t, t_B, _, mask_BT), wanted, _ = lesson(made, null_caption=null_caption)
    assert (t_B < GUIDED["guidance_start"]).any() and (t_B >= GUIDED["guidance_end"]).any()
    found, teacher = batch["draws"], copy.deepcopy(training.module)
    assert mask_BT is not None and not mask_BT.all()
    led = 0
    for row in range(6):
        text, mask = batch["text"][row : row + 1], batch["mask"][row : row + 1].bool()
        null, null_mask = teacher.video_tower.unguided_text(mask, null_caption)
        if found.drop_B[row]:
            text, mask = null, null_mask
        length = max(text.shape[1], null.shape[1])

        def padded(x, length=length):
            return torch.cat([x, x.new_zeros(1, length - x.shape[1], *x.shape[2:])], dim=1)

        events = batch["events"][row : row + 1]
        if not found.tell_B[row]:
            events = torch.full_like(events, torch.nan)
        events = torch.cat([events, torch.full_like(events, torch.nan)])
        condition = teacher.prepare(
            torch.cat([padded(text), padded(null)]), torch.cat([padded(mask), padded(null_mask)]),
            batch["bucket"].spec, events,
        )  # fmt: skip
        weight = 1.0 if found.drop_B[row] else GUIDED["guidance"]
        span = (GUIDED["guidance_start"], GUIDED["guidance_end"])
        sampler = GuidedVelocity(
            teacher, Captions(condition, 1), weight, 1.0, mask_BT[row : row + 1], interval=span
        )
        # One Euler step of it, less where it started: its velocity.
        t = t_B[row].item()
        path = torch.tensor([[t, 0.0], [t + 0.125, 0.0]], dtype=torch.float64)
        silence = torch.zeros(1, 1, 1)
        with torch.no_grad():
            end, _ = flow.integrate(
                sampler, (x_t[row : row + 1], silence), path, "euler", advance=advance
            )
        velocity = (end - x_t[row : row + 1]) / 0.125
        moves = mask_BT[row][None, None, :, None, None]  # what is given has no velocity there
        torch.testing.assert_close(
            velocity * moves, wanted[row : row + 1] * moves, rtol=1e-3, atol=1e-4
        )
        led += weight != 1 and span[0] <= t < span[1]
    assert 0 < led < 6


def test_the_data_have_their_share_of_the_captions_own_velocity(made):
    _, batch, (of_data, *_), taught, _ = lesson(made)
    *_, mixed, _ = lesson(made, distillation={**GUIDED, "data": 0.25})
    *_, plain, _ = lesson(made, distillation={**GUIDED, "guidance": 1.0})
    torch.testing.assert_close(of_data, flow.velocity(batch["draws"].x_0, batch["video"]))
    torch.testing.assert_close(mixed, taught + 0.25 * (of_data - plain), rtol=1e-4, atol=1e-5)


def test_without_guidance_a_student_is_its_own_teacher(made):
    """From the same weights there is nothing to learn."""
    *_, parts = lesson(made, distillation={**GUIDED, "guidance": 1.0})
    assert parts["video"].item() < 1e-10
    *_, parts = lesson(made)
    assert parts["video"].item() > 1e-4


def test_a_student_comes_to_need_one_pass(made, tmp_path):
    loop = {"steps": 60, "lr": 0.004, "log_every": 1, "batch_size": 6}
    run(config(made, tmp_path / "run", loop, text_dropout=0), tmp_path)
    apart = told(tmp_path / "run", "video")
    assert sum(apart[-5:]) < 0.3 * sum(apart[:5]), (apart[:5], apart[-5:])
    final = load_file(tmp_path / "run" / "model.safetensors")
    DDiT(parsed(config(made, tmp_path)).model).load_state_dict(final)  # no trace of a teacher


def test_another_teacher_may_be_named(made, tmp_path):
    same = lesson(made)[3]
    torch.manual_seed(1)
    other = DDiT(parsed(config(made, tmp_path)).model).state_dict()
    (tmp_path / "start").mkdir()
    save_file(other, tmp_path / "start" / "model.safetensors")
    taught = {**GUIDED, "teacher": str(made / "teacher")}
    named = lesson(made, distillation=taught, init=str(tmp_path / "start"))
    torch.testing.assert_close(named[3], same)
    assert named[4]["video"].item() > 1e-4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train": "both"}, "teaches the picture alone, and train is 'both'"),
        ({"init": None}, "distillation needs a teacher, or weights to start from"),
        ({"distillation": {"guidence": 2}}, "nearest is 'guidance'"),
        ({"distillation": {**GUIDED, "guidance_start": 0.8}}, "guidance_start 0.8 must be below"),
    ],
)
def test_what_cannot_be_is_one_line(made, tmp_path, changes, said):
    with pytest.raises(ValueError, match=said):
        parsed({**config(made, tmp_path), **changes})


def test_a_teacher_of_other_latents_is_refused(made, tmp_path):
    """Its velocities would be of pictures that nobody trains on."""
    about = {"statistics": json.dumps({"video_mean": [0, 0], "video_std": [1, 2]})}
    weights = load_file(made / "teacher" / "model.safetensors")
    (tmp_path / "other").mkdir()
    save_file(weights, tmp_path / "other" / "model.safetensors", about)
    said = r"\(init: .*other\) was trained .* \(video_std \[1, 2\], here \[1, 1\]\)"
    with pytest.raises(ValueError, match=said):
        lesson(made, init=str(tmp_path / "other"))
    with pytest.raises(ValueError, match="distillation.teacher: "):
        lesson(made, distillation={**GUIDED, "teacher": str(tmp_path / "other")})


def test_additions_of_low_rank_are_taught_too(made):
    low = {"rank": 2, "alpha": 2, "towers": "video"}
    same = lesson(made)[3]
    taught = {**GUIDED, "teacher": str(made / "teacher")}
    for distillation in (GUIDED, taught):
        torch.testing.assert_close(lesson(made, lora=low, distillation=distillation)[3], same)


@pytest.mark.parametrize("engine", [None, {"zero_optimization": {"stage": 2}}])
def test_under_deepspeed_the_teacher_computes_as_the_student_does(made, engine):
    loop = {"precision": "bf16", "deepspeed": engine, "batch_size": 6}
    training = FlowTraining(parsed(config(made, made, loop)))
    weights = {p.dtype for p in training.teacher.ddit.video_tower.parameters()}
    assert weights == {torch.bfloat16 if engine else torch.float32}  # without it, autocast does
    training.module.bfloat16() if engine else None
    batch = training.batch(0)
    with torch.autocast("cpu", torch.bfloat16, enabled=engine is None):
        _, parts = training.loss(batch, torch.Generator().manual_seed(0))
    assert torch.isfinite(parts["video"])


def test_a_teacher_that_is_not_there_is_named(made, tmp_path):
    taught = {**GUIDED, "teacher": str(tmp_path / "nobody")}
    steps = {"task": "recipe", "steps": ["config.json"]}
    (tmp_path / "recipe.json").write_text(json.dumps(steps))
    values = config(made, tmp_path / "run", distillation=taught)
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="distillation.teacher must be a run of task 'flow'"):
        runner.run(tmp_path / "recipe.json", progress=False)
