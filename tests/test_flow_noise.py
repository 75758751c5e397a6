"""Solvers that draw noise: with exact velocities they sample the right distribution."""

import math

import pytest
import torch

from syncflow import flow, noise_steps
from syncflow.noise_steps import Held

ETAS = (0.0, 0.5, 1.0, 3.0)
N = 40_000


def sampled(velocity, steps: int, eta: float, solver: str = "euler", shift: float = 3.0, **options):
    """Ends of N paths from noise, float64."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(N, generator=generator, dtype=torch.float64)
    path = flow.times(steps, shift)[:, None]
    return flow.integrate(
        lambda x, t, moving: [velocity(x[0], t[0])], (start,), path, solver, eta=eta,
        noise=lambda part, like: torch.randn(like.shape, generator=generator, dtype=like.dtype),
        **options,
    )[0]  # fmt: skip


def gaussian(x, t):
    """Of data N(0, 1)."""
    return (2 * t - 1) / ((1 - t) ** 2 + t**2) * x


WIDE = 20.0


def common(x, t):
    """Of data N(0, WIDE^2): what many numbers of a clip have in common, such as its colours."""
    return (t * WIDE**2 - (1 - t)) / ((1 - t) ** 2 + (t * WIDE) ** 2) * x


MIXTURE = ((0.3, -1.0, 0.25), (0.7, 1.0, 0.25))


def mixture(x, t):
    """Of .3 N(-1, .25^2) + .7 N(1, .25^2)."""
    logs, means = [], []
    for share, mean, std in MIXTURE:
        variance = (1 - t) ** 2 + (t * std) ** 2
        away = x - t * mean
        logs.append(math.log(share) - 0.5 * math.log(variance) - away**2 / (2 * variance))
        means.append(mean + t * std**2 / variance * away)
    weights = torch.stack(logs).softmax(0)
    return ((weights * torch.stack(means)).sum(0) - x) / (1 - t)


@pytest.mark.parametrize("solver", flow.NOISY_SOLVERS)
@pytest.mark.parametrize("eta", ETAS)
def test_the_variance_of_a_gaussian_comes_out_right_as_steps_grow(solver: str, eta: float) -> None:
    errors = [abs(float(sampled(gaussian, n, eta, solver).var()) - 1) for n in (10, 40, 160)]
    assert errors[2] < 0.5 * errors[0] + 0.02
    assert errors[2] < (0.05 if solver == "2m" or eta < 1 else 0.16 if eta > 1 else 0.07)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_2m_is_right_with_forty_steps(eta: float) -> None:
    assert abs(float(sampled(gaussian, 40, eta, "2m").var()) - 1) < 0.08


def test_noise_replaced_from_a_time_on_keeps_more_of_what_is_in_common() -> None:
    """All noise anew at every step loses variance, and the first steps decide what is in common."""
    kept = [
        float(sampled(common, 20, 1000.0, eta_start=start).var()) / WIDE**2
        for start in (0.0, 0.1, 0.25, 1.0)
    ]
    assert kept[0] < 0.5 < 0.55 < kept[1] < 0.65 < kept[2] < kept[3]
    assert kept[3] == pytest.approx(float(sampled(common, 20, 0.0).var()) / WIDE**2)


def test_noise_is_replaced_from_its_time_on_by_each_parts_own_clock() -> None:
    drawn = []

    def noise(part, like):
        drawn.append(part)
        return torch.zeros_like(like)

    path = torch.tensor([[0.0, 0.0], [0.25, 0.0], [0.5, 0.0], [0.75, 0.0], [1.0, 0.0], [1.0, 0.5]])
    path = torch.cat([path, torch.ones(1, 2)])
    x = (torch.ones(1), torch.ones(1))
    still = lambda x, t, moving: [torch.zeros(1), torch.zeros(1)]  # noqa: E731
    flow.integrate(still, x, path, eta=1.0, noise=noise, eta_start=0.25)
    # Of the picture the steps from .25 and .5, since the one that ends at 1 has no noise left; the
    # sound's only step before its end begins at 0.
    assert drawn == [0, 0]
    drawn.clear()
    flow.integrate(still, x, path, eta=1.0, noise=noise)
    assert drawn == [0, 0, 0, 1]


@pytest.mark.parametrize(("solver", "eta"), [("euler", 0.5), ("euler", 1.0), ("2m", 1.0)])
def test_both_modes_of_a_mixture_keep_their_share_and_width(solver: str, eta: float) -> None:
    found = []
    for steps in (20, 320):
        x = sampled(mixture, steps, eta, solver)
        left = x < 0
        found.append((float(left.double().mean()), float(x[left].std())))
    (_, rough), (share, width) = found
    assert share == pytest.approx(0.3, abs=0.01) and width == pytest.approx(0.25, abs=0.012)
    assert abs(width - 0.25) < abs(rough - 0.25)


@pytest.mark.parametrize("solver", flow.NOISY_SOLVERS)
@pytest.mark.parametrize("eta", ETAS)
def test_every_step_keeps_the_marginal_where_the_data_are_known(solver: str, eta: float) -> None:
    """x_t given x_1 is N(t x_1, (1 - t)^2), whatever the size of the steps."""
    generator = torch.Generator().manual_seed(0)
    x_1 = torch.tensor(2.0, dtype=torch.float64)
    states = []
    flow.integrate(
        lambda x, t, moving: [(x_1 - x[0]) / (1 - t[0])],
        (torch.randn(N, generator=generator, dtype=torch.float64),),
        flow.times(4, 2.0)[:, None], solver, lambda step, x, t: states.append((t[0], x[0])),
        eta=eta,
        noise=lambda part, like: torch.randn(like.shape, generator=generator, dtype=like.dtype),
    )  # fmt: skip
    for t, x in states:
        assert float(x.mean()) == pytest.approx(2 * t, abs=0.02 * (1 - t) + 1e-9)
        assert float(x.std()) == pytest.approx(1 - t, rel=0.02, abs=1e-9)


def test_eta_one_is_ddims_step() -> None:
    """Mean and spread of q(x_t' | x_t, x_1), which DDIM's eta of 1 samples from."""
    t, t_next, x, x_1 = 0.3, 0.55, 0.4, 1.7
    path = torch.tensor([[t], [t_next]], dtype=torch.float64)
    start = torch.tensor(x, dtype=torch.float64)
    ends = [
        float(flow.integrate(
            lambda x, t, moving: [(x_1 - x[0]) / (1 - t[0])], (start,), path, eta=1.0,
            noise=lambda part, like, e=e: torch.full_like(like, e),
        )[0])
        for e in (0.0, 1.0)
    ]  # fmt: skip
    # x_t' and x_t are made of one noise's worth each: x_t = a x_t' + s z, a = t / t'.
    a = t / t_next
    s2 = (1 - t) ** 2 - (a * (1 - t_next)) ** 2
    variance = 1 / (1 / (1 - t_next) ** 2 + a**2 / s2)
    mean = variance * (t_next * x_1 / (1 - t_next) ** 2 + a * x / s2)
    assert ends[0] == pytest.approx(mean, rel=1e-9)
    assert (ends[1] - ends[0]) ** 2 == pytest.approx(variance, rel=1e-9)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("t_last", [0.05, 0.25])
def test_2m_goes_on_from_data_extrapolated_by_the_ratio_of_its_steps(
    t_last: float, eta: float
) -> None:
    """SDE-DPM++ 2M: x' = s'/s e^(-eta h) x + t' (1 - e^(-(1 + eta) h)) (D + h/2h0 (D - D0))."""
    t, t_next = 0.3, 0.55
    data, data_last, held = torch.randn(3, 5, dtype=torch.float64)
    h = math.log(t_next / (1 - t_next)) - math.log(t / (1 - t))
    h_last = math.log(t / (1 - t)) - math.log(t_last / (1 - t_last))
    assert not 0.8 < h / h_last < 1.25
    end, seen = noise_steps.step(
        data, held, t, t_next, eta=eta, noise=torch.zeros_like, last=(data_last, h_last), order=2
    )
    ahead = data + h / (2 * h_last) * (data - data_last)
    x = t * data + (1 - t) * held
    exact = (1 - t_next) / (1 - t) * math.exp(-eta * h) * x
    exact = exact - t_next * math.expm1(-(1 + eta) * h) * ahead
    torch.testing.assert_close(end, exact)
    assert seen[0] is data and seen[1] == pytest.approx(h)


def test_without_noise_2m_is_of_second_order_and_asks_once_a_step() -> None:
    """The exact map of N(0, 1) to itself is the identity."""
    start = torch.linspace(-2, 2, 9, dtype=torch.float64)
    errors, calls = [], []

    def velocity(x, t, moving):
        calls.append(t)
        return [gaussian(x[0], t[0])]

    for steps in (40, 160):
        calls.clear()
        end = flow.integrate(velocity, (start,), flow.times(steps, 3.0)[:, None], "2m")[0]
        assert len(calls) == steps
        errors.append(float((end - start).abs().max()))
    assert errors[1] < errors[0] / 6 and errors[0] < 0.02, "first order would be a fourth"


@pytest.mark.parametrize("solver", flow.NOISY_SOLVERS)
def test_what_is_given_and_what_stands_still_keep_their_values(solver: str) -> None:
    video, audio = torch.randn(2, 3, 5), torch.randn(2, 4)
    t = flow.times(4)
    path = torch.stack([t, torch.ones_like(t)], 1)
    given = torch.zeros(2, 1, 5, dtype=torch.bool)
    given[..., :2] = True
    asked = []

    def noise(part, like):
        asked.append((part, like.shape))
        return torch.randn_like(like)

    end = flow.integrate(
        lambda x, t, moving: [torch.randn_like(x[0]), None], (video, audio), path, solver,
        eta=1.0, noise=noise, held=(Held(given), None),
    )  # fmt: skip
    assert torch.equal(end[0][..., :2], video[..., :2]) and torch.equal(end[1], audio)
    assert (end[0][..., 2:] != video[..., 2:]).all()
    assert {part for part, _ in asked} == {0} and len(asked) == 3, "the last step ends at the data"


def test_each_part_may_have_its_own_eta() -> None:
    x = (torch.randn(3), torch.randn(3))
    drawn = []

    def noise(part, like):
        drawn.append(part)
        return torch.randn_like(like)

    path = flow.times(3)[:, None].expand(-1, 2)
    velocity = lambda x, t, moving: [-x[0], -x[1]]  # noqa: E731
    end = flow.integrate(velocity, x, path, eta=(1.0, 0.0), noise=noise)
    plain = flow.integrate(velocity, x, path)
    assert set(drawn) == {0}
    torch.testing.assert_close(end[1], plain[1])
    assert not torch.allclose(end[0], plain[0], atol=1e-2)


def test_guidance_inside_the_step_changes_nothing() -> None:
    start = torch.randn(50, dtype=torch.float64)

    def end(form):
        generator = torch.Generator().manual_seed(3)
        return flow.integrate(
            lambda x, t, moving: [form(gaussian(x[0], t[0]), -x[0])], (start,),
            flow.times(6)[:, None], "2m", eta=0.7,
            noise=lambda part, like: torch.randn(50, generator=generator, dtype=like.dtype),
        )[0]  # fmt: skip

    torch.testing.assert_close(
        end(lambda c, n: flow.Guided(c, n, 2.5)), end(lambda c, n: flow.guide(c, n, 2.5))
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (dict(solver="ab2", eta=0.5), "solver 'ab2' draws no noise (eta 0.5); euler, 2m do"),
        (dict(solver="heun", eta=1.0), "solver 'heun' draws no noise"),
        (dict(solver="midpoint", eta=(0.0, 1.0)), "eta has 2 values for 1 parts"),
        (dict(eta=-0.1), "eta must be at least 0, got -0.1"),
        (dict(eta=float("nan")), "eta must be at least 0, got nan"),
        (dict(eta=1.0, noise=None), "eta 1 needs noise to draw from"),
    ],
)
def test_faults_name_the_value(options: dict, said: str) -> None:
    given = {"noise": lambda part, like: torch.randn_like(like), **options}
    with pytest.raises(ValueError) as error:
        flow.integrate(lambda *a: [torch.zeros(1)], (torch.zeros(1),), flow.times(2)[:, None],
                       **given)  # fmt: skip
    assert said in str(error.value)
