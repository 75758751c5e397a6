"""Prompts to token embeddings: T5, or a small byte-level T5 that needs no vocabulary file.

Axis letters: B batch, N bytes or sub-words fed to T5, L text tokens handed to the towers,
W width of the embedding, K attributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from syncflow.config import BytesTextConfig, T5TextConfig, TextEncoderConfig
from syncflow.models.text.byte_encoder import ByteEncoder
from syncflow.models.text.int8 import quantize_linears
from syncflow.published import NO_CODE, without_code

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from transformers.models.t5.modeling_t5 import T5Stack


PAD, EOS, UNK = 0, 1, 2
_NUM_SPECIAL = 3
BYTE_VOCAB_SIZE = 256 + _NUM_SPECIAL

_IS_SPACE = np.zeros(256, dtype=bool)
_IS_SPACE[list(b" \t\n\r\v\f")] = True


class ByteTokenizer:
    """UTF-8 bytes as tokens: byte b is id b + 3; 0 pads, 1 ends the text (the ids of ByT5).

    Beside the ids it returns which whitespace-separated word each token belongs to, so that byte
    states can be pooled into words. The end token is a word of its own: an empty caption still
    has one token.
    """

    def __init__(self, max_length: int) -> None:
        if max_length < 2:
            raise ValueError(f"max_length must be at least 2, got {max_length}")
        self.max_length = max_length

    def __call__(self, texts: Sequence[str], *, fixed: bool = False) -> tuple[Tensor, Tensor]:
        """Ids and word indices, both int64 `[B, N]`.

        N is the longest text's bytes + 1, or max_length when `fixed`; longer texts are cut. The
        word index is -1 on padding and on whitespace.
        """
        rows = [self._encode(text) for text in texts]
        length = self.max_length if fixed else max(len(ids) for ids, _ in rows)
        ids_BN = np.full((len(rows), length), PAD, dtype=np.int64)
        word_BN = np.full((len(rows), length), -1, dtype=np.int64)
        for row, (ids, word) in enumerate(rows):
            ids_BN[row, : len(ids)] = ids
            word_BN[row, : len(word)] = word
        return torch.from_numpy(ids_BN), torch.from_numpy(word_BN)

    def _encode(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        raw = np.frombuffer(text.encode("utf-8")[: self.max_length - 1], dtype=np.uint8)
        space = _IS_SPACE[raw]
        starts = ~space
        starts[1:] &= space[:-1]
        word = np.where(space, -1, np.cumsum(starts) - 1)
        ids = np.append(raw.astype(np.int64) + _NUM_SPECIAL, EOS)
        return ids, np.append(word, starts.sum())


def pool_words(
    states_BNW: Tensor, word_BN: Tensor, num_words: int | None = None
) -> tuple[Tensor, Tensor]:
    """Mean of the states of each word.

    Args:
        states_BNW: token states.
        word_BN: index of each token's word, -1 for tokens that belong to none.
        num_words: L; the largest number of words in the batch when not given.

    Returns:
        Words `[B, L, W]`, zeros where there is none;
        and the mask `[B, L]`, True on words.
    """
    num_words = num_words or int(word_BN.max()) + 1
    # A matrix product instead of index_add: its CUDA result does not depend on scheduling, and
    # the same seed has to give the same clip.
    member_BLN = word_BN[:, None, :] == torch.arange(num_words, device=word_BN.device)[:, None]
    count_BL = member_BLN.sum(-1)
    average_BLN = member_BLN.to(states_BNW.dtype) / count_BL.clamp(min=1)[..., None]
    return torch.bmm(average_BLN.to(states_BNW.dtype), states_BNW), count_BL > 0


class TextEncoder(nn.Module):
    """T5's encoder (Raffel et al., arXiv 1910.10683) behind one call, `encode`.

    Kind "bytes" builds a byte-level model from the sizes in the config; kind "t5" loads weights
    and tokenizer from `config.name_or_path`, a folder or hub id.

    Args:
        config: `T5TextConfig` or `BytesTextConfig`; `max_length` counts what T5 reads (sub-words
            or bytes).

    Raises:
        OSError: T5 is not there, or not as
            safetensors; pickles are not read.
    """

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.t5: ByteEncoder | T5Stack
        self.tokenizer: ByteTokenizer | PreTrainedTokenizerBase
        self.pools_words = isinstance(config, BytesTextConfig) and config.pool == "word"
        if isinstance(config, BytesTextConfig):
            sizes = config.d_model, config.d_kv, config.d_ff, config.num_layers, config.num_heads
            self.t5 = ByteEncoder(BYTE_VOCAB_SIZE, *sizes, config.word_layers)
            self.tokenizer = ByteTokenizer(config.max_length)
        else:
            from transformers import AutoTokenizer, T5EncoderModel

            name, revision = config.name_or_path, config.revision or "main"
            dtype = torch.float32 if config.precision == "float32" else torch.bfloat16
            with without_code(name):
                model = T5EncoderModel.from_pretrained(
                    name, revision=revision, dtype=dtype, use_safetensors=True, **NO_CODE
                )
                self.tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, **NO_CODE)
            # Whole: where transformers keeps a layer in another precision it does so for float16.
            self.t5 = cast("T5Stack", cast(nn.Module, model.encoder).to(dtype))
            if config.precision == "int8":
                quantize_linears(self.t5)

    @property
    def embed_dim(self) -> int:
        """Width W of the embeddings."""
        return int(self.t5.embed_tokens.embedding_dim)

    @property
    def max_tokens(self) -> int:
        """The largest number of text tokens L that `encode` can return."""
        # At least one space lies between two words, and the end token is a word.
        return self.config.max_length // 2 + 1 if self.pools_words else self.config.max_length

    def encode(self, texts: Sequence[str], *, fixed_length: bool = False) -> tuple[Tensor, Tensor]:
        """Embeddings `[B, L, W]` and mask `[B, L]`, True on tokens; padding embeds to zeros.

        Padded to the longest text, or to max_length (words: max_tokens) when `fixed_length`.
        Differentiable in the weights: use `torch.no_grad()` where T5 is frozen. Kind "t5" cleans
        captions as Open-Sora does unless `config.clean_caption` is False; bytes are left alone
        but for their case where `config.casefold` is True.

        Raises:
            ValueError: `texts` is empty or a single string.
        """
        if isinstance(texts, str) or not texts:
            raise ValueError(f"encode takes a non-empty list of strings, got {texts!r}")
        if isinstance(self.config, T5TextConfig) and self.config.clean_caption:
            from syncflow.models.text.caption import clean_caption

            # Twice, as the released weights were trained: the second pass sees what unescaping
            # and cutting in the first have uncovered.
            texts = [clean_caption(clean_caption(text)) for text in texts]
        if isinstance(self.config, BytesTextConfig) and self.config.casefold:
            texts = [text.casefold() for text in texts]
        device = next(self.t5.parameters()).device
        ids_BN, mask_BN, word_BN = self._tokenize(list(texts), fixed_length)
        ids_BN, mask_BN = ids_BN.to(device), mask_BN.to(device)
        if isinstance(self.t5, ByteEncoder):
            assert word_BN is not None
            states_BNW = self.t5(ids_BN, mask_BN, word_BN.to(device))
        else:
            given = {"input_ids": ids_BN, "attention_mask": mask_BN.long()}
            states_BNW = self.t5(**given).last_hidden_state
        if self.pools_words:
            num_words = self.max_tokens if fixed_length else None
            assert word_BN is not None
            return pool_words(states_BNW, word_BN.to(device), num_words)
        return states_BNW * mask_BN[..., None], mask_BN

    def forward(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """`encode`."""
        return self.encode(texts)

    def _tokenize(self, texts: list[str], fixed: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        if isinstance(self.tokenizer, ByteTokenizer):
            ids_BN, word_BN = self.tokenizer(texts, fixed=fixed)
            return ids_BN, ids_BN != PAD, word_BN
        batch = self.tokenizer(
            texts,
            max_length=self.config.max_length,
            padding="max_length" if fixed else "longest",
            truncation=True,
            add_special_tokens=True,
            return_tensors="pt",
        )
        return batch["input_ids"], batch["attention_mask"].bool(), None


class AttributeHead(nn.Module):
    """Several categorical labels of a caption, each from its own attention pooling of the tokens.

    Args:
        embed_dim: width W of the tokens.
        labels: number of classes of each attribute, by name.
    """

    def __init__(self, embed_dim: int, labels: Mapping[str, int]) -> None:
        super().__init__()
        if not labels:
            raise ValueError("an attribute head needs at least one attribute")
        self.names = list(labels)
        self.queries_KW = nn.Parameter(torch.randn(len(labels), embed_dim) * embed_dim**-0.5)
        self.classifiers = nn.ModuleList(nn.Linear(embed_dim, n) for n in labels.values())

    def forward(self, tokens_BLW: Tensor, mask_BL: Tensor) -> dict[str, Tensor]:
        """Logits `[B, classes]` by attribute name."""
        scores_BKL = torch.einsum("blw,kw->bkl", tokens_BLW, self.queries_KW)
        scores_BKL = scores_BKL.masked_fill(~mask_BL[:, None, :], float("-inf"))
        pooled_BKW = scores_BKL.softmax(-1) @ tokens_BLW
        return {
            name: classifier(pooled_BKW[:, k])
            for k, (name, classifier) in enumerate(zip(self.names, self.classifiers, strict=True))
        }


class TextPretrainer(nn.Module):
    """Teaches a small text encoder what captions say, before any tower reads it.

    A byte encoder that starts from noise would otherwise learn to read from the flow loss, which
    is far too indirect for the attributes (count, material) to come through.

    Args:
        encoder: the encoder to train.
        labels: number of classes of each attribute, by name, in the order of the label columns.
    """

    def __init__(self, encoder: TextEncoder, labels: Mapping[str, int]) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = AttributeHead(encoder.embed_dim, labels)

    def loss(self, texts: Sequence[str], label_BK: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Mean cross-entropy over the labels that are there, and accuracy by attribute name.

        Args:
            texts: B captions.
            label_BK: int64 class of each attribute, -100 where the caption does not mention it.

        Returns:
            The scalar loss (0 when no label is there) and the share of right answers of every
            attribute that has a label in the batch.

        Raises:
            ValueError: `label_BK` is not `[B, K]`.
        """
        expected = (len(texts), len(self.head.names))
        if tuple(label_BK.shape) != expected:
            raise ValueError(f"labels must have shape {expected}, got {tuple(label_BK.shape)}")
        logits = self.head(*self.encoder.encode(texts))
        label_BK = label_BK.to(self.head.queries_KW.device)
        total = self.head.queries_KW.new_zeros(())
        accuracy = {}
        for k, (name, logits_BC) in enumerate(logits.items()):
            label_B = label_BK[:, k]
            given = label_B != -100
            total = total + F.cross_entropy(logits_BC.float(), label_B, reduction="sum")
            if given.any():
                right = logits_BC.argmax(-1) == label_B
                accuracy[name] = right[given].float().mean().item()
        return total / (label_BK != -100).sum().clamp(min=1), accuracy
