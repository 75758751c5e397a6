"""Attention of one sequence to another that was made before it, and may serve several.

    out = softmax(turn(q) k^T / sqrt(D) + term) v

Rows of queries come in draws: the K neighbours q[K b .. K b + K - 1] read one context b. A row may
have one key of its own beside the context's. turn rotates the pairs (i, i + D/2) of a query; keys
are given as they are met. Softmax is float32 (float64 for float64); the result has the dtype of q.
Neither the context's repetitions, nor its joining with a row's own key, nor the scores are written
to memory, masked keys are not read, and backward saves the inputs alone.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from syncflow.ops import native, verify
from syncflow.ops.attention import attention, attention_with_log_sum
from syncflow.ops.rotation import rotate, turned

KeysValues = tuple[Tensor, Tensor]


def cross_attention(
    q_RNHD: Tensor,
    keys_values: KeysValues,
    term_BM: Tensor | None = None,
    rotation_NP2: Tensor | None = None,
    own: KeysValues | None = None,
) -> Tensor:
    """Attention of R = K * B rows of queries to B contexts.

    Takes q over: where nothing needs a gradient, its memory may hold the turned queries.

    Args:
        q_RNHD: queries [R, N, H, D].
        keys_values: of the contexts, each [B, H, M, D].
        term_BM: added to the scores of a key, float, without a gradient; where some key of a
            context has none below -1e30, keys with one below it are not read.
        rotation_NP2: a table of `syncflow.ops.rotation`, [N, D/2, 2].
        own: one more key and value for each row, each [R, H, 1, D].

    Returns:
        [R, N, H * D].
    """
    own_key_value: KeysValues | tuple[None, None] = own or (None, None)
    given = (q_RNHD, *keys_values, *own_key_value, term_BM, rotation_NP2)
    plan = _CROSS_ATTENTION.plan(*given)
    if plan is not None:
        return plan[0](*given)
    around = _ATTEND_OWN.plan(*given)
    if around is not None:
        return _around_a_library(around[0], q_RNHD, keys_values, term_BM, rotation_NP2, own)
    return cross_attention_reference(q_RNHD, keys_values, term_BM, rotation_NP2, own)


def _around_a_library(
    attend_own_: Callable[..., None],
    q_RNHD: Tensor,
    keys_values: KeysValues,
    term_BM: Tensor | None,
    rotation_NP2: Tensor | None,
    own: KeysValues | None,
) -> Tensor:
    """On a GPU without a gradient: a library's attention to the contexts, the draws of each as more
    queries of it, and a row's own key added to its result."""
    if rotation_NP2 is not None:
        q_RNHD = turned(q_RNHD, rotation_NP2, False)
    R, N, H, D = q_RNHD.shape
    B = len(keys_values[0])
    k_BHMD, v_BHMD = keys_values = _as(q_RNHD.dtype, keys_values)
    if own is None or term_BM is not None or not B:
        return cross_attention_reference(q_RNHD, keys_values, term_BM, None, own)
    folded_BHLD = q_RNHD.reshape(B, -1, H, D).transpose(1, 2)
    found = attention_with_log_sum(folded_BHLD, k_BHMD, v_BHMD)
    if found is None:
        return cross_attention_reference(q_RNHD, keys_values, None, None, own)
    out_BHLD, log_sum_BHL = found
    out_RNHD = out_BHLD.transpose(1, 2).reshape(R, N, H, D)
    own_k_RHD, own_v_RHD = (x.squeeze(2) for x in own)
    attend_own_(out_RNHD, log_sum_BHL, q_RNHD, own_k_RHD, own_v_RHD, D**-0.5)
    return out_RNHD.flatten(2)


