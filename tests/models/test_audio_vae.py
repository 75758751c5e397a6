"""The Encodec audio VAE and the posterior that all VAEs share."""

import pytest
import torch

from syncflow.config import EncodecVAEConfig
from syncflow.models.audio_vae import AudioVAE
from syncflow.models.posterior import DiagonalGaussian


def make_vae():
    torch.manual_seed(0)
    return AudioVAE(EncodecVAEConfig(num_filters=2, latent_channels=8))


def test_two_seconds_are_a_hundred_latents():
    vae = make_vae()
    with torch.no_grad():
        latent_BAD = vae.encode(torch.randn(1, 96000)).mode()
        assert latent_BAD.shape == (1, 100, 8)
        assert vae.decode(latent_BAD).shape == (1, 96000)


@pytest.mark.parametrize("num_samples", [1, 959, 960, 961, 4000])
def test_any_length_comes_back(num_samples):
    vae = make_vae()
    with torch.no_grad():
        latent_BAD = vae.encode(torch.randn(2, num_samples)).mode()
        assert latent_BAD.shape[1] == vae.num_latents(num_samples)
        assert vae.decode(latent_BAD, num_samples=num_samples).shape == (2, num_samples)


def test_it_learns_a_tone_through_the_sampled_latent():
    vae = make_vae()
    audio_BM = torch.sin(torch.arange(1920) * 0.3)[None] * 0.5
    optimizer = torch.optim.AdamW(vae.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        posterior = vae.encode(audio_BM)
        recon_BM = vae.decode(posterior.sample(generator), num_samples=1920)
        loss = (recon_BM - audio_BM).square().mean() + 1e-6 * posterior.kl().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert vae.moments.weight.grad.abs().max() > 0


def test_wrong_shapes_are_refused():
    vae = make_vae()
    with pytest.raises(ValueError, match=r"\(1, 2, 960\)"):
        vae.encode(torch.zeros(1, 2, 960))
    with pytest.raises(ValueError, match=r"\[B, A, 8\]"):
        vae.decode(torch.zeros(1, 8, 3))
    with pytest.raises(ValueError, match="hold 1920 samples, asked for 1921"):
        vae.decode(torch.zeros(1, 2, 8), num_samples=1921)


def test_posterior_agrees_with_torch_distributions():
    torch.manual_seed(0)
    mean, logvar = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    posterior = DiagonalGaussian(mean, logvar)
    normal = torch.distributions.Normal(mean, (logvar / 2).exp())
    standard = torch.distributions.Normal(0.0, 1.0)
    expected = torch.distributions.kl_divergence(normal, standard).sum((1, 2))
    torch.testing.assert_close(posterior.kl(), expected)
    draws = [posterior.sample(torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(*draws)
    scaled = posterior.affine(torch.tensor(0.5), torch.tensor(-2.0))
    torch.testing.assert_close(scaled.mode(), (mean - 0.5) / -2)
    torch.testing.assert_close(scaled.std, posterior.std / 2)


def test_posterior_refuses_unequal_shapes():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, 4\)"):
        DiagonalGaussian(torch.zeros(2, 3), torch.zeros(2, 4))


def test_padding_is_known_without_asking_the_device():
    """transformers keeps the sizes of its convolutions in tensors: on a GPU every layer waited."""
    from transformers import EncodecConfig
    from transformers.models.encodec.modeling_encodec import EncodecConv1d

    vae = AudioVAE(EncodecVAEConfig(num_filters=2, latent_channels=4, num_lstm_layers=1))
    ours = [part for part in vae.modules() if isinstance(part, EncodecConv1d)]
    assert ours and not any(part._buffers for part in ours)
    for causal in (False, True):
        config = EncodecConfig(use_causal_conv=causal)
        for kernel, stride, dilation in ((7, 1, 1), (16, 8, 1), (3, 1, 4)):
            theirs = EncodecConv1d(config, 1, 1, kernel, stride, dilation)
            for length in (37, 64, 960):
                x = torch.zeros(1, 1, length)
                wanted = int(theirs._get_extra_padding_for_conv1d(x))
                assert -length % stride == wanted
