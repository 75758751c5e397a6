"""Modulation tensors and what they modulate: which shapes belong together, and as what rows the
kernels take them.

x is [B, ..., C]; a modulation (shift, scale, gate) is [B, C] or [B, T, C], as `syncflow.ops.adaln`
says. The kernels see x as [G, S, C], G groups of S tokens, and each modulation as [G, C].
"""

from math import prod

from torch import Tensor

# The plan of a call: () where the shapes are the kernel's own, else what to make of them. A view
# costs as much as the rest of a small call.

Shape = tuple[int, ...]
#: How a modulation becomes [G, C]: a view of it, expanded, and made rows; None: as it is.
Rows = tuple[Shape, Shape, Shape] | None
#: () or the shape [G, S, C] of x, and how each modulation becomes [G, C].
Grouping = tuple[()] | tuple[Shape, list[Rows]]


def check_modulation(x: Tensor, **tensors: Tensor | None) -> None:
    """Raises ValueError, with the name, for a tensor that does not modulate x [B, ..., C]."""
    right = None
    for name, m in tensors.items():
        # The usual case first: at small sizes these checks cost as much as the kernel.
        if m is None or m.shape == right:
            continue
        fits = 1 <= m.ndim <= x.ndim and m.shape[-1] == x.shape[-1]
        if fits and m.shape[:-1] == x.shape[: m.ndim - 1]:
            right = m.shape
            continue
        if not fits or any(a not in (1, b) for a, b in zip(m.shape[:-1], x.shape, strict=False)):
            raise ValueError(
                f"{name} of shape {tuple(m.shape)} does not modulate x of shape {tuple(x.shape)}: "
                f"its last axis must be x's, and each axis before it x's own, from the left, or 1"
            )


def check_same_shape(x: Tensor, y: Tensor) -> None:
    """Raises ValueError where two tensors to be added differ in shape."""
    if x.shape != y.shape:
        raise ValueError(f"x {tuple(x.shape)} and y {tuple(y.shape)} must have one shape")


def check_affine(x: Tensor, **tensors: Tensor) -> None:
    """Raises ValueError, with the name, for a weight or bias that is not [C], x being [..., C]."""
    for name, w in tensors.items():
        if w.shape != x.shape[-1:]:
            raise ValueError(
                f"{name} of shape {tuple(w.shape)} must be [{x.shape[-1]}], the last axis of x"
            )


def over_tokens(m: Tensor, x: Tensor) -> Tensor:
    """m [B, C] or [B, T, C] with the token axes that x has and m lacks, each of length 1."""
    return m.reshape(*m.shape[:-1], *(1,) * (x.ndim - m.ndim), m.shape[-1])


def grouped(x: Tensor, **modulations: Tensor | None) -> Grouping:
    """(G, S, C) for x and how each modulation becomes [G, C]: a group shares one modulation row."""
    check_modulation(x, **modulations)
    shapes = {m.shape for m in modulations.values() if m is not None}
    if len(shapes) == 1:
        (shape,) = shapes
        if len(shape) == 2 and shape[0] == x.shape[0] and x.ndim > 2:
            if x.ndim == 3:
                return ()
            return (shape[0], prod(x.shape[1:-1]), shape[1]), [None] * len(modulations)
    depth = 0  # how many leading axes of x tell modulation rows apart
    for m in modulations.values():
        if m is not None:
            depth = max([depth] + [axis + 1 for axis, n in enumerate(m.shape[:-1]) if n != 1])
    lead, channels = tuple(x.shape[:depth]), x.shape[-1]
    rows: list[Rows] = []
    for m in modulations.values():
        row = None
        if m is not None:
            view = (*m.shape[:-1][:depth], *(1,) * max(0, depth - m.ndim + 1), channels)
            row = (view, (*lead, channels), (prod(lead), channels))
        rows.append(row)
    return (prod(lead), prod(x.shape[depth:-1]), channels), rows


def spread(rows: list[Rows], *modulations: Tensor | None) -> list[Tensor | None]:
    """Each modulation as [G, C]."""
    return [
        m if row is None or m is None else m.reshape(row[0]).expand(row[1]).reshape(row[2])
        for m, row in zip(modulations, rows, strict=True)
    ]
