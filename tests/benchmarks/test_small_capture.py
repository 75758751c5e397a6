"""What a CUDA graph of a training step may not hold: numbers read back, tensors from the host.

Steps run on tensors of a GPU that is not there, so only what they would do is watched.
"""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.gpu.small import encoders, folder, plan, pool
from benchmarks.gpu.small.towers import DecoderSteps, Towers
from syncflow import ops

GPU = torch.device("cuda:0")
_WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero")


class Watch(TorchDispatchMode):
    """Collects operators that wait for the device or take something across."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sides = [
            {leaf.device.type for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)}
            for values in ((args, kwargs), out)
        ]
        name = str(func)
        if any(word in name for word in _WAITING) or len(sides[0] | sides[1]) > 1:
            self.found.append(name)
        return out


def watched(step) -> list[str]:
    step()  # tables that are kept are made here, as in the warm-up before a capture
    with Watch() as watch:
        step()
    return watch.found


@pytest.fixture
def steps(monkeypatch):
    """Every step that is captured, by name, of the full model at a small batch."""
    # Autograd would ask the device; what runs backward is made of the same operators.
    monkeypatch.setattr(
        torch.autograd, "grad", lambda loss, given, **_: [torch.zeros_like(p) for p in given]
    )
    monkeypatch.setattr(encoders.torch, "autocast", lambda *_, **__: torch.no_grad())
    config = plan.model_config()
    with ops.reference_ops(), FakeTensorMode(allow_non_fake_inputs=True):
        with torch.device(GPU):
            parts, judge = folder.modules(config), folder.modules(config)["ddit"]
        monkeypatch.setattr(type(judge), "to", lambda self, *_: self)
        latents = pool.Latents(8, config, GPU)
        towers = Towers(parts["ddit"], latents, 4, torch.float32)
        raw = pool.Raw(4, GPU)
        keeper = pool.Encoders(*(parts[n] for n in folder.PARTS[1:]), GPU)
        channels = config.video_vae.latent_channels
        keeper.scale = {"video": (torch.zeros(channels, device=GPU),) * 2}
        yield {
            "video": towers.video_step,
            "audio": towers.audio_step,
            "video VAE": encoders.VideoVAESteps(parts["video_vae"], raw, 2).step,
            "audio VAE": encoders.AudioVAESteps(parts["audio_vae"], raw, 2).step,
            "decoder": DecoderSteps(keeper, judge, latents, raw, 2).step,
        }


@pytest.mark.parametrize("name", ["video", "audio", "video VAE", "audio VAE", "decoder"])
def test_no_step_waits_for_the_host_or_takes_anything_from_it(steps, name):
    assert watched(steps[name]) == []


def test_the_watch_sees_both_faults():
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert watched(lambda: torch.arange(3).to(GPU).sum()) == ["aten._to_copy.default"]
    assert "aten._local_scalar_dense.default" in watched(lambda: torch.ones(()).item())
