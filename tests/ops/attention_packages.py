"""Stand-ins for packages of attention kernels, and tensors that pass for a GPU's."""

import torch
import torch.nn.functional as F
from torch import Tensor


def heads_first(*tensors: Tensor) -> list[Tensor]:
    return [x.transpose(1, 2) for x in tensors]


class OnGpu(torch.Tensor):
    """A CPU tensor whose is_cuda is true."""

    is_cuda = True

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunctionSubclass():
            out = function(*args, **(kwargs or {}))
        return out.as_subclass(cls) if isinstance(out, Tensor) else out


def operands(L=5, M=9, D=24, dtype=torch.bfloat16) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, n, 3, D).to(dtype).transpose(1, 2) for n in (L, M, M)]


def on_gpu(tensors: list[Tensor]) -> list[Tensor]:
    return [x.as_subclass(OnGpu) for x in tensors]


def flash_attn_2(
    q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0,
    alibi_slopes=None, deterministic=False, return_attn_probs=False,
):  # fmt: skip
    assert dropout_p == 0 and not causal and not return_attn_probs
    out = F.scaled_dot_product_attention(*heads_first(q, k, v), scale=softmax_scale)
    return out.transpose(1, 2)


def flash_attn_3(
    q, k, v, softmax_scale=None, causal=False, qv=None, q_descale=None, k_descale=None,
    v_descale=None, window_size=(-1, -1), attention_chunk=0, softcap=0.0, num_splits=1,
    pack_gqa=None, deterministic=False, sm_margin=0, return_attn_probs=False,
):  # fmt: skip
    return flash_attn_2(q, k, v, 0.0, softmax_scale, causal)


def flash_attn_4(
    q, k, v, softmax_scale=None, causal=False, window_size=(None, None), learnable_sink=None,
    softcap=0.0, num_splits=1, pack_gqa=None, deterministic=False, return_lse=False,
):  # fmt: skip
    return flash_attn_2(q, k, v, 0.0, softmax_scale, causal), None


def memory_efficient_attention(query, key, value, attn_bias=None, p=0.0, scale=None, *, op=None):
    assert p == 0
    if attn_bias is not None:
        B, M, H, _ = query.shape
        assert attn_bias.shape == (B, H, M, key.shape[1]) and attn_bias.dtype == query.dtype
        rows = [s for s, n in zip(attn_bias.stride(), attn_bias.shape, strict=True) if s > 1]
        assert all(s % 8 == 0 for s in rows), "rows must be a multiple of 8 numbers apart"
    q, k, v = heads_first(query, key, value)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=attn_bias, scale=scale).transpose(1, 2)


FAKES = {
    "flash-attn-2": flash_attn_2,
    "flash-attn-3": flash_attn_3,
    "flash-attn-4": flash_attn_4,
    "xformers": memory_efficient_attention,
}
