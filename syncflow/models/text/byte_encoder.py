"""T5's encoder over bytes, under transformers' names, without transformers.

Importing transformers takes longer than everything else between a prompt and its clip. Operations
stand in transformers' order, so that the same weights give the same bits, and random numbers are
drawn in its order, so that the same seed starts the same training.

Axis letters: B batch, N bytes, H heads, W width of the embedding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from syncflow.models.layers import ModuleList

_BUCKETS, _MAX_DISTANCE = 32, 128


class ByteEncoder(nn.Module):
    """The encoder of T5 v1.1 (gated GELU, no biases) without dropout; the state dict is that of
    ``transformers.T5EncoderModel(...).encoder``.

    Args:
        vocab_size: number of ids.
        d_model, d_kv, d_ff, num_layers, num_heads: T5's sizes.
        word_layers: in so many of the first layers bytes attend to their own word alone.
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        d_kv: int,
        d_ff: int,
        num_layers: int,
        num_heads: int,
        word_layers: int = 0,
    ) -> None:
        super().__init__()
        self.word_layers = word_layers
        torch.empty(vocab_size, d_model).normal_()  # transformers' second name for the table
        self.embed_tokens = nn.Embedding(vocab_size, d_model)
        self.block = ModuleList(
            Block(d_model, d_kv, d_ff, num_heads, has_bias=layer == 0)
            for layer in range(num_layers)
        )
        self.final_layer_norm = RMSNorm(d_model)
        self._draw()

    @torch.no_grad()
    def _draw(self) -> None:
        """T5's initial weights. transformers draws each first by the rule of all its models, and
        then by T5's; the table of ids twice again under its second name."""
        table = self.embed_tokens.weight
        table.normal_()
        for block in self.block:
            attention, dense = block.parts()
            for part in (attention.SelfAttention, dense.DenseReluDense):
                for weight, _ in part.spreads():
                    weight.normal_()
                for weight, std in part.spreads():
                    weight.normal_(std=std)
        for _ in range(2):
            table.normal_()

    def forward(self, ids_BN: Tensor, mask_BN: Tensor, word_BN: Tensor) -> Tensor:
        """States ``[B, N, W]`` of ids; ``mask_BN`` is True where bytes may be attended to,
        ``word_BN`` numbers the words that bytes belong to."""
        states_BNW = self.embed_tokens(ids_BN)
        zero, never = states_BNW.new_zeros(()), torch.finfo(states_BNW.dtype).min
        mask_B11N = torch.where(mask_BN[:, None, None, :], zero, never)
        # Padding has no word, as spaces have none, and must not be read for one.
        same_BNN = (word_BN[:, None, :] == word_BN[:, :, None]) & mask_BN[:, None, :]
        within_B1NN = torch.where(same_BNN[:, None], zero, never)
        first, _ = self.block[0].parts()
        bias_1HNN = first.SelfAttention.position_bias(ids_BN.shape[1])
        for layer, block in enumerate(self.block):
            may = within_B1NN if layer < self.word_layers else mask_B11N
            states_BNW = block(states_BNW, bias_1HNN, may)
        out_BNW: Tensor = self.final_layer_norm(states_BNW)
        return out_BNW