def cross_attention_reference(
    q_RNHD: Tensor,
    keys_values: KeysValues,
    term_BM: Tensor | None = None,
    rotation_NP2: Tensor | None = None,
    own: KeysValues | None = None,
) -> Tensor:
    """`cross_attention` in plain PyTorch."""
    k_BHMD, v_BHMD = keys_values
    own_k, own_v = own or (None, None)
    _check(q_RNHD, k_BHMD, v_BHMD, own_k, own_v, term_BM, rotation_NP2)
    R, N, H, D = q_RNHD.shape
    B, dtype = len(k_BHMD), q_RNHD.dtype
    if rotation_NP2 is not None:
        q_RNHD = rotate(q_RNHD, rotation_NP2, False).to(dtype)
    k_BHMD, v_BHMD = _as(dtype, keys_values)
    mask = None
    if term_BM is not None:
        mask = term_BM.to(dtype)[:, None, None]
    if own is not None:
        k_BHMD, v_BHMD = (
            torch.cat([x if R == B else x.repeat_interleave(R // B, 0), y.to(dtype)], dim=2)
            for x, y in ((k_BHMD, own[0]), (v_BHMD, own[1]))
        )
        if mask is not None:
            mask = torch.nn.functional.pad(mask.repeat_interleave(R // B, 0), (0, 1))
    elif R:
        q_RNHD = q_RNHD.reshape(B, -1, H, D)
    out_BHND = attention(q_RNHD.transpose(1, 2), k_BHMD, v_BHMD, mask)
    return out_BHND.transpose(1, 2).reshape(R, N, H * D)


def _as(dtype: torch.dtype, keys_values: KeysValues) -> KeysValues:
    return keys_values[0].to(dtype), keys_values[1].to(dtype)


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    own_k: Tensor | None,
    own_v: Tensor | None,
    term: Tensor | None,
    rotation: Tensor | None,
) -> None:
    if q.ndim != 4 or k.ndim != 4:
        raise ValueError(
            f"q must be [R, N, H, D] and k [B, H, M, D], not {tuple(q.shape)}, {tuple(k.shape)}"
        )
    (R, N, H, D), (B, _, M, _) = q.shape, k.shape
    if R % B if B else R:
        raise ValueError(f"{R} rows of queries cannot be shared out among {B} contexts")
    wanted = {
        "k": (k, (B, H, M, D)),
        "v": (v, (B, H, M, D)),
        "own k": (own_k, (R, H, 1, D)),
        "own v": (own_v, (R, H, 1, D)),
        "term": (term, (B, M)),
        "rotation": (rotation, (N, D // 2, 2)),
    }
    for name, (tensor, shape) in wanted.items():
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"{name} of shape {tuple(tensor.shape)} must be {shape}")
    if rotation is not None and D % 2:
        raise ValueError(f"the head dimension must be even for rotary pairs, not {D}")


def _save(ctx: native.Context, inputs: native.Inputs, output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: native.Context, grad: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    grads = native.gradient("cross_attention", grad, *saved)
    return *(None if t is None else g for g, t in zip(grads, saved, strict=False)), None, None


def _backward_fake(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    own_k: Tensor | None,
    own_v: Tensor | None,
    *rest: Tensor | None,
) -> tuple[Tensor, ...]:
    shapes = (t.shape if t is not None else (0,) for t in (q, k, v, own_k, own_v))
    like = (t if t is not None else q for t in (q, k, v, own_k, own_v))
    return tuple(t.new_empty(shape) for t, shape in zip(like, shapes, strict=True))


native.register(
    "cross_attention",
    fake=lambda q, *rest: q.new_empty(*q.shape[:2], q.shape[2] * q.shape[3]),
    backward=_backward,
    setup_context=_save,
    backward_fake=_backward_fake,
)
native.register_fake("attend_own_", lambda *arguments: None)


def _plan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    own_k: Tensor | None,
    own_v: Tensor | None,
    term: Tensor | None,
    rotation: Tensor | None,
) -> tuple[()]:
    _check(q, k, v, own_k, own_v, term, rotation)
    return ()


def _problem(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    own_k: Tensor | None,
    own_v: Tensor | None,
    term: Tensor | None,
    rotation: Tensor | None,
) -> verify.Problem:
    """Two rows of five queries that read one context of nine keys."""
    D = q.shape[3]
    shapes = [
        *((2, 5, 2, D), (1, 2, 9, D), (1, 2, 9, D)),
        *(None if t is None else (2, 2, 1, D) for t in (own_k, own_v)),
        None if term is None else (1, 9),
        None if rotation is None else (5, D // 2, 2),
    ]
    return verify.Problem(shapes, _packed(cross_attention), _packed(cross_attention_reference))


def _packed(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An attention above as a function of the op's tensors."""

    def call(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        own_k: Tensor | None,
        own_v: Tensor | None,
        term: Tensor | None,
        rotation: Tensor | None,
    ) -> Tensor:
        own = None if own_k is None else (own_k, own_v)
        term = None if term is None else term.detach()
        return function(q, (k, v), term, rotation, own)

    return call


_CROSS_ATTENTION: native.Operator[tuple[()], Tensor] = native.Operator(
    "cross_attention", _plan, problem=_problem
)
_ATTEND_OWN: native.Operator[tuple[()], None] = native.Operator(
    "attend_own_", _plan, gradient=lambda device: False, problem=_problem
)
