"""Properties of the flow: end points, closed-form solutions, orders, optimal assignments."""

import itertools
import json
import math
import os
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from syncflow import flow
from syncflow.generation import sampler

GOLDEN = Path(
    os.environ.get("SYNCFLOW_GOLDEN", Path(__file__).parents[1].parent / "shared" / "golden")
)


def golden(*parts: str) -> Path:
    path = GOLDEN.joinpath("opensora_v1_2", "stdit3", *parts)
    if not path.exists():
        warnings.warn(f"parity with Open-Sora is NOT checked: no {path}", stacklevel=2)
        pytest.skip(f"no golden data at {path}; set SYNCFLOW_GOLDEN")
    return path


def pair(batch: int = 6, *shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    shape = (batch, *(shape or (3, 2)))
    return torch.randn(shape, generator=g), torch.randn(shape, generator=g)


def diagonal(steps: int) -> torch.Tensor:
    return flow.times(steps)[:, None]


def test_path_runs_from_noise_to_data_at_constant_velocity() -> None:
    x_0, x_1 = pair(3)
    assert torch.equal(flow.interpolate(x_0, x_1, torch.zeros(3)), x_0)
    assert torch.equal(flow.interpolate(x_0, x_1, torch.ones(3)), x_1)
    t, h = torch.tensor([0.1, 0.5, 0.8]), 0.1
    moved = flow.interpolate(x_0, x_1, t) + h * flow.velocity(x_0, x_1)
    torch.testing.assert_close(moved, flow.interpolate(x_0, x_1, t + h))


def test_loss_is_per_sample_and_masks_elements() -> None:
    target, predicted = pair(2)
    per_sample = flow.loss(predicted, target)
    assert per_sample.shape == (2,)
    assert per_sample[1].item() == pytest.approx(((predicted - target)[1] ** 2).mean().item())
    mask = torch.tensor([[True, False, False], [False, False, False]])[:, :, None]
    masked = flow.loss(predicted, target, mask)
    assert masked[0].item() == pytest.approx(((predicted - target)[0, 0] ** 2).mean().item())
    assert masked[1] == 0


def test_uniform_times_fill_the_unit_interval() -> None:
    t = flow.sample_times(20000, generator=torch.Generator().manual_seed(0))
    assert abs(t.mean() - 0.5) < 0.01 and abs(t.var() - 1 / 12) < 0.005


def test_logit_normal_times_with_a_uniform_share() -> None:
    g = torch.Generator().manual_seed(0)
    pure = flow.sample_times(20000, "logit_normal", mean=0.5, std=0.8, generator=g)
    assert abs(torch.logit(pure).mean() - 0.5) < 0.03 and abs(torch.logit(pure).std() - 0.8) < 0.03
    mixed = flow.sample_times(20000, "logit_normal", uniform_share=0.2, generator=g)
    # P(t < .05) is .2 * .05 for the uniform share and .8 * Phi(logit .05) for the rest.
    expected = 0.2 * 0.05 + 0.8 * 0.5 * math.erfc(math.log(19) / math.sqrt(2))
    assert abs((mixed < 0.05).float().mean() - expected) < 0.004


def test_times_are_the_same_from_the_same_generator() -> None:
    a, b = (
        flow.sample_times(9, "logit_normal", generator=torch.Generator().manual_seed(3))
        for _ in range(2)
    )
    assert torch.equal(a, b)


def test_shift_keeps_the_ends_and_moves_towards_noise() -> None:
    t = flow.times(10, shift=3.0)
    assert t[0] == 0 and t[-1] == 1 and (t.diff() > 0).all()
    assert (t[1:-1] < flow.times(10)[1:-1]).all()
    torch.testing.assert_close(flow.shift_times(t, 1 / 3), flow.times(10))


def test_shift_equals_open_soras_where_that_counts_frames_rightly() -> None:
    for row in json.loads(golden("timestep_transform.json").read_text())["rows"]:
        frames = row["num_frames"]
        theirs = 1 if frames == 1 else frames // 17 * 5
        shift = flow.resolution_shift(row["height"], row["width"], theirs)
        t = flow.shift_times(1 - torch.tensor(row["t"], dtype=torch.float64) / 1000, shift)
        expected = torch.tensor(row["out"], dtype=torch.float64)
        torch.testing.assert_close(1000 * (1 - t), expected, rtol=1e-5, atol=1e-3)


def test_euler_with_guidance_equals_open_soras_sampler() -> None:
    from syncflow.config import VideoTowerConfig
    from syncflow.models.video_tower import VideoTower

    meta, sample = (json.loads(golden(n).read_text()) for n in ("meta.json", "sample.json"))
    io = load_file(golden("sample.safetensors"))
    tower = VideoTower(VideoTowerConfig(**meta["config"])).eval()
    tower.load_state_dict(load_file(golden("state_dict.safetensors")))
    y, mask = io["y"][:, 0], io["mask"]
    null = tower.null_text(len(y), y.shape[1])[0]
    size = {k: sample[k] for k in ("fps", "height", "width")}
    text = tower.prepare(torch.cat([y, null]), torch.cat([mask, mask]))

    def velocity(x, t, moving):
        both = tower.step(torch.cat([x[0]] * 2), torch.full((2 * len(y),), t[0]), text, **size)[0]
        return [flow.guide(*both.chunk(2), sample["cfg"])]

    with torch.no_grad():
        z = flow.integrate(velocity, (io["z0"],), diagonal(sample["steps"]))[0]
    torch.testing.assert_close(z, io["z1"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("solver", flow.SOLVERS)
def test_guidance_inside_the_step_changes_nothing(solver: str) -> None:
    """Guidance applied by the step, plainly or by the operator, ends where it did before it."""
    x_0, x_1 = pair(3)

    def velocity(x, t, moving):
        return (x_1 - x[0], x[0] * (t[0] - 1)), None

    def end(form, advance=flow.advance):
        return flow.integrate(
            lambda *given: [form(*velocity(*given)[0]), None],
            (x_0, x_1),
            torch.cat([diagonal(4)[:, :1], torch.ones(5, 1)], 1),
            solver,
            advance=advance,
        )

    expected = end(lambda c, n: flow.guide(c, n, 3.0))
    for found in (
        end(lambda c, n: flow.Guided(c, n, 3.0)),
        end(lambda c, n: flow.Guided(c, n, 3.0), sampler.advance),
        end(lambda c, n: flow.guide(c, n, 3.0), sampler.advance),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_couplings_are_optimal_permutations() -> None:
    x_0, x_1 = pair(6)
    cost = (x_1[:, None] - x_0[None]).square().flatten(2).sum(2).double()
    best = min(itertools.permutations(range(6)), key=lambda p: sum(cost[i, p[i]] for i in range(6)))
    assert flow.couple(x_0, x_1, "ot").tolist() == list(best)
    assert flow.couple(x_0, x_1, "none").tolist() == list(range(6))


def test_c2ot_keeps_noise_within_its_condition() -> None:
    x_0, x_1 = pair(6)
    condition = torch.eye(2).repeat_interleave(3, 0)
    indices = flow.couple(x_0, x_1, "c2ot", condition, condition_weight=100.0)
    assert torch.equal(condition[indices], condition)
    for rows in (slice(0, 3), slice(3, 6)):
        inner = flow.couple(x_0[rows], x_1[rows], "ot") + rows.start
        assert torch.equal(indices[rows], inner)
    free = flow.couple(x_0, x_1, "c2ot", condition, condition_weight=0.0)
    assert torch.equal(free, flow.couple(x_0, x_1, "ot"))
    with pytest.raises(ValueError, match="needs the batch's condition"):
        flow.couple(x_0, x_1, "c2ot")


def _clips(count: int, size: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, size)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def _cosine_distance(conditions: torch.Tensor, order: torch.Tensor) -> float:
    c = torch.nn.functional.normalize(conditions.double(), dim=1)
    return float((1 - (c * c[order]).sum(1)).mean())


def test_c2ot_moves_clips_whose_captions_are_nearly_equal_at_the_papers_size() -> None:
    """In 32,768 dimensions distances differ by a hundredth of what they are: a weight in units of
    their mean held every clip at its own noise, as if there were no coupling."""
    x_0, x_1 = _clips(128, 32768)
    generator = torch.Generator().manual_seed(1)
    captions = 3 * torch.randn(64, generator=generator) + torch.randn(128, 64, generator=generator)
    own = torch.arange(128)
    assert _cosine_distance(captions, torch.arange(128).roll(1)) < 0.2
    held = flow.couple(x_0, x_1, "c2ot", captions, condition_weight=1.0)
    assert torch.equal(held, own)
    order = flow.couple(x_0, x_1, "c2ot", captions)
    free = flow.couple(x_0, x_1, "ot")

    def cost(pairs: torch.Tensor) -> float:
        return float(flow.transport_cost(x_0[pairs], x_1).diagonal().mean())

    assert (order != own).float().mean() > 0.05
    assert cost(free) < cost(order) < cost(own)
    assert _cosine_distance(captions, order) < 0.5 * _cosine_distance(captions, free)
    more = flow.couple(x_0, x_1, "c2ot", captions, condition_share=0.2)
    assert cost(free) <= cost(more) < cost(order)


@pytest.mark.parametrize("scale", [0.0, 0.5], ids=["alike", "of any length"])
@pytest.mark.parametrize("share", [0.02, 0.2])
def test_a_share_of_all_pairs_still_costs_less_than_the_datas_own_noise(
    share: float, scale: float
) -> None:
    x_0, x_1 = _clips(64, 512)
    x_1 = x_1 * torch.linspace(1 - scale, 1 + scale, 64)[:, None]
    cost = flow.transport_cost(x_0, x_1)
    captions = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
    less = flow.conditional_cost(cost, captions, share=share) < cost.diagonal()[:, None]
    assert float(less.double().mean()) == pytest.approx(share, abs=1 / 64**2)


def test_c2ot_never_leaves_a_class_and_is_transport_within_it() -> None:
    x_0, x_1 = _clips(48, 32768)
    classes = torch.arange(48) % 4
    order = flow.couple(x_0, x_1, "c2ot", torch.eye(4)[classes])
    assert torch.equal(classes[order], classes)
    for each in range(4):
        rows = (classes == each).nonzero().flatten()
        assert torch.equal(order[rows], rows[flow.couple(x_0[rows], x_1[rows], "ot")])


def test_costs_that_processes_work_out_in_shares_are_the_whole_ones() -> None:
    x_0, x_1 = _clips(12, 4096)
    shares = [flow.transport_cost(x_0, x_1[rows]) for rows in (slice(0, 5), slice(5, 12))]
    torch.testing.assert_close(torch.cat(shares), flow.transport_cost(x_0, x_1))
    assert torch.equal(flow.assign(torch.cat(shares)), flow.couple(x_0, x_1, "ot"))


@pytest.mark.parametrize("solver", flow.SOLVERS)
def test_a_straight_path_is_solved_exactly(solver: str) -> None:
    x_0, x_1 = pair(2)
    end = flow.integrate(lambda x, t, m: [x_1 - x_0], (x_0,), diagonal(3), solver)[0]
    torch.testing.assert_close(end, x_1)


@pytest.mark.parametrize(
    ("solver", "order", "calls"),
    [("euler", 1, 1), ("midpoint", 2, 2), ("heun", 2, 2), ("ab2", 2, 1)],
)
def test_solvers_have_their_order(solver: str, order: int, calls: int) -> None:
    """dx = -x dt has the solution exp(-t); halving the step divides the error by 2^order."""
    count = 0

    def velocity(x, t, moving):
        nonlocal count
        count += 1
        return [-x[0]]

    errors = []
    for steps in (20, 40):
        count = 0
        x = flow.integrate(velocity, (torch.ones(1, dtype=torch.float64),), diagonal(steps), solver)
        errors.append(abs(x[0].item() - math.exp(-1)))
        assert count == calls * steps
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.1)


def test_cascade_moves_video_first_and_audio_on_clean_video() -> None:
    path = flow.schedule("cascade", steps=4, audio_steps=3)
    assert path.shape == (8, 2)
    assert path[0].tolist() == [0, 0] and path[4].tolist() == [1, 0] and path[-1].tolist() == [1, 1]
    seen = []

    def velocity(x, t, moving):
        seen.append((t, moving))
        return [torch.ones(1) if m else None for m in moving]

    x = flow.integrate(velocity, (torch.zeros(1), torch.zeros(1)), path, "ab2")
    assert [m for _, m in seen] == [(True, False)] * 4 + [(False, True)] * 3
    assert all(t[0] == 1.0 for t, m in seen if m[1])
    assert x[0].item() == pytest.approx(1) and x[1].item() == pytest.approx(1)


def test_joint_and_audio_schedules() -> None:
    joint = flow.schedule("joint", 5, shift=2.0)
    assert torch.equal(joint[:, 0], joint[:, 1]) and len(joint) == 6
    audio = flow.schedule("audio", 5, audio_steps=2)
    assert audio.tolist() == [[1, 0], [1, 0.5], [1, 1]]


def test_callback_sees_every_step() -> None:
    seen = []
    flow.integrate(
        lambda x, t, m: [torch.ones(1)],
        (torch.zeros(1),),
        diagonal(4),
        callback=lambda step, x, t: seen.append((step, x[0].item(), t[0])),
    )
    assert seen == [(1, 0.25, 0.25), (2, 0.5, 0.5), (3, 0.75, 0.75), (4, 1.0, 1.0)]


def test_guidance_extrapolates_from_null() -> None:
    a, b = pair(1)
    torch.testing.assert_close(flow.guide(a, b, 1.0), a)
    torch.testing.assert_close(flow.guide(a, b, 0.0), b)
    torch.testing.assert_close(flow.guide(a, b, 6.0), b + 6 * (a - b))


def test_faults_name_the_value() -> None:
    x = (torch.zeros(1),)
    with pytest.raises(ValueError, match="'rk9'"):
        flow.integrate(lambda *a: [x[0]], x, diagonal(2), "rk9")
    with pytest.raises(ValueError, match="got 0"):
        flow.times(0)
    with pytest.raises(ValueError, match="'sideways'"):
        flow.schedule("sideways", 2)
    with pytest.raises(ValueError, match="'cubic'"):
        flow.sample_times(2, "cubic")
    with pytest.raises(ValueError, match="got -1"):
        flow.shift_times(torch.zeros(1), -1)
