"""An audio VAE started from Encodec's weights."""

import pytest
import torch

from syncflow.config import EncodecVAEConfig
from syncflow.interop.encodec import init_audio_vae
from syncflow.models.audio_vae import AudioVAE

KINDS = {
    "24khz": ({}, {"causal": True}),
    "48khz": (
        {"norm_type": "time_group_norm", "use_causal_conv": False},
        {"norm": "time_group_norm"},
    ),
}


def make_encodec(**arguments):
    from transformers import EncodecConfig, EncodecModel

    torch.manual_seed(0)
    return EncodecModel(EncodecConfig(num_filters=2, hidden_size=8, **arguments)).eval()


def make_vae(ratios=(8, 5, 4, 2), **arguments):
    torch.manual_seed(1)
    config = EncodecVAEConfig(num_filters=2, latent_channels=8, upsampling_ratios=list(ratios))
    return AudioVAE(config, **arguments).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_original_strides_give_transformers_numbers(kind):
    theirs, ours = KINDS[kind]
    encodec, vae = make_encodec(**theirs), make_vae(**ours)
    report = init_audio_vae(vae, encodec.state_dict())
    assert not (report.reshaped or report.missing or report.unused)
    audio_BM = torch.randn(2, 1600)
    with torch.no_grad():
        latent_BDA = encodec.encoder(audio_BM[:, None])
        torch.testing.assert_close(vae.encode(audio_BM).mode(), latent_BDA.transpose(1, 2))
        decoded = encodec.decoder(latent_BDA)[:, 0]
        torch.testing.assert_close(vae.decode(latent_BDA.transpose(1, 2)), decoded)


def test_other_strides_take_what_agrees_and_say_so(tmp_path):
    from safetensors.torch import save_file

    encodec, vae = make_encodec(), make_vae((8, 6, 5, 4), causal=True)
    save_file(encodec.state_dict(), tmp_path / "model.safetensors")
    before = {key: value.clone() for key, value in vae.state_dict().items()}
    report = init_audio_vae(vae, tmp_path)
    strided = [f"encoder.layers.{i}.conv" for i in (3, 6, 9)]
    strided += [f"decoder.layers.{i}.conv" for i in (6, 9, 12)]
    assert [name for name, *_ in report.reshaped] == strided
    assert len(report.taken) == 32 and "took 32 of 38 layers" in str(report)
    kept = {key for key, value in vae.state_dict().items() if torch.equal(value, before[key])}
    assert {key for key in kept if key.startswith(tuple(strided))} == {
        key for key in before if key.startswith(tuple(strided))
    }
    assert kept.isdisjoint({"encoder.layers.0.conv.bias", "decoder.layers.15.conv.bias"})


def test_weights_pass_from_plain_to_normalised_convolutions():
    encodec = make_encodec(norm_type="time_group_norm", use_causal_conv=False)
    vae = make_vae()
    report = init_audio_vae(vae, encodec.state_dict())
    assert report.unused and all(name.endswith(".norm") for name in report.unused)
    ours, theirs = vae.encoder.layers[0].conv, encodec.encoder.layers[0].conv
    torch.testing.assert_close(ours.weight, theirs.weight)


def test_other_files_are_refused_and_change_nothing(tmp_path):
    vae = make_vae()
    before = {key: value.clone() for key, value in vae.state_dict().items()}
    (tmp_path / "model.safetensors").write_bytes(b"\x40\0\0\0\0\0\0\0{cut")
    with pytest.raises(ValueError, match="not safetensors"):
        init_audio_vae(vae, tmp_path)
    with pytest.raises(FileNotFoundError, match="no Encodec at"):
        init_audio_vae(vae, tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no layer"):
        init_audio_vae(vae, {"model.weight": torch.zeros(3)})
    assert all(torch.equal(value, before[key]) for key, value in vae.state_dict().items())


def test_a_stereo_encodec_is_folded_to_mono():
    """Mono sound gives what the same sound on both channels gave."""
    theirs, ours = KINDS["48khz"]
    encodec, vae = make_encodec(audio_channels=2, **theirs), make_vae(**ours)
    report = init_audio_vae(vae, encodec.state_dict())
    assert report.folded[0] == "encoder.layers.0.conv"
    assert {name.rpartition(".")[0] for name in report.folded[1:]} == {"decoder.layers.15"}
    assert not (report.reshaped or report.missing or report.unused)
    audio_BM = torch.randn(2, 1600)
    with torch.no_grad():
        latent_BDA = encodec.encoder(audio_BM[:, None].expand(-1, 2, -1))
        found = vae.encode(audio_BM).mode().transpose(1, 2)
    torch.testing.assert_close(found, latent_BDA, atol=1e-4, rtol=1e-3)
    assert "stereo folded to mono: encoder.layers.0.conv" in str(report)


def test_a_trained_audio_vae_is_taken_from_its_run_as_it_is(tmp_path):
    """`syncflow import opensora --audio RUN`: the run's weights say what model they are of."""
    import json

    from safetensors.torch import save_file

    from syncflow.interop import checkpoints, importing

    torch.manual_seed(0)
    vae = AudioVAE(EncodecVAEConfig(num_filters=2, latent_channels=8, num_lstm_layers=1))
    said = {"config": json.dumps({"task": "audio_vae", "model": vae.config.model_dump()})}
    save_file(vae.state_dict(), tmp_path / "model.safetensors", said)
    found, report = importing._audio_vae(checkpoints.locate(tmp_path, "Encodec"))
    assert report is None and found.config == vae.config
    assert all(torch.equal(found.state_dict()[k], v) for k, v in vae.state_dict().items())
    said["config"] = json.dumps({"model": {"num_filters": 4, "latent_channels": 8}})
    save_file(vae.state_dict(), tmp_path / "model.safetensors", said)
    with pytest.raises(ValueError, match="do not fit its config") as caught:
        importing._audio_vae(checkpoints.locate(tmp_path, "Encodec"))
    assert "\n" not in str(caught.value)
