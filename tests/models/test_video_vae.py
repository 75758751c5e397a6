"""The Open-Sora video VAE: layout, lengths, and numbers that need no golden files."""

import pytest
import torch

from syncflow.config import OpenSoraVAEConfig
from syncflow.models.temporal_vae import CausalConv3d
from syncflow.models.video_vae import VideoVAE
from tests.interop.miniature import SPATIAL

TEMPORAL = {
    "filters": 4,
    "num_res_blocks": 1,
    "channel_multipliers": [1, 2, 2, 4],
    "temporal_downsample": [False, True, True],
    "num_groups": 2,
    "latent_embed_dim": 4,
    "embed_dim": 4,
}

# For each chunk size: mean, std and two elements of the latent's mean, its std, the video.
DIGESTS = {
    None: [
        [-0.177219, 0.165019, -0.0398843, -0.349913],
        [0.388009, 0.111595, 0.296971, 0.315391],
        [-0.101536, 1.58436, -0.242195, -0.195296],
    ],
    5: [
        [-0.181231, 0.159345, -0.0693468, -0.217204],
        [0.389533, 0.110024, 0.317134, 0.297969],
        [-0.0957182, 1.63658, -0.129645, -0.14572],
    ],
}


@pytest.fixture(scope="module")
def vae():
    """A miniature whose weights are a formula, the same on every machine."""
    vae = VideoVAE(OpenSoraVAEConfig(spatial=SPATIAL, temporal=TEMPORAL), micro_batch_size=3).eval()
    with torch.no_grad():
        for index, (name, weight) in enumerate(sorted(vae.named_parameters())):
            wave = torch.sin(torch.arange(weight.numel()) * 0.7 + index).view(weight.shape)
            if weight.ndim > 1:
                weight.copy_(wave * (2 / weight[0].numel()) ** 0.5)
            else:
                weight.copy_(0.1 * wave + ("norm" in name and name.endswith("weight")))
    return vae


@pytest.fixture(scope="module")
def video():
    return torch.sin(torch.arange(3 * 10 * 16 * 24) * 0.013).view(1, 3, 10, 16, 24)


def digest(x):
    return [x.mean().item(), x.std().item(), x.flatten()[7].item(), x.flatten()[-5].item()]


def test_full_size_layout():
    with torch.device("meta"):
        vae = VideoVAE(OpenSoraVAEConfig())
    assert len(vae.temporal_vae.state_dict()) == 267
    assert sum(p.numel() for p in vae.temporal_vae.parameters()) == 309_687_144
    assert sum(p.numel() for p in vae.spatial_vae.parameters()) == 83_653_863
    assert vae.state_dict()["scale"].shape == (1, 4, 1, 1, 1)


@pytest.mark.parametrize("chunk", [None, 5])
def test_numbers(vae, video, chunk):
    """Recorded while the golden files of Open-Sora's own code were met."""
    expected = DIGESTS[chunk]
    with torch.no_grad():
        posterior = vae.encode(video, micro_frame_size=chunk)
        recon = vae.decode(posterior.mode(), num_frames=10, micro_frame_size=chunk)
    assert posterior.mean.shape == (1, 4, 3 if chunk is None else 4, 2, 3)
    assert recon.shape == video.shape
    assert digest(posterior.mean) == pytest.approx(expected[0], rel=1e-3, abs=1e-4)
    assert digest(posterior.std) == pytest.approx(expected[1], rel=1e-3, abs=1e-4)
    assert digest(recon) == pytest.approx(expected[2], rel=1e-3, abs=1e-4)


def test_micro_batches_change_nothing(vae, video):
    with torch.no_grad():
        frames = vae.spatial_vae.encode(video)
        vae.spatial_vae.micro_batch_size = 100
        whole = vae.spatial_vae.encode(video)
        vae.spatial_vae.micro_batch_size = 3
    torch.testing.assert_close(frames, whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "frames, chunk, latents",
    [(32, None, 8), (32, 17, 9), (17, 17, 5), (33, 17, 9), (34, 17, 10), (102, 17, 30), (1, 17, 1)],
)
def test_latent_lengths(vae, frames, chunk, latents):
    assert vae.num_latent_frames(frames, chunk) == latents


def test_decode_without_a_length_gives_all_frames(vae):
    with torch.no_grad():
        assert vae.decode(torch.zeros(1, 4, 2, 1, 1)).shape == (1, 3, 8, 8, 8)
        assert vae.decode(torch.zeros(1, 4, 3, 1, 1), micro_frame_size=5).shape[2] == 9


def test_wrong_shapes_are_refused(vae):
    with pytest.raises(ValueError, match=r"\(1, 4, 3, 16, 16\)"):
        vae.encode(torch.zeros(1, 4, 3, 16, 16))
    with pytest.raises(ValueError, match=r"multiples of 8, got \(16, 20\)"):
        vae.encode(torch.zeros(1, 3, 4, 16, 20))
    with pytest.raises(ValueError, match="have 9 latent frames, got 8"):
        vae.decode(torch.zeros(1, 4, 8, 1, 1), num_frames=32, micro_frame_size=17)
    with pytest.raises(ValueError, match=r"\[B, 4, T, h, w\]"):
        vae.decode(torch.zeros(1, 8, 2, 1, 1))
    with pytest.raises(ValueError, match="must be positive, got 4, -1"):
        vae.encode(torch.zeros(1, 3, 4, 8, 8), micro_frame_size=-1)


def test_contradicting_sizes_are_refused():
    with pytest.raises(ValueError, match="shift has 2 values for 4"):
        VideoVAE(OpenSoraVAEConfig(spatial=SPATIAL, temporal=TEMPORAL, shift=[0.0, 0.0]))
    with pytest.raises(ValueError, match="temporal_downsample has 1 entries"):
        wrong = {**TEMPORAL, "temporal_downsample": [True]}
        VideoVAE(OpenSoraVAEConfig(spatial=SPATIAL, temporal=wrong))


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_do_not_see_the_future(stride):
    conv = CausalConv3d(2, 3, 3, time_stride=stride)
    early = torch.randn(1, 2, 8, 4, 4)
    late = early.clone()
    late[:, :, 4:] += 1
    with torch.no_grad():
        before, after = conv(early), conv(late)
    assert before.shape[2] == 8 // stride
    assert torch.equal(before[:, :, : 4 // stride], after[:, :, : 4 // stride])
    assert not torch.equal(before[:, :, 4 // stride], after[:, :, 4 // stride])


def test_gradients_reach_every_parameter(vae, video):
    posterior = vae.encode(video[:, :, :4, :8, :8])
    generator = torch.Generator().manual_seed(0)
    recon = vae.decode(posterior.sample(generator), num_frames=4)
    (recon.square().mean() + 1e-3 * posterior.kl().mean()).backward()
    without = [name for name, weight in vae.named_parameters() if weight.grad is None]
    vae.zero_grad()
    assert without == []
