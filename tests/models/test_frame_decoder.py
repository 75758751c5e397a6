"""The decoder as a GPU runs it, by plain operators on the CPU: the values of diffusers' own."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.counting import pretend
from syncflow.config import OpenSoraVAEConfig
from syncflow.models import frame_decoder, temporal_vae
from syncflow.models.video_vae import VideoVAE
from syncflow.ops import group_norm

SPATIAL = {
    "block_out_channels": [8, 8, 16, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 4,
    "scaling_factor": 0.18215,
}
TEMPORAL = {
    "filters": 4,
    "num_res_blocks": 1,
    "channel_multipliers": [1, 2, 2, 4],
    "temporal_downsample": [False, True, True],
    "num_groups": 2,
}


@pytest.fixture(scope="module")
def vae() -> VideoVAE:
    torch.manual_seed(0)
    vae = VideoVAE(OpenSoraVAEConfig(spatial=SPATIAL, temporal=TEMPORAL), micro_batch_size=3).eval()
    with torch.no_grad():
        for weight in vae.parameters():
            if weight.ndim == 1:
                weight.add_(0.2 * torch.randn_like(weight))
    return vae


@pytest.fixture(scope="module")
def latent() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(1, 4, 2, 4, 6)


def before(vae: VideoVAE, latent: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """Decoding as it was written before there was an operator for the norms."""

    def after(self, norm, x):
        return self(F.silu(norm(x)))

    monkeypatch.setattr(temporal_vae.CausalConv3d, "after", after)
    raw = latent * vae.scale + vae.shift
    frames = vae.temporal_vae.decode(raw, 4 * latent.shape[2])
    spatial = vae.spatial_vae
    parts = frames.transpose(1, 2).flatten(0, 1).split(3)
    out = torch.cat([spatial.module.decode(z / spatial.scaling_factor).sample for z in parts])
    monkeypatch.undo()
    return out.unflatten(0, (1, -1)).transpose(1, 2)


def test_the_cpu_decodes_the_same_bits(vae, latent, monkeypatch):
    with torch.no_grad():
        assert torch.equal(vae.decode(latent), before(vae, latent, monkeypatch))


def test_same_values_as_on_a_gpu(vae, latent):
    fused = copy.deepcopy(vae)
    fused.for_gpu(torch.device("cpu"), torch.float32)
    assert fused.spatial_vae.fused
    assert list(fused.state_dict()) == list(vae.state_dict())
    with torch.no_grad():
        expected = vae.decode(latent)
        torch.testing.assert_close(fused.decode(latent), expected, rtol=1e-5, atol=1e-5)


def test_layouts_stay_channels_last(monkeypatch):
    """What the norms are given on a GPU is what their kernel takes."""
    seen = []
    monkeypatch.setattr(
        group_norm, "_kernel", lambda x, *_, **__: seen.append(group_norm._channels_last(x))
    )
    with pretend("cuda"), torch.device("cuda"), torch.no_grad():
        vae = VideoVAE(OpenSoraVAEConfig(spatial=SPATIAL, temporal=TEMPORAL)).eval()
        for module in vae.modules():  # for_gpu: fake parameters cannot be moved
            if isinstance(module, (nn.Conv2d, nn.Conv3d)):
                layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
                layout = layouts[module.weight.ndim]
                module.weight = nn.Parameter(module.weight.contiguous(memory_format=layout))
        vae.spatial_vae.fuse()
        vae.decode(torch.randn(1, 4, 2, 4, 6))
    assert len(seen) > 40 and all(seen), seen


def test_a_gradient_takes_the_old_way(vae, latent):
    fused = copy.deepcopy(vae)
    fused.for_gpu(torch.device("cpu"), torch.float32)
    fused.decode(latent).sum().backward()
    assert fused.spatial_vae.module.decoder.conv_in.weight.grad is not None


def test_an_unknown_decoder_is_left_alone(vae):
    other = copy.deepcopy(vae.spatial_vae)
    other.module.decoder.conv_act = nn.ReLU()
    other.fuse()
    assert not other.fused


def test_phases_of_an_upsampled_convolution():
    x, weight = torch.randn(2, 3, 5, 4).double(), torch.randn(6, 3, 3, 3).double()
    bias, gains = torch.randn(6).double(), (torch.rand(6).double(), torch.randn(6).double())
    larger = F.interpolate(x, scale_factor=2.0, mode="nearest")
    expected = F.conv2d(larger, weight, bias, padding=1)
    phases = F.conv2d(x, frame_decoder.phase_weight(weight), padding=1)
    total, out = group_norm.phases_group_norm_silu(phases, bias, 2, *gains, 1e-6)
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(out, F.silu(F.group_norm(expected, 2, *gains, 1e-6)))


def test_bfloat16_is_no_further_from_the_truth(vae, latent):
    """Weights of phases are rounded sums: an error like that of rounding any weight."""
    exact = vae.spatial_vae.module.decoder.double()
    z = latent.transpose(1, 2).flatten(0, 1)
    with torch.no_grad():
        truth = exact(z.double())
        exact.float()
        plain = copy.deepcopy(exact).bfloat16()
        narrow = copy.deepcopy(plain)
        frame_decoder.prepare(narrow)
        eager = (plain(z.bfloat16()).double() - truth).abs()
        ours = (frame_decoder.decode(narrow, z.bfloat16()).double() - truth).abs()
    assert ours.mean() <= 1.25 * eager.mean(), (ours.mean(), eager.mean())