class RMSNorm(nn.Module):
    """x / rms(x) * weight; the mean of squares is taken in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        variance = x.to(torch.float32).pow(2).mean(-1, keepdim=True)
        x = x * torch.rsqrt(variance + 1e-6)
        return self.weight * x.to(self.weight.dtype)


class Attention(nn.Module):
    """Self-attention without scaling, which T5's initial weights carry, and with a learned bias of
    each head for how far apart two bytes are; the first layer has it for all."""

    def __init__(self, d_model: int, d_kv: int, num_heads: int, has_bias: bool) -> None:
        super().__init__()
        self.d_kv = d_kv
        inner = num_heads * d_kv
        self.q = nn.Linear(d_model, inner, bias=False)
        self.k = nn.Linear(d_model, inner, bias=False)
        self.v = nn.Linear(d_model, inner, bias=False)
        self.o = nn.Linear(inner, d_model, bias=False)
        self.relative_attention_bias = nn.Embedding(_BUCKETS, num_heads) if has_bias else None

    def spreads(self) -> Iterator[tuple[Tensor, float]]:
        """The weights, each with its first standard deviation."""
        d_model, inner = self.q.in_features, self.o.in_features
        yield self.q.weight, (d_model * self.d_kv) ** -0.5
        yield self.k.weight, d_model**-0.5
        yield self.v.weight, d_model**-0.5
        yield self.o.weight, inner**-0.5
        if self.relative_attention_bias is not None:
            yield self.relative_attention_bias.weight, d_model**-0.5

    def position_bias(self, length: int) -> Tensor:
        """``[1, H, length, length]``, to be added to the scores."""
        table = self.relative_attention_bias
        assert table is not None  # of the first layer
        at_N = torch.arange(length, device=table.weight.device)
        bias_NNH: Tensor = table(_bucket(at_N[None, :] - at_N[:, None]))
        return bias_NNH.permute(2, 0, 1).unsqueeze(0)

    def forward(self, x_BNW: Tensor, bias_1HNN: Tensor, mask_B1NN: Tensor) -> Tensor:
        heads = (*x_BNW.shape[:-1], -1, self.d_kv)
        q, k, v = (linear(x_BNW).view(heads).transpose(1, 2) for linear in (self.q, self.k, self.v))
        # The backward of scaled_dot_product_attention is slow on CPU for sequences this short.
        scores_BHNN = torch.matmul(q, k.transpose(2, 3)) + bias_1HNN + mask_B1NN
        out = torch.matmul(scores_BHNN.softmax(-1), v)
        out_BNW: Tensor = self.o(out.transpose(1, 2).flatten(2))
        return out_BNW


class GatedDense(nn.Module):
    """Two layers, the hidden one gated: gelu(x W_0) * (x W_1)."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.wi_0 = nn.Linear(d_model, d_ff, bias=False)
        self.wi_1 = nn.Linear(d_model, d_ff, bias=False)
        self.wo = nn.Linear(d_ff, d_model, bias=False)

    def spreads(self) -> Iterator[tuple[Tensor, float]]:
        """The weights, each with its first standard deviation."""
        for linear in (self.wi_0, self.wi_1, self.wo):
            yield linear.weight, linear.in_features**-0.5

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.wo(_gelu(self.wi_0(x)) * self.wi_1(x))
        return out


class SelfAttentionLayer(nn.Module):
    """x + attention(norm(x))."""

    def __init__(self, d_model: int, d_kv: int, num_heads: int, has_bias: bool) -> None:
        super().__init__()
        self.SelfAttention = Attention(d_model, d_kv, num_heads, has_bias)
        self.layer_norm = RMSNorm(d_model)

    def forward(self, x: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = x + self.SelfAttention(self.layer_norm(x), bias, mask)
        return out


class DenseLayer(nn.Module):
    """x + dense(norm(x))."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.DenseReluDense = GatedDense(d_model, d_ff)
        self.layer_norm = RMSNorm(d_model)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.DenseReluDense(self.layer_norm(x))
        return out


class Block(nn.Module):
    """Attention, then the dense layers."""

    def __init__(self, d_model: int, d_kv: int, d_ff: int, num_heads: int, has_bias: bool) -> None:
        super().__init__()
        attention = SelfAttentionLayer(d_model, d_kv, num_heads, has_bias)
        self.layer = nn.ModuleList([attention, DenseLayer(d_model, d_ff)])

    def forward(self, x: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
        attention, dense = self.parts()
        out: Tensor = dense(attention(x, bias, mask))
        return out

    def parts(self) -> tuple[SelfAttentionLayer, DenseLayer]:
        """Both layers, in the order in which they are run."""
        attention, dense = self.layer
        assert isinstance(attention, SelfAttentionLayer) and isinstance(dense, DenseLayer)
        return attention, dense


def _gelu(x: Tensor) -> Tensor:
    """By tanh, written out: PyTorch's fused form rounds otherwise."""
    inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))
    return 0.5 * x * (1.0 + torch.tanh(inner))


def _bucket(distance: Tensor) -> Tensor:
    """Of how far a key is from its query: one bucket for each small distance, then ever wider ones,
    and other buckets for keys that come after."""
    half = _BUCKETS // 2
    exact = half // 2
    after = (distance > 0).to(torch.long) * half
    distance = distance.abs()
    scaled = torch.log(distance.float() / exact) / math.log(_MAX_DISTANCE / exact) * (half - exact)
    wide = (exact + scaled.to(torch.long)).clamp(max=half - 1)
    return after + torch.where(distance < exact, distance, wide)
