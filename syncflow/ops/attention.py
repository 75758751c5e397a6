"""Softmax attention over heads, by whichever route is fastest for the device and the lengths."""

import torch
import torch.nn.functional as F
from torch import Tensor

# Below this many scores per head, the CPU kernel of scaled_dot_product_attention spends more on its own book-keeping than
# on arithmetic (its backward most of all); three batched products win. `benchmarks/kernels.py attention` measures it.
_SHORT = 256 * 256


def attention(q_BHLD: Tensor, k_BHMD: Tensor, v_BHMD: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(D) + mask) v.

    Args:
        q_BHLD, k_BHMD, v_BHMD: queries, keys and values; any strides.
        mask: broadcastable to [B, H, L, M]; boolean (True: may attend) or float (added to the scores). A row that is
            masked whole has no meaning.

    Returns:
        [B, H, L, D], of q's dtype.
    """
    length = q_BHLD.shape[-2] * k_BHMD.shape[-2]
    if q_BHLD.device.type == "cpu" and length <= _SHORT:
        return attention_explicit(q_BHLD, k_BHMD, v_BHMD, mask)
    return F.scaled_dot_product_attention(q_BHLD, k_BHMD, v_BHMD, attn_mask=mask)


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
