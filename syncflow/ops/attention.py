"""Softmax attention over heads, by whichever route is fastest for the device and the lengths.

On a GPU that is what scaled_dot_product_attention picks, but where `attention_backends` has
measured something faster; SYNCFLOW_ATTENTION=NAME asks for one way everywhere.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from syncflow.ops import attention_backends as backends

# On the CPU, backward through scaled_dot_product_attention in bfloat16 takes longer than through
# two batched products with a softmax between. Beyond this many scores per head their memory is the
# worse price. In float32 the two are level, and scaled_dot_product_attention keeps no scores.
_MOST_SCORES = 512 * 512


def attention(q_BHLD: Tensor, k_BHMD: Tensor, v_BHMD: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(D) + mask) v.

    Args:
        q_BHLD, k_BHMD, v_BHMD: queries, keys and values of one dtype; any strides.
        mask: broadcastable to [B, H, L, M]; boolean (True: may attend) or float (added to the
            scores). What a query gets whose keys are all masked is undefined.

    Returns:
        [B, H, L, D], of q's dtype.
    """
    if q_BHLD.is_cuda:
        return _on_a_gpu(q_BHLD, k_BHMD, v_BHMD, mask)
    scores = q_BHLD.shape[-2] * k_BHMD.shape[-2]
    on_cpu = q_BHLD.device.type == "cpu"
    if on_cpu and q_BHLD.dtype == torch.bfloat16 and scores <= _MOST_SCORES:
        return attention_explicit(q_BHLD, k_BHMD, v_BHMD, mask)
    return F.scaled_dot_product_attention(q_BHLD, k_BHMD, v_BHMD, attn_mask=mask)


def _on_a_gpu(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    name = asked = backends.asked_for
    if asked == "auto":
        name = backends.preferred(q, k, v, mask)
    elif asked != "sdpa" and (why := backends.refusal(asked, q, k, v, mask)):
        backends.warn_once(asked, why)
        name = "sdpa"
    if name == "sdpa":
        return F.scaled_dot_product_attention(q, k, v, mask)
    if asked == "auto" or torch.compiler.is_compiling():
        return backends.run(name, q, k, v, mask)
    try:
        return backends.run(name, q, k, v, mask)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # what a package refuses is for it to say
        lines = str(error).strip().splitlines() or [type(error).__name__]
        backends.warn_once(name, lines[0][:120])
        return F.scaled_dot_product_attention(q, k, v, mask)


def attention_with_log_sum(
    q_BHLD: Tensor, k_BHMD: Tensor, v_BHMD: Tensor
) -> tuple[Tensor, Tensor] | None:
    """`attention` and the logarithm of every query's softmax denominator, [B, H, L] float32; None
    where flash attention, which tells it, does not take such operands or another was asked for. No
    gradient."""
    if backends.asked_for not in ("auto", "flash"):
        return None
    fits = q_BHLD.is_cuda and q_BHLD.dtype in (torch.bfloat16, torch.float16)
    if not fits or q_BHLD.shape[-1] % 8 or q_BHLD.shape[-1] > 256:
        return None
    out_BHLD, log_sum_BHL, *_ = torch.ops.aten._scaled_dot_product_flash_attention(
        q_BHLD, k_BHMD, v_BHMD, 0.0, False, False
    )
    return out_BHLD, log_sum_BHL


def attention_explicit(
    q_BHLD: Tensor, k_BHMD: Tensor, v_BHMD: Tensor, mask: Tensor | None = None
) -> Tensor:
    """`attention` as two batched matrix products around a softmax, the scores held in memory."""
    scores_BHLM = torch.matmul(q_BHLD * q_BHLD.shape[-1] ** -0.5, k_BHMD.transpose(-1, -2))
    if mask is not None:
        if mask.dtype == torch.bool:
            scores_BHLM = scores_BHLM.masked_fill(~mask, float("-inf"))
        else:
            scores_BHLM = scores_BHLM + mask
    return torch.matmul(scores_BHLM.softmax(-1).to(v_BHMD.dtype), v_BHMD)
