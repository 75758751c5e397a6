"""A sampler's step: classifier-free guidance and the solver's update in one pass.

    x + h v,  v = null + guidance (conditional - null)

Arithmetic is float32 (float64 for float64); the result has the dtype of x. The kernel has no
gradient: where one is needed the twin runs.
"""

from functools import partial

from torch import Tensor

from syncflow.ops import native, verify


def euler_cfg(
    x: Tensor, conditional: Tensor, null: Tensor | None, guidance: float, h: float
) -> Tensor:
    """The state after a step h; all tensors of one shape. null=None: v is `conditional`."""
    plan = _EULER_CFG.plan(x, conditional, null)
    if plan is None:
        return euler_cfg_reference(x, conditional, null, guidance, h)
    return plan[0](x, conditional, null, guidance, h)


def euler_cfg_reference(
    x: Tensor, conditional: Tensor, null: Tensor | None, guidance: float, h: float
) -> Tensor:
    """`euler_cfg` in plain PyTorch."""
    _check(x, conditional, null)
    v = conditional if null is None else null + guidance * (conditional - null)
    return (x + h * v).to(x.dtype)


def _check(x: Tensor, conditional: Tensor, null: Tensor | None) -> None:
    for name, v in (("conditional", conditional), ("null", null)):
        if v is not None and v.shape != x.shape:
            raise ValueError(f"{name} of shape {tuple(v.shape)} must be {tuple(x.shape)}, as x is")


native.register_fake("euler_cfg", lambda x, *rest: x.new_empty(x.shape))


def _plan(x: Tensor, conditional: Tensor, null: Tensor | None) -> tuple[()]:
    _check(x, conditional, null)
    return ()


def _problem(x: Tensor, conditional: Tensor, null: Tensor | None) -> verify.Problem:
    shapes = [None if t is None else (5, 67) for t in (x, conditional, null)]
    return verify.Problem(
        shapes,
        kernel=partial(euler_cfg, guidance=6.0, h=0.02),
        twin=partial(euler_cfg_reference, guidance=6.0, h=0.02),
    )


_EULER_CFG: native.Operator[tuple[()], Tensor] = native.Operator(
    "euler_cfg", _plan, gradient=lambda device: False, problem=_problem
)
