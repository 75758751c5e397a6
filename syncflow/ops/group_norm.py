"""Group normalisation and SiLU of activations [N, C, ...], as decoders of pictures have them.

z = x + add + before (either may be absent), then a = (z - mean) / sqrt(var + eps) * weight + bias
over groups of neighbouring channels, then a sigmoid(a). On CUDA there is a kernel where x lies
channels-last, as the convolutions want it, and nothing needs a gradient. PyTorch's own takes
channels-first alone: it changes the layout there and back, beside the passes for bias, sum and
SiLU.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from syncflow.ops import native, verify

_MOST_CHANNELS = 4096

Both = tuple[Tensor, Tensor]  # the sum, which may be left empty, and its norm
Kind = tuple[int, bool]  # groups, and whether x is given by its phases


def group_norm_silu(
    x: Tensor,
    groups: int,
    weight_C: Tensor,
    bias_C: Tensor,
    eps: float = 1e-5,
    *,
    silu: bool = True,
    before_C: Tensor | None = None,
    front: int = 0,
) -> Tensor:
    """The normed x + before, of x's dtype; ``front`` zeros are put before its third axis."""
    call = _kernel(x, None, before_C, weight_C, bias_C, groups)
    if call is not None:
        space = x.shape[2:]
        per_row = space[1:].numel()
        _, out = call(
            _rows(x), None, before_C, weight_C, bias_C, groups, eps, silu, False, front * per_row, 0
        )
        return _picture(out, torch.Size((front + space[0], *space[1:])))
    return group_norm_silu_reference(
        x, groups, weight_C, bias_C, eps, silu=silu, before_C=before_C, front=front
    )


def group_norm_silu_reference(
    x: Tensor,
    groups: int,
    weight_C: Tensor,
    bias_C: Tensor,
    eps: float = 1e-5,
    *,
    silu: bool = True,
    before_C: Tensor | None = None,
    front: int = 0,
) -> Tensor:
    """`group_norm_silu` in plain PyTorch."""
    if before_C is not None:
        x = x + _over_channels(before_C, x)
    out = F.group_norm(x, groups, weight_C, bias_C, eps)
    if silu:
        out = F.silu(out)
    return F.pad(out, (0, 0) * (out.ndim - 3) + (front, 0)) if front else out


def sum_group_norm_silu(
    x: Tensor,
    add: Tensor | None,
    before_C: Tensor | None,
    groups: int,
    weight_C: Tensor,
    bias_C: Tensor,
    eps: float = 1e-5,
    *,
    silu: bool = True,
) -> tuple[Tensor, Tensor]:
    """(x + add + before, its norm): the sum is read once less than by two calls."""
    call = _kernel(x, add, before_C, weight_C, bias_C, groups)
    if call is not None:
        added = None if add is None else _rows(add)
        total, out = call(
            _rows(x), added, before_C, weight_C, bias_C, groups, eps, silu, True, 0, 0
        )
        return _picture(total, x.shape[2:]), _picture(out, x.shape[2:])
    return sum_group_norm_silu_reference(x, add, before_C, groups, weight_C, bias_C, eps, silu=silu)


def sum_group_norm_silu_reference(
    x: Tensor,
    add: Tensor | None,
    before_C: Tensor | None,
    groups: int,
    weight_C: Tensor,
    bias_C: Tensor,
    eps: float = 1e-5,
    *,
    silu: bool = True,
) -> tuple[Tensor, Tensor]:
    """`sum_group_norm_silu` in plain PyTorch."""
    if before_C is not None:
        x = x + _over_channels(before_C, x)
    total = x if add is None else x + add
    return total, group_norm_silu_reference(total, groups, weight_C, bias_C, eps, silu=silu)


def phases_group_norm_silu(
    x: Tensor,
    before_C: Tensor | None,
    groups: int,
    weight_C: Tensor,
    bias_C: Tensor,
    eps: float = 1e-5,
    *,
    silu: bool = True,
) -> tuple[Tensor, Tensor]:
    """`sum_group_norm_silu` of a picture twice as high and wide, given by its phases.

    Args:
        x: [N, 2 * 2 * C, h + 1, w + 1]; phase (a, b) of place (i, j) is at (i + a, j + b).

    Returns:
        both [N, C, 2 h, 2 w].
    """
    h, w = x.shape[2] - 1, x.shape[3] - 1
    call = _kernel(x, None, before_C, weight_C, bias_C, groups, phases=True)
    if call is not None:
        total, out = call(
            _rows(x), None, before_C, weight_C, bias_C, groups, eps, silu, True, 0, 2 * w
        )
        size = torch.Size((2 * h, 2 * w))
        return _picture(total, size), _picture(out, size)
    z = _of_phases(x)
    return sum_group_norm_silu(z, None, before_C, groups, weight_C, bias_C, eps, silu=silu)


