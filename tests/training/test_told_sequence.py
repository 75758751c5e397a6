"""Two processes that share a sample which is told when things touch: what one of them computes.

Each runs this file as a script with the name of the file that it writes.
"""

import sys

import pytest
import torch
from made import GEOMETRY, MODEL

from syncflow.clip import ClipSpec
from syncflow.config import DDiTConfig
from syncflow.models.ddit import DDiT
from syncflow.training.distributed import groups, sequence

SPEC = ClipSpec(**GEOMETRY)
TIMES = {
    "each in a process's own frames": [[0.2, float("nan")], [0.8, float("nan")]],
    "one for both at the border": [[0.499, 0.501], [0.1, 0.9]],
    "one of the batch alone": [[0.7, float("nan")], [float("nan"), float("nan")]],
    "nothing": None,
}


def computed(group: groups.Group) -> dict[str, dict[str, torch.Tensor]]:
    """Velocities, and gradients of what tells the times, of each way to tell them."""
    torch.manual_seed(0)
    model = DDiT(DDiTConfig.model_validate({**MODEL, "event_bins": 4}))
    with torch.no_grad():
        for parameter in model.parameters():  # many begin at zero
            parameter.add_(0.1 * torch.randn(parameter.shape))
    sequence.check(model.config, SPEC, group)
    sequence.share(model, group)
    video = torch.randn(2, 2, *SPEC.video_latent_shape)
    audio = torch.randn(2, SPEC.audio_latent_length, 3)
    t_video, t_audio = torch.tensor([0.3, 0.6]), torch.tensor([0.5, 0.2])
    text, mask = torch.randn(2, 6, 8), torch.ones(2, 6, dtype=torch.bool)
    assert model.event_embedder is not None
    found = {}
    for name, times in TIMES.items():
        events = None if times is None else torch.tensor(times)
        given = (video, audio, t_video, t_audio, text, mask, SPEC)
        v_video, v_audio = model(*given, events=events)
        found[name] = {"video": v_video.detach(), "audio": v_audio.detach()}
        model.zero_grad()
        (v_video.square().sum() + v_audio.square().sum()).backward()
        grad = model.event_embedder.linear.weight.grad
        # The engines take the mean of all processes' gradients.
        grad = torch.zeros_like(model.event_embedder.linear.weight) if grad is None else grad
        found[name]["gradient"] = group.sum(grad) / group.world
    return found


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What one process computes, and each of two."""
    from test_distributed import free_port, start

    folder, port = tmp_path_factory.mktemp("told"), free_port()
    workers = [start([__file__, str(folder / f"{rank}.pt")], rank, port) for rank in (0, 1)]
    alone = computed(groups.Group())
    for worker in workers:
        said, _ = worker.communicate(timeout=300)
        assert worker.returncode == 0, said[-3000:]
    return alone, [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("name", TIMES)
def test_who_is_told_times_shares_a_sample_as_one_computes_it(both, name):
    alone, shared = both
    for found in shared:
        for kind, expected in alone[name].items():
            torch.testing.assert_close(found[name][kind], expected, rtol=1e-4, atol=1e-5)


def test_the_times_matter(both):
    alone, _ = both
    for name in list(TIMES)[:3]:
        for kind in ("video", "audio"):
            assert (alone[name][kind] - alone["nothing"][kind]).abs().max() > 1e-2, (name, kind)
        assert alone[name]["gradient"].abs().max() > 1e-3
    one = alone["one of the batch alone"]["video"] != alone["nothing"]["video"]
    assert one[0].any() and not one[1].any()


if __name__ == "__main__":
    group = groups.join("cpu", minutes=2).of_neighbours(2)
    torch.save(computed(group), sys.argv[1])
    groups.leave()
