"""The small VAEs: exact fixed parts, lengths, and the same interface as the large ones."""

import math

import pytest
import torch

from syncflow.config import PatchVAEConfig, SpectralVAEConfig
from syncflow.models.patch_vae import PatchVideoVAE, fold, unfold
from syncflow.models.spectral_vae import SpectralAudioVAE, Synthesis


@pytest.fixture
def video_vae():
    torch.manual_seed(0)
    return PatchVideoVAE(PatchVAEConfig(latent_channels=3, width=16, depth=1))


@pytest.fixture
def audio_vae():
    torch.manual_seed(0)
    config = SpectralVAEConfig(latent_channels=5, width=32, depth=1, oscillators=12)
    return SpectralAudioVAE(config)


def test_unfold_undoes_fold():
    x = torch.randn(2, 4, 8, 12, 3)
    folded = fold(x, (2, 4, 4))
    assert folded.shape == (2, 2, 2, 3, 96)
    assert torch.equal(unfold(folded, (2, 4, 4)), x)


@pytest.mark.parametrize(("frames", "latent"), [(32, 8), (17, 5), (4, 1), (1, 1)])
@pytest.mark.parametrize(("height", "width"), [(16, 24), (32, 8)])
def test_video_shapes(video_vae, frames, latent, height, width):
    video = torch.rand(2, 3, frames, height, width) * 2 - 1
    posterior = video_vae.encode(video)
    assert posterior.mode().shape == (2, 3, latent, height // 8, width // 8)
    assert posterior.kl().shape == (2,)
    assert video_vae.decode(posterior.mode(), num_frames=frames).shape == video.shape


def test_chunks_are_encoded_on_their_own(video_vae):
    video = torch.rand(1, 3, 32, 16, 16) * 2 - 1
    latent = video_vae.encode(video, micro_frame_size=17).mode()
    assert latent.shape[2] == 9
    assert torch.equal(latent[:, :, :5], video_vae.encode(video[:, :, :17]).mode())
    # 17 frames fill 5 latents to 20: those 3 frames must not push the second piece back.
    decoded = video_vae.decode(latent, num_frames=32, micro_frame_size=17)
    assert decoded.shape == video.shape
    torch.testing.assert_close(decoded[:, :, 17:], video_vae.decode(latent[:, :, 5:])[:, :, :15])


def test_a_size_that_does_not_fit_is_named(video_vae):
    with pytest.raises(ValueError, match=r"divisible by 8.*20"):
        video_vae.encode(torch.zeros(1, 3, 4, 20, 16))


@pytest.mark.parametrize(("samples", "latent"), [(96000, 100), (960, 1), (1000, 2)])
def test_audio_shapes(audio_vae, samples, latent):
    audio = torch.randn(2, samples) * 0.1
    posterior = audio_vae.encode(audio)
    assert posterior.mode().shape == (2, latent, 5)
    assert audio_vae.decode(posterior.mode(), num_samples=samples).shape == audio.shape


def test_stereo_is_refused(audio_vae):
    with pytest.raises(ValueError, match="mono"):
        audio_vae.encode(torch.zeros(1, 2, 960))


def test_mdct_rebuilds_a_signal():
    synthesis = Synthesis(48000, 4)
    audio = torch.randn(1, 4800)
    frames = torch.nn.functional.pad(audio, (120, 0)).unfold(1, 240, 120)
    coefficients = torch.zeros(1, 40, synthesis.num_coefficients)
    coefficients[..., -120:] = frames @ synthesis.mdct_basis.T
    made = synthesis(coefficients)
    torch.testing.assert_close(made[:, :-240], audio[:, :-240], atol=1e-5, rtol=0)


def test_an_oscillator_keeps_its_phase_across_frames():
    synthesis = Synthesis(48000, 8)
    coefficients = torch.zeros(1, 100, synthesis.num_coefficients)
    coefficients[..., 5] = 1.0
    n = torch.arange(12000, dtype=torch.float64)
    expected = torch.cos(synthesis.omega_O[5] * n).float()
    torch.testing.assert_close(synthesis(coefficients)[0], expected, atol=1e-5, rtol=0)
    assert synthesis.omega_O[0] == pytest.approx(2 * math.pi * 80 / 48000)


def test_a_click_lands_in_its_own_latent(audio_vae):
    quiet, click = torch.zeros(1, 96000), torch.zeros(1, 96000)
    click[0, 960 * 40 + 480] = 0.5
    with torch.no_grad():
        change = audio_vae.encode(click).mean - audio_vae.encode(quiet).mean
    # The windows reach one latent to each side, two blocks of seven taps six more.
    assert change[0].abs().sum(1).argmax() == 40
    assert change[0, :32].abs().max() < 1e-5 and change[0, 49:].abs().max() < 1e-5
