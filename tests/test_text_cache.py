"""T5 as a guest: loaded only to encode, gone afterwards, and not called for what is known."""

import gc
import weakref

import pytest
import torch

from syncflow.config import T5TextConfig
from syncflow.model_io.text_cache import PromptEncoder, cache_folder
from syncflow.models.text.encoder import TextEncoder
from syncflow.models.text.int8 import Int8Linear, quantize_linears

T5 = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4}


@pytest.fixture(scope="module")
def t5_folder(tmp_path_factory):
    from transformers import ByT5Tokenizer, T5Config, T5EncoderModel

    folder = tmp_path_factory.mktemp("model") / "text_encoder"
    torch.manual_seed(0)
    T5EncoderModel(T5Config(vocab_size=384, **T5)).save_pretrained(folder)
    ByT5Tokenizer().save_pretrained(folder)
    return folder


def make(t5_folder, cache, **changes):
    options = {"name_or_path": "text_encoder", "max_length": 40, **T5, **changes}
    return PromptEncoder(T5TextConfig(**options), t5_folder.parent, cache=cache)


@pytest.fixture
def visits(monkeypatch):
    """Weak references to every T5 that was loaded."""
    loaded = []
    load = PromptEncoder._load

    def watched(self):
        encoder = load(self)
        loaded.append(weakref.ref(encoder.t5))
        return encoder

    monkeypatch.setattr(PromptEncoder, "_load", watched)
    return loaded


def test_it_is_gone_after_encoding_and_stays_away_for_known_prompts(t5_folder, tmp_path, visits):
    texts = ["a drum", "a bell rings twice", "a drum"]
    tokens_BLW, mask_BL = make(t5_folder, tmp_path).encode(texts)
    gc.collect()
    assert len(visits) == 1 and visits[0]() is None
    assert tokens_BLW.dtype == torch.bfloat16 and tokens_BLW.shape == (3, 19, 16)
    assert mask_BL.sum(1).tolist() == [7, 19, 7] and tokens_BLW[~mask_BL].eq(0).all()
    again, its_mask = make(t5_folder, tmp_path).encode(texts[::-1])
    assert len(visits) == 1
    assert torch.equal(again.flip(0), tokens_BLW) and torch.equal(its_mask.flip(0), mask_BL)
    make(t5_folder, tmp_path).encode(["a drum", "a gong"])
    assert len(visits) == 2


def test_an_embedding_is_the_encoders_own(t5_folder, tmp_path):
    ours, mask = make(t5_folder, tmp_path, precision="float32").encode(["hit a drum"])
    config = make(t5_folder, tmp_path, precision="float32").config
    config = config.model_copy(update={"name_or_path": str(t5_folder)})
    with torch.no_grad():
        theirs, its_mask = TextEncoder(config).eval().encode(["hit a drum"])
    assert torch.equal(ours, theirs) and torch.equal(mask, its_mask)


def test_another_encoder_or_use_is_another_entry(t5_folder, tmp_path):
    import shutil

    whole = make(t5_folder, tmp_path)
    assert make(t5_folder, tmp_path).fingerprint == whole.fingerprint
    for changes in ({"max_length": 8}, {"clean_caption": False}, {"precision": "int8"}):
        assert make(t5_folder, tmp_path, **changes).fingerprint != whole.fingerprint
    other = tmp_path / "text_encoder"
    shutil.copytree(t5_folder, other)
    same = make(other, tmp_path)
    assert same.fingerprint == whole.fingerprint
    data = bytearray((other / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (other / "model.safetensors").write_bytes(data)
    assert make(other, tmp_path).fingerprint != whole.fingerprint


def test_a_damaged_entry_is_made_anew(t5_folder, tmp_path, visits):
    first, _ = make(t5_folder, tmp_path).encode(["a drum"])
    (entry,) = tmp_path.rglob("*.safetensors")
    entry.write_bytes(b"cut")
    again, _ = make(t5_folder, tmp_path).encode(["a drum"])
    assert torch.equal(first, again) and len(visits) == 2
    assert entry.stat().st_size > 3
    assert not list(tmp_path.rglob(".*"))


def test_a_cache_that_cannot_be_written_costs_nothing_else(t5_folder, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    assert make(t5_folder, blocked).encode(["a drum"])[0].shape == (1, 7, 16)


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("SYNCFLOW_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path / "text"
    monkeypatch.setenv("SYNCFLOW_CACHE", "")
    assert cache_folder() is None
    monkeypatch.delenv("SYNCFLOW_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_folder() == tmp_path / "x" / "syncflow" / "text"


def test_eight_bits_are_close_and_half_the_size(t5_folder, tmp_path):
    torch.manual_seed(0)
    linear = torch.nn.Linear(64, 32)
    small = Int8Linear(linear)
    step_O = linear.weight.abs().amax(1) / 127
    restored = small.weight * small.scale_O[:, None]
    assert ((restored - linear.weight).abs() <= step_O[:, None] / 2 * 1.001).all()
    x = torch.randn(5, 64)
    assert (small(x) - linear(x)).norm() / linear(x).norm() < 0.01
    assert small.weight.dtype == torch.int8
    nested = quantize_linears(torch.nn.Sequential(torch.nn.Sequential(linear), torch.nn.ReLU()))
    assert isinstance(nested[0][0], Int8Linear)

    whole, mask = make(t5_folder, tmp_path, precision="float32").encode(["hit a drum"])
    ours, _ = make(t5_folder, tmp_path, precision="int8").encode(["hit a drum"])
    assert ours.dtype == torch.bfloat16
    assert (ours.float() - whole)[mask].norm() / whole[mask].norm() < 0.05


def test_pickles_are_not_read(t5_folder, tmp_path):
    import shutil

    from safetensors.torch import load_file

    other = tmp_path / "text_encoder"
    shutil.copytree(t5_folder, other)
    torch.save(load_file(other / "model.safetensors"), other / "pytorch_model.bin")
    (other / "model.safetensors").unlink()
    with pytest.raises(OSError, match="safetensors"):
        make(other, tmp_path / "cache").encode(["a drum"])
