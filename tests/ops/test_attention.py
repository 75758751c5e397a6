"""Both routes of `attention`, and temporal attention against plain per-head formulas."""

import math

import pytest
import torch

from syncflow.ops.attention import attention, attention_explicit
from syncflow.ops.temporal_attention import temporal_attention, temporal_attention_reference


def softmax_attention(q, k, v, mask=None):
    scores = q.double() @ k.double().transpose(-1, -2) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = (
            scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        )
    return scores.softmax(-1) @ v.double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("L", "M"), [(1, 1), (5, 9), (97, 130)])
@pytest.mark.parametrize("kind", ["none", "bool", "float"])
@pytest.mark.parametrize("route", [attention, attention_explicit])
def test_attention(dtype, L, M, kind, route):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, n, 3, 24).to(dtype).transpose(1, 2) for n in (L, M, M))
    mask = None
    if kind != "none":
        mask = torch.rand(2, 1, 1, M) < 0.6
        mask[..., 0] = True
    if kind == "float":
        mask = torch.where(mask, 0.0, -1e4).to(dtype)
    out = route(q, k, v, mask)
    assert out.dtype == dtype and out.shape == (2, 3, L, 24)
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(
        out.double(), softmax_attention(q, k, v, mask), rtol=0, atol=tolerance
    )


def temporal_by_hand(qkv, q_weight, k_weight, theta=1e4, eps=1e-6):
    """One head of one place at a time, rotations as complex numbers, in float64."""
    qkv = qkv.double()
    B, T, S, _, H, D = qkv.shape
    turns = torch.arange(T)[:, None] * theta ** (-torch.arange(0, D, 2).double() / D)
    turns = torch.polar(torch.ones_like(turns), turns)

    def prepare(x_TD, weight):
        if weight is not None:
            x_TD = x_TD / (x_TD.square().mean(-1, keepdim=True) + eps).sqrt() * weight.double()
        return torch.view_as_real(
            torch.view_as_complex(x_TD.reshape(T, D // 2, 2)) * turns
        ).flatten(1)

    out = torch.empty(B, T, S, H, D, dtype=torch.float64)
    for b in range(B):
        for s in range(S):
            for h in range(H):
                q, k, v = qkv[b, :, s, :, h].unbind(1)
                q, k = prepare(q, q_weight), prepare(k, k_weight)
                out[b, :, s, h] = softmax_attention(q, k, v)
    return out.flatten(3)


SHAPES = [(1, 1, 1, 1, 2), (2, 8, 3, 2, 32), (1, 5, 2, 3, 72), (2, 20, 1, 2, 10), (1, 33, 2, 1, 64)]


@pytest.mark.parametrize("route", [temporal_attention, temporal_attention_reference])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_temporal_attention(route, shape, norm, dtype):
    torch.manual_seed(0)
    B, T, S, H, D = shape
    qkv = torch.randn(B, T, S, 3, H, D).to(dtype)
    weights = torch.rand(2, D).add(0.5).to(dtype) if norm else (None, None)
    out = route(qkv, *weights)
    assert out.dtype == dtype and out.shape == (B, T, S, H * D)
    tolerance = {torch.float32: 2e-5, torch.bfloat16: 6e-2, torch.float16: 8e-3}[dtype]
    expected = temporal_by_hand(qkv, *weights)
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=tolerance)


def test_temporal_attention_sees_order():
    """Rotary positions count: frames in another order are not just the results in that order."""
    torch.manual_seed(0)
    qkv, one = torch.randn(1, 6, 1, 3, 1, 8), torch.ones(8)
    out, back = temporal_attention(qkv, one, one), temporal_attention(qkv.flip(1), one, one)
    # Reversed time reverses every angle; only a first frame alone would be blind to it.
    assert (out - back.flip(1)).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("shape", "weight", "message"),
    [
        ((1, 2, 3, 2, 1, 4), 4, "must be"),
        ((1, 2, 3, 3, 1, 5), 5, "must be even, not 5|even for rotary pairs, not 5"),
        ((1, 2, 3, 3, 1, 4), 6, "q_weight of shape"),
    ],
)
def test_temporal_attention_names_what_is_wrong(shape, weight, message):
    with pytest.raises(ValueError, match=message):
        temporal_attention(torch.zeros(shape), torch.ones(weight), torch.ones(weight))
