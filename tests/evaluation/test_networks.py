"""Every loader against the published layout of its weights, and what it refuses."""

import pickle

import numpy as np
import pytest
import stand_ins
import torch

from syncflow.evaluation.metrics.networks import cnn14, imagebind, loading, vggish


def shapes(module):
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def test_vggish_is_the_published_layout():
    widths = [64, 128, 256, 256, 512, 512], [4096, 4096, 128]
    with torch.device("meta"):
        network = vggish.VGGish(*widths)
    assert shapes(network) == stand_ins.vggish_shapes(*widths)
    assert sum(p.numel() for p in network.parameters()) == 72_141_184


def test_cnn14_is_the_published_layout():
    sizes = 1024, [64, 128, 256, 512, 1024, 2048], 2048, 527
    with torch.device("meta"):
        network = cnn14.Cnn14(1024, 64, *sizes[1:])
    assert shapes(network) == stand_ins.cnn14_shapes(*sizes)
    # 80,753,615 are learned; the Fourier and mel matrices come with them.
    fixed = 2 * 513 * 1024 + 513 * 64
    assert sum(p.numel() for p in network.parameters()) == 80_753_615 + fixed


def test_imagebind_is_the_published_layout():
    widths, depths = (
        {"vision": 1280, "text": 1024, "audio": 768}, {"vision": 32, "text": 24, "audio": 12}
    )  # fmt: skip
    layout = stand_ins.imagebind_shapes(widths, depths, 1024, 49408, other=False)
    with torch.device("meta"):
        network = imagebind.ImageBind({k: torch.empty(shape) for k, shape in layout.items()})
    assert shapes(network) == layout
    assert network.modality_trunks["vision"].blocks[0].attn.num_heads == 16
    assert network.modality_trunks["text"].blocks[0].attn.num_heads == 16
    assert network.modality_trunks["audio"].blocks[0].attn.num_heads == 12


def test_loaded_networks_compute(tmp_path):
    torch.manual_seed(0)
    audio = 0.1 * torch.randn(32000)
    network = vggish.load(stand_ins.vggish(tmp_path))
    assert network(vggish.examples(audio)).shape == (2, 128)
    assert cnn14.load(stand_ins.cnn14(tmp_path))(audio[None]).shape == (1, 10)
    bind = imagebind.load(stand_ins.imagebind(tmp_path))
    seen = bind.vision(torch.randn(2, 3, 2, 224, 224))
    heard = bind.audio(torch.randn(2, 1, 128, 204))
    tokens = torch.zeros(2, 77, dtype=torch.long)
    tokens[0, :4], tokens[1, :4] = torch.tensor([1, 5, 46, 0]), torch.tensor([1, 6, 46, 0])
    read = bind.text(tokens)
    for vectors in (seen, heard, read):
        assert vectors.shape == (2, 32)
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
        assert (vectors[0] - vectors[1]).abs().max() > 1e-3
    # Causal, and read at the end token: what stands after it does not count.
    later = tokens.clone()
    later[:, 5] = 7
    torch.testing.assert_close(bind.text(later), read)
    with pytest.raises(ValueError, match="positions"):
        bind.audio(torch.randn(1, 1, 128, 404))


def test_examples_are_the_published_log_mel():
    """Frame by frame, as the original's README describes it."""
    audio = 0.1 * np.random.default_rng(0).normal(size=15600 + 5000)
    found = vggish.examples(torch.tensor(audio))
    assert found.shape == (1, 1, 96, 64)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    edges = np.linspace(1127 * np.log(1 + 125 / 700), 1127 * np.log(1 + 7500 / 700), 66)
    bins = 1127 * np.log(1 + np.linspace(0, 8000, 257) / 700)
    for frame in (0, 50, 95):
        spectrum = np.abs(np.fft.rfft(audio[160 * frame : 160 * frame + 400] * window, 512))
        for band in (0, 31, 63):
            low, centre, high = edges[band : band + 3]
            up, down = (bins - low) / (centre - low), (high - bins) / (high - centre)
            weight = np.maximum(0, np.minimum(up, down))
            weight[0] = 0
            expected = np.log(weight @ spectrum + 0.01)
            assert found[0, 0, frame, band].item() == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match="0.975 s"):
        vggish.examples(torch.zeros(15599))


def test_a_mistake_is_one_clear_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="VGGish weights"):
        vggish.load(tmp_path / "nothing.pth")
    other = stand_ins.cnn14(tmp_path)
    with pytest.raises(ValueError, match="no 'features.0.weight'"):
        vggish.load(other)
    with pytest.raises(ValueError, match="not Cnn14"):
        cnn14.load(stand_ins.vggish(tmp_path))
    weights = loading.read(stand_ins.vggish(tmp_path), "x")
    weights["features.3.bias"] = torch.zeros(3)
    torch.save(weights, tmp_path / "damaged.pth")
    with pytest.raises(ValueError, match="features.3.bias"):
        vggish.load(tmp_path / "damaged.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ValueError, match="cannot be read|more than tensors"):
        vggish.load(tmp_path / "text.pth")
    with pytest.raises(ValueError, match="not a TorchScript"):
        loading.script(tmp_path / "text.pth", "I3D", allow_torchscript=True)


def test_no_code_of_a_file_is_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "written"), "w"))

    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"features.0.weight": Evil()}))
    with pytest.raises(ValueError):
        vggish.load(tmp_path / "evil.pth")
    assert not (tmp_path / "written").exists()
