"""Captions by a model of the user's, through transformers' own pipeline."""

import numpy as np
import pytest
import torch

from syncflow.data.prepare.captions import Captioner

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]", "a", "dog", "barks"]


@pytest.fixture(scope="module")
def captioning_model(tmp_path_factory):
    """An untrained BLIP of a few words, saved as any captioning model is."""
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    folder = tmp_path_factory.mktemp("captioner")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {
        **size, "vocab_size": len(WORDS), "intermediate_size": 16, "encoder_hidden_size": 16,
        "bos_token_id": 5, "pad_token_id": 0, "eos_token_id": 3, "sep_token_id": 3,
        "max_position_embeddings": 64,
    }  # fmt: skip
    vision = {**size, "image_size": 32, "patch_size": 16, "intermediate_size": 16}
    torch.manual_seed(0)
    config = BlipConfig(text_config=text, vision_config=vision, projection_dim=16)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    image = BlipImageProcessor(size={"height": 32, "width": 32})
    BlipProcessor(image, BertTokenizer(str(folder / "vocab.txt"))).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_captioning_model_of_transformers_describes_pictures(captioning_model) -> None:
    captioner = Captioner(captioning_model)
    stills = [np.full((384, 384, 3), level, dtype=np.uint8) for level in (0, 255)]
    said = captioner(stills)
    assert len(said) == 2 and all(isinstance(line, str) and "\n" not in line for line in said)
    assert set(" ".join(said).split()) <= {word.lower() for word in WORDS} | set("[]")
    assert said == captioner(stills)


def test_what_is_no_captioning_model_is_refused(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="captioning model"):
        Captioner(tmp_path / "none")
    with pytest.raises(ValueError, match="is not a captioning model"):
        Captioner(tmp_path)