def phases_group_norm_silu_reference(
    x: Tensor,
    before_C: Tensor | None,
    groups: int,
    weight_C: Tensor,
    bias_C: Tensor,
    eps: float = 1e-5,
    *,
    silu: bool = True,
) -> tuple[Tensor, Tensor]:
    """`phases_group_norm_silu` in plain PyTorch."""
    return sum_group_norm_silu_reference(
        _of_phases(x), None, before_C, groups, weight_C, bias_C, eps, silu=silu
    )


def _of_phases(x: Tensor) -> Tensor:
    """[N, 2 * 2 * C, h + 1, w + 1] -> [N, C, 2 h, 2 w], channels-last."""
    N, C, h, w = x.shape[0], x.shape[1] // 4, x.shape[2] - 1, x.shape[3] - 1
    z = x.new_empty(N, h, 2, w, 2, C)
    by_phase = x.movedim(1, -1).unflatten(-1, (2, 2, C))
    for a in range(2):
        for b in range(2):
            z[:, :, a, :, b] = by_phase[:, a : a + h, b : b + w, a, b]
    return z.view(N, 2 * h, 2 * w, C).movedim(-1, 1)


def _kernel(
    x: Tensor,
    add: Tensor | None,
    before_C: Tensor | None,
    weight_C: Tensor,
    bias_C: Tensor,
    groups: int,
    phases: bool = False,
) -> Callable[..., Both] | None:
    """The compiled op where it takes these, else None."""
    if not _channels_last(x) or (add is not None and not _channels_last(add)):
        return None
    plan = _GROUP_NORM.plan(x, add, before_C, weight_C, bias_C, extra=(groups, phases))
    return None if plan is None else plan[0]


def _channels_last(x: Tensor) -> bool:
    return x.movedim(1, -1).is_contiguous()


def _rows(x: Tensor) -> Tensor:
    return x.movedim(1, -1).flatten(1, -2)


def _picture(rows_NLC: Tensor, space: torch.Size) -> Tensor:
    picture: Tensor = rows_NLC.unflatten(1, space).movedim(-1, 1)
    return picture


def _over_channels(values_C: Tensor, x: Tensor) -> Tensor:
    return values_C.to(x.dtype).view(-1, *(1,) * (x.ndim - 2))


def _fake(
    x: Tensor,
    add: Tensor | None,
    before: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    silu: bool,
    keep: bool,
    front: int,
    width: int,
) -> Both:
    N, L, C = x.shape
    if width:
        L, C = (L // (width // 2 + 1) - 1) * 2 * width, C // 4
    stored = keep or add is not None or width
    return x.new_empty(N if stored else 0, L, C), x.new_empty(N, front + L, C)


native.register_fake("group_norm_silu", _fake)


def _plan(
    x: Tensor, add: Tensor | None, before: Tensor | None, weight: Tensor, bias: Tensor, extra: Kind
) -> tuple[()] | None:
    groups, phases = extra
    C = x.shape[1] // 4 if phases else x.shape[1]
    if add is not None and add.shape != x.shape:
        raise ValueError(f"add of shape {tuple(add.shape)} must be {tuple(x.shape)}, as x is")
    fits = x.ndim > 2 and x.numel() > 0 and C <= _MOST_CHANNELS and groups > 0 and C % groups == 0
    return () if fits else None


def _problem(
    x: Tensor, add: Tensor | None, before: Tensor | None, weight: Tensor, bias: Tensor, extra: Kind
) -> verify.Problem:
    groups, phases = extra
    picture = (2, x.shape[1], 4, 5)
    small = tuple(weight.shape)
    shapes = [picture, None if add is None else picture, None if before is None else small]

    def run(
        x: Tensor, add: Tensor | None, before: Tensor | None, w: Tensor, b: Tensor
    ) -> tuple[Tensor, ...]:
        x = x.contiguous(memory_format=torch.channels_last)
        add = None if add is None else add.contiguous(memory_format=torch.channels_last)
        if phases:
            return phases_group_norm_silu(x, before, groups, w, b)
        both = sum_group_norm_silu(x, add, before, groups, w, b)
        return (*both, group_norm_silu(x, groups, w, b, before_C=before, front=1))

    def twin(
        x: Tensor, add: Tensor | None, before: Tensor | None, w: Tensor, b: Tensor
    ) -> tuple[Tensor, ...]:
        if phases:
            return phases_group_norm_silu_reference(x, before, groups, w, b)
        both = sum_group_norm_silu_reference(x, add, before, groups, w, b)
        return (*both, group_norm_silu_reference(x, groups, w, b, before_C=before, front=1))

    return verify.Problem([*shapes, small, small], kernel=run, twin=twin, kind=extra)


_GROUP_NORM: native.Operator[tuple[()], Both] = native.Operator(
    "group_norm_silu", _plan, gradient=lambda device: False, problem=_problem
)
