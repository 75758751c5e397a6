"""Self-attention on a packed projection, by whichever route is fastest for device and length."""

from torch import Tensor

from syncflow.ops import native
from syncflow.ops.attention import attention
from syncflow.ops.qk_norm_rope import check_packed, qk_norm_rope
from syncflow.ops.rotation import turned

# Up to this many tokens the CPU's kernel of `temporal_attention`, which holds a head's whole
# sequence in cache, is faster than norm, rotation and a library's attention one after another.
_SHORT = 128


def self_attention(
    qkv_BN3HD: Tensor,
    q_weight_D: Tensor | None = None,
    k_weight_D: Tensor | None = None,
    rotation_NP2: Tensor | None = None,
    interleaved: bool = True,
    eps: float = 1e-6,
) -> Tensor:
    """softmax(q k^T / sqrt(D)) v over N, of q and k as `qk_norm_rope` makes them.

    Takes qkv over, as `qk_norm_rope` does; arguments are that function's.

    Returns:
        [B, N, H * D], of the dtype of qkv.
    """
    given = (qkv_BN3HD, q_weight_D, k_weight_D, rotation_NP2)
    plan = _SHORT_ATTENTION.plan(*given)
    if plan is not None:
        # N tokens of one place each: attention along N in place of T.
        out_BN1C = plan[0](qkv_BN3HD.unsqueeze(2), *given[1:], interleaved, eps)
        return out_BN1C.squeeze(2)
    if q_weight_D is None and k_weight_D is None and rotation_NP2 is not None and not interleaved:
        parts_BNHD = _turned(qkv_BN3HD, rotation_NP2)
    else:
        parts_BNHD = qk_norm_rope(*given, interleaved, eps).unbind(2)
    q_BHND, k_BHND, v_BHND = (x_BNHD.transpose(1, 2) for x_BNHD in parts_BNHD)
    out_BHND = attention(q_BHND, k_BHND, v_BHND)
    return out_BHND.transpose(1, 2).flatten(2)


def _turned(qkv_BN3HD: Tensor, rotation_NP2: Tensor) -> tuple[Tensor, ...]:
    """Queries, keys and values, the first two turned, as heads of one tensor."""
    check_packed(qkv_BN3HD, None, None, rotation_NP2)
    if not native.usable("rotate_", qkv_BN3HD, rotation_NP2) or native.differentiable(qkv_BN3HD):
        return qk_norm_rope(qkv_BN3HD, None, None, rotation_NP2, False).unbind(2)
    both_BNHD = turned(qkv_BN3HD[:, :, :2].flatten(2, 3), rotation_NP2, False)
    return *both_BNHD.unflatten(2, (2, -1)).unbind(2), qkv_BN3HD[:, :, 2]


def _plan(
    qkv_BN3HD: Tensor, q_weight_D: Tensor | None, k_weight_D: Tensor | None, rotation: Tensor | None
) -> tuple[()] | None:
    """None where the sequence is long, or on a device with better ways."""
    check_packed(qkv_BN3HD, q_weight_D, k_weight_D, rotation)
    short = qkv_BN3HD.device.type == "cpu" and qkv_BN3HD.shape[1] <= _SHORT
    return () if short else None


_SHORT_ATTENTION: native.Operator[tuple[()], Tensor] = native.Operator("temporal_attention", _plan)
