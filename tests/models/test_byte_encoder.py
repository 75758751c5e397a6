"""The byte encoder against transformers' T5, whose weights and numbers it shares."""

import pytest
import torch

from syncflow.config import BytesTextConfig
from syncflow.models.text.byte_encoder import ByteEncoder
from syncflow.models.text.encoder import BYTE_VOCAB_SIZE, PAD, ByteTokenizer, TextEncoder

SIZES = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_heads": 4}
TEXTS = ["a metal ball bounces three times on stone", "", "tap " * 60]


def theirs() -> torch.nn.Module:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=BYTE_VOCAB_SIZE, feed_forward_proj="gated-gelu", dropout_rate=0.0, **SIZES
    )
    config._attn_implementation = "eager"
    return T5EncoderModel(config).encoder


def test_the_numbers_are_transformers():
    reference = theirs().eval()
    ours = ByteEncoder(BYTE_VOCAB_SIZE, **SIZES)
    with torch.no_grad():
        for weight in reference.parameters():
            weight += 0.1 * torch.randn_like(weight)  # norms and biases that are told apart
    ours.load_state_dict(reference.state_dict())
    ids_BN, word_BN = ByteTokenizer(256)(TEXTS)
    mask_BN = ids_BN != PAD
    out_BNW = ours(ids_BN, mask_BN, word_BN)
    expected = reference(input_ids=ids_BN, attention_mask=mask_BN.long()).last_hidden_state
    torch.testing.assert_close(out_BNW, expected, atol=1e-6, rtol=0)
    out_BNW[mask_BN].pow(2).sum().backward()
    expected[mask_BN].pow(2).sum().backward()
    gradients = dict(reference.named_parameters())
    for name, weight in ours.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[name].grad, atol=1e-4, rtol=1e-5)


def test_a_seed_starts_the_training_that_it_started_with_transformers():
    torch.manual_seed(3)
    reference = theirs().state_dict()
    after = torch.rand(1)
    torch.manual_seed(3)
    ours = ByteEncoder(BYTE_VOCAB_SIZE, **SIZES).state_dict()
    assert torch.equal(torch.rand(1), after)
    assert list(ours) == list(reference)
    assert all(torch.equal(ours[name], value) for name, value in reference.items())


def test_word_layers_read_a_word_alone():
    torch.manual_seed(0)
    layers = SIZES["num_layers"]
    for alone in (layers, layers - 1):
        config = BytesTextConfig(max_length=64, pool="word", word_layers=alone, **SIZES)
        states_BLW, _ = TextEncoder(config).encode(["a red wooden ball", "one red metal thing"])
        same = (states_BLW[0] - states_BLW[1]).abs().amax(-1) < 1e-5
        assert same.tolist() == [False, alone == layers, False, False, alone == layers]
    with pytest.raises(ValueError, match=f"word_layers is {layers + 1}, but there are {layers}"):
        BytesTextConfig.parse({"max_length": 64, "word_layers": layers + 1, **SIZES}, "text")


@pytest.mark.parametrize("word_layers", [0, 1, SIZES["num_layers"]])
def test_a_text_is_read_alike_beside_longer_ones(word_layers):
    torch.manual_seed(0)
    config = BytesTextConfig(max_length=256, pool="word", word_layers=word_layers, **SIZES)
    encoder = TextEncoder(config)
    alone, _ = encoder.encode(["a red ball"])
    beside, _ = encoder.encode(["a red ball", "tap " * 40])
    torch.testing.assert_close(beside[:1, : alone.shape[1]], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions(dtype):
    config = BytesTextConfig(max_length=64, **SIZES)
    torch.manual_seed(0)
    encoder = TextEncoder(config)
    expected, _ = encoder.encode(TEXTS[:1])
    tokens_BLW, _ = encoder.to(dtype).encode(TEXTS[:1])
    assert tokens_BLW.dtype == dtype
    tolerance = 0.2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(tokens_BLW.float(), expected, atol=tolerance, rtol=0)
