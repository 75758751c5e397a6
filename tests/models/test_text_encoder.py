"""The text encoders: byte tokens, word pooling, a T5 folder, attribute pre-training."""

import pytest
import torch

from syncflow.config import BytesTextConfig, T5TextConfig
from syncflow.models.text.encoder import ByteTokenizer, TextEncoder, TextPretrainer, pool_words

SIZES = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}


def make_config(**changes):
    kind = T5TextConfig if changes.get("kind") == "t5" else BytesTextConfig
    return kind(**{"max_length": 64, **SIZES, **changes})


def make_encoder(**changes):
    torch.manual_seed(0)
    return TextEncoder(make_config(**changes)).eval()


def test_byte_ids_are_byt5s():
    from transformers import ByT5Tokenizer

    texts = ["a metal ball", "Öl, 2× — 鼓", ""]
    ids_BN, _ = ByteTokenizer(300)(texts)
    theirs = ByT5Tokenizer()(texts, padding=True, return_tensors="pt").input_ids
    assert torch.equal(ids_BN, theirs)


def test_words_are_split_at_whitespace_and_the_end_is_a_word():
    ids_BN, word_BN = ByteTokenizer(300)([" ab  c", "x"])
    assert word_BN.tolist() == [[-1, 0, 0, -1, -1, 1, 2], [0, 1, -1, -1, -1, -1, -1]]
    assert ids_BN[1].tolist() == [ord("x") + 3, 1, 0, 0, 0, 0, 0]


def test_long_text_is_cut_and_still_ends():
    ids_BN, _ = ByteTokenizer(5)(["abcdefgh"])
    assert ids_BN.tolist() == [[100, 101, 102, 103, 1]]
    assert ByteTokenizer(7)(["ab"], fixed=True)[0].shape == (1, 7)


def test_pooling_is_the_mean_over_each_word():
    states_BNW = torch.randn(2, 7, 4)
    _, word_BN = ByteTokenizer(300)([" ab  c", "x"])
    words_BLW, mask_BL = pool_words(states_BNW, word_BN)
    assert mask_BL.tolist() == [[True, True, True], [True, True, False]]
    torch.testing.assert_close(words_BLW[0, 0], states_BNW[0, 1:3].mean(0))
    torch.testing.assert_close(words_BLW[0, 1], states_BNW[0, 5])
    torch.testing.assert_close(words_BLW[1, 1], states_BNW[1, 1])
    assert words_BLW[1, 2].abs().max() == 0


@pytest.mark.parametrize("pool", ["none", "word"])
def test_a_caption_embeds_the_same_alone_and_in_a_batch(pool):
    encoder = make_encoder(pool=pool)
    texts = ["a red ball", "three wooden blocks fall on stone and roll away", ""]
    with torch.no_grad():
        tokens_BLW, mask_BL = encoder.encode(texts)
        for row, text in enumerate(texts):
            alone, alone_mask = encoder.encode([text])
            length = int(alone_mask.sum())
            assert int(mask_BL[row].sum()) == length > 0
            torch.testing.assert_close(tokens_BLW[row, :length], alone[0], atol=1e-5, rtol=1e-4)
    assert tokens_BLW[~mask_BL].abs().max() == 0
    assert tokens_BLW.shape[1] == (10 if pool == "word" else 48) <= encoder.max_tokens


def test_fixed_length_and_state_dict_round_trip(tmp_path):
    from safetensors.torch import load_file, save_file

    encoder = make_encoder()
    save_file(encoder.state_dict(), tmp_path / "text.safetensors")
    torch.manual_seed(1)
    other = TextEncoder(make_config()).eval()
    other.load_state_dict(load_file(tmp_path / "text.safetensors"))
    with torch.no_grad():
        tokens, mask = encoder.encode(["tap"], fixed_length=True)
        assert tokens.shape == (1, 64, 32) and int(mask.sum()) == 4
        assert torch.equal(tokens, other.encode(["tap"], fixed_length=True)[0])
        assert make_encoder(pool="word").encode(["tap"], fixed_length=True)[0].shape == (1, 33, 32)


def test_a_t5_folder_gives_transformers_own_numbers(tmp_path):
    from transformers import ByT5Tokenizer, T5Config, T5EncoderModel

    torch.manual_seed(0)
    reference = T5EncoderModel(T5Config(vocab_size=384, **SIZES)).eval()
    reference.save_pretrained(tmp_path)
    ByT5Tokenizer().save_pretrained(tmp_path)
    encoder = make_encoder(
        kind="t5",
        name_or_path=str(tmp_path),
        max_length=20,
        clean_caption=False,
        precision="float32",
    )
    batch = ByT5Tokenizer()(
        ["hit a drum", "hi"], padding="max_length", max_length=20, return_tensors="pt"
    )
    with torch.no_grad():
        tokens_BLW, mask_BL = encoder.encode(["hit a drum", "hi"], fixed_length=True)
        expected = reference(**batch).last_hidden_state
    assert torch.equal(mask_BL, batch.attention_mask.bool())
    torch.testing.assert_close(tokens_BLW[mask_BL], expected[mask_BL])


def test_contradictions_are_refused():
    with pytest.raises(ValueError, match="unknown key 'pool' in T5TextConfig"):
        make_encoder(kind="t5", pool="word")
    with pytest.raises(ValueError, match="got 1"):
        make_encoder(max_length=1)


def test_encode_refuses_a_bare_string():
    with pytest.raises(ValueError, match="list of strings"):
        make_encoder().encode("a ball")


def test_pretraining_learns_attributes_from_bytes():
    torch.manual_seed(0)
    colours, materials = ["red", "blue", "green"], ["metal", "wood"]
    pretrainer = TextPretrainer(make_encoder(pool="word"), {"colour": 3, "material": 2})
    texts = [f"a {c} ball of {m}" for c in colours for m in materials] + ["a ball of wood"]
    labels = [[c, m] for c in range(3) for m in range(2)] + [[-100, 1]]
    label_BK = torch.tensor(labels)
    optimizer = torch.optim.AdamW(pretrainer.parameters(), lr=3e-3)
    first, _ = pretrainer.loss(texts, label_BK)
    for _ in range(40):
        optimizer.zero_grad()
        loss, accuracy = pretrainer.loss(texts, label_BK)
        loss.backward()
        optimizer.step()
    assert loss < 0.2 * first
    assert accuracy == {"colour": 1.0, "material": 1.0}


def test_missing_labels_carry_no_loss():
    pretrainer = TextPretrainer(make_encoder(), {"colour": 3})
    loss, accuracy = pretrainer.loss(["a ball"], torch.tensor([[-100]]))
    assert loss.item() == 0 and accuracy == {}
    with pytest.raises(ValueError, match=r"\(1, 1\)"):
        pretrainer.loss(["a ball"], torch.zeros(1, 2, dtype=torch.long))
