"""Seeds: all their bits count, and those that PyTorch can take draw what they always drew."""

import pytest
import torch

from syncflow.generation import noise


def draws(seed: int, count: int = 1) -> list[torch.Tensor]:
    return [source.normal((3, 7)) for source in noise.generators(range(seed, seed + count))]


def test_no_bit_is_lost() -> None:
    seeds = [11 + (1 << bit) for bit in range(32, 63)] + [11, 2**63 - 1]
    found = {tuple(draws(seed)[0].flatten().tolist()) for seed in seeds}
    assert len(found) == len(seeds)
    # Nor do they only shift each other.
    values = torch.stack([draws(seed)[0].flatten() for seed in seeds])
    assert torch.corrcoef(values).fill_diagonal_(0).abs().max() < 0.9


def test_short_seeds_draw_what_they_drew() -> None:
    for seed in (0, 7, 2**31, 2**32 - 1):
        expected = torch.randn((3, 7), generator=torch.Generator().manual_seed(seed))
        assert torch.equal(draws(seed)[0], expected)


def test_long_seeds_stay_as_they_are() -> None:
    """These numbers are promised: they are a clip's."""
    found = draws(2**40 + 11)[0]
    expected = [-0.530959, -1.241635, 1.08746]
    assert found.dtype == torch.float32
    assert found.flatten()[:3].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", [5, 2**32 - 1, 2**50])
def test_prompt_i_draws_from_seed_plus_i(seed: int) -> None:
    for index, drawn in enumerate(draws(seed, 3)):
        assert torch.equal(drawn, draws(seed + index)[0])


@pytest.mark.parametrize("seed", [5, 2**50])
def test_takes_leave_the_first_ones_noise_as_it_is(seed: int) -> None:
    shapes, device = ((2, 3), (4, 5)), torch.device("cpu")
    one, three = (noise.generators([seed, seed + 1]) for _ in range(2))
    video_1, audio_1 = noise.start(one, *shapes, device)
    video_3, audio_3 = noise.start(three, *shapes, device, takes=3)
    assert torch.equal(video_1, video_3) and torch.equal(audio_1, audio_3[::3])
    assert len({tuple(row.flatten().tolist()) for row in audio_3}) == 6
    later = [noise.fresh(sources)(0, video_1) for sources in (one, three)]
    assert torch.equal(*later)


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, True, "7", None, float("nan")])
def test_what_is_no_seed_is_refused(seed) -> None:
    with pytest.raises(ValueError, match="seed must be a whole number between 0 and"):
        noise.generators([seed])
