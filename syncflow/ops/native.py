"""The compiled extension: loading it, asking whether a call can use it, and saying why not.

A wrapper asks its `Operator` for the plan of a call: whether the kernel takes it, how, and through
which entry. Plans are kept by shapes, dtypes and device, so that a call that is like an earlier one
costs a look-up. Autograd has two ways in: outside the operator, where a wrapper is called and a
gradient is wanted (`torch.autograd.Function`), and inside it (`torch.library.register_autograd`),
for tracing and for whoever calls `torch.ops.syncflow` directly. What is called without a gradient
goes below autograd and pays for neither.
"""

import os
import warnings
from collections.abc import Callable, Hashable
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor
from torch.compiler import is_compiling

from syncflow import ops
from syncflow.ops import extension, verify

Out = TypeVar("Out")
Data = TypeVar("Data")

# Ops and their formulas have signatures of their own: that of an op is stated in csrc/bindings.cpp.
Kernel = Callable[..., Any]
Inputs = tuple[Any, ...]
Setup = Callable[[Any, Inputs, Any], None]
#: How a call goes to the kernel; see `Operator.plan`.
Plan = tuple[Callable[..., Out], Callable[..., None] | None, Data]

_DTYPES = frozenset((torch.float32, torch.bfloat16, torch.float16, torch.float64))


def _off_from_environment() -> dict[str, str]:
    names = os.environ.get("SYNCFLOW_OFF", "").replace(",", " ").split()
    return dict.fromkeys(names, "switched off by SYNCFLOW_OFF")


LOADED, _why_not = extension.load()
_DEVICES = extension.kernel_devices() if LOADED else {}
#: Operators whose kernels are not used, by name, and why.
_off = _off_from_environment()


def usable(name: str, x: Tensor, *tensors: Tensor | None) -> bool:
    """Whether the compiled op `name` takes these tensors now, by device, dtype and the switch.

    float64, which is there for checking gradients, does not mix with narrower types and has kernels
    on the CPU alone.
    """
    devices = _DEVICES.get(name)
    if not devices or name in _off or ops.reference_only():
        return False
    # One device for all is the dispatcher's to demand: it costs microseconds here.
    device = x.device.type
    if device not in devices:
        return False
    dtypes = {x.dtype, *[t.dtype for t in tensors if t is not None]}
    if torch.float64 in dtypes:
        return len(dtypes) == 1 and device == "cpu"
    return dtypes <= _DTYPES


def switch_off(name: str, why: str) -> None:
    """Use the twin of the op `name` from now on, in this process, and say so once."""
    if name not in _off:
        _off[name] = why
        warnings.warn(f"syncflow switches its kernel of {name} off: {why}", stacklevel=2)


def differentiable(*tensors: Tensor | None) -> bool:
    """Whether autograd will want a gradient of a result of these tensors."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


class Context(Protocol):
    """What autograd carries from an op's forward to its backward; formulas add what they need."""

    needs_input_grad: tuple[bool, ...]

    @property
    def saved_tensors(self) -> Inputs:
        """The tensors saved, None where None was."""

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep inputs or outputs of the op, and nothing computed between."""


class ContextWithEps(Context, Protocol):
    """Of an op that takes the number that keeps a norm's denominator from 0."""

    eps: float


def register(
    name: str,
    fake: Kernel,
    backward: Kernel,
    setup_context: Setup,
    backward_fake: Kernel | None = None,
) -> None:
    """Tell tracing and autograd about the compiled op `name`, where the extension has it.

    Args:
        fake, backward_fake: the outputs, uninitialised, of `name` and of `<name>_backward`, which
            computes its gradient; None where no compiled op does.
        backward, setup_context: as in `torch.library.register_autograd`.
    """
    if name not in _DEVICES:
        return
    op = f"syncflow::{name}"
    torch.library.register_fake(op, fake)
    torch.library.register_autograd(op, backward, setup_context=setup_context)
    _functions[name] = _function(name, backward, setup_context)
    if backward_fake is None:
        return
    torch.library.register_fake(f"{op}_backward", backward_fake)

    def refuse(ctx: object, *grads: Tensor) -> None:
        raise RuntimeError(
            f"{name} has no second derivative; compute it inside ops.reference_ops()"
        )

    torch.library.register_autograd(f"{op}_backward", refuse)


def register_fake(name: str, fake: Kernel) -> None:
    """Tell tracing about an op that has no gradient, where the extension has it."""
    if name in _DEVICES:
        torch.library.register_fake(f"syncflow::{name}", fake)


# Ways into an operator

_below_autograd = torch._C._AutoDispatchBelowAutograd
_transformed = torch._C._functorch.peek_interpreter_stack
_functions: dict[str, type[torch.autograd.Function]] = {}


def traced() -> bool:
    """Whether this call is being compiled, or seen by a transform of `torch.func`."""
    return is_compiling() or _transformed() is not None


def overload(name: str) -> Kernel:
    """The compiled op itself, autograd included; AttributeError where there is none."""
    op: Kernel = getattr(torch.ops.syncflow, name).default
    return op


def gradient(name: str, *given: object) -> Any:
    """What the compiled op `<name>_backward` makes of these; for the backward formulas.

    Autograd sees it where a second derivative may be asked for, which it then refuses.
    """
    op = overload(f"{name}_backward")
    if traced() or torch.is_grad_enabled():
        return op(*given)
    with _below_autograd():
        return op(*given)


def _without_gradient(name: str) -> Kernel:
    op = overload(name)

    def call(*given: object) -> object:
        with _below_autograd():
            return op(*given)

    return call


def _function(name: str, backward: Kernel, setup_context: Setup) -> type[torch.autograd.Function]:
    """Autograd around the compiled op `name`, not inside it."""
    call = _without_gradient(name)

    def forward(ctx: Context, *given: object) -> object:
        output = call(*given)
        setup_context(ctx, given, output)
        return output

    parts = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    return type(f"syncflow_{name}_", (torch.autograd.Function,), parts)


# Plans


#: What a call's plan is kept by: bytes of its tensors' shapes, dtypes and devices, and of whether
#: a gradient is wanted; None where it is not to be kept.
_plan_key = extension.plan_key(LOADED)
# Plans that an operator keeps; more than a model's calls and a training run's clip lengths need.
_MOST_PLANS = 256


class Operator(Generic[Data, Out]):
    """A compiled op as its wrapper calls it, and what is known of its calls so far.

    Args:
        name: of the op.
        plan: what a call needs beside the op, of the same arguments as `plan` below and its
            `extra`; raises ValueError for shapes that do not belong together. None says that this
            call is the twin's.
        gradient: whether the kernel serves where a gradient is wanted; by device type.
        problem: a small call of this one's kind, for `syncflow.ops.verify`; of the same arguments.
        inplace: name of the op that takes its first argument over.
    """

    def __init__(
        self,
        name: str,
        plan: Callable[..., Data | None],
        gradient: Callable[[str], bool] = lambda device: True,
        problem: Callable[..., verify.Problem] | None = None,
        inplace: str | None = None,
    ) -> None:
        self.name = name
        self.inplace = inplace
        self._make_plan = plan
        self._gradient = gradient
        self._problem = problem
        self._kept: dict[Hashable, Plan[Out, Data] | None] = {}
        self._seen_off: dict[str, str] = {}
        self._seen_devices: dict[str, frozenset[str]] | None = None
        self._op: Callable[..., Out] | None = overload(name) if name in _DEVICES else None
        self._inplace_op: Callable[..., None] | None = None
        if inplace is not None and inplace in _DEVICES:
            self._inplace_op = overload(inplace)
        # Below an autograd that knows nothing of an op there is nothing to be saved.
        below = name in _functions
        self._plain = _without_gradient(name) if self._op and below else self._op

    def plan(
        self, x: Tensor, *others: Tensor | None, extra: Hashable = None
    ) -> Plan[Out, Data] | None:
        """How the kernel takes a call with these tensors now; None where the twin must run.

        Returns:
            (call, inplace, data): `call` takes the op's arguments, as does `inplace`, the op that
            takes its first over, None where a gradient is wanted or there is none; `data` is what
            the operator's `plan` gave.
        """
        # In this order and by these means, since this is what every call pays.
        if is_compiling() or _transformed() is not None:
            return self._fresh((x, *others), extra)
        if ops._reference_only:
            return None
        if self._seen_off != _off or self._seen_devices is not _DEVICES:
            self._kept, self._seen_off, self._seen_devices = {}, dict(_off), _DEVICES
        key: Hashable = _plan_key(x, *others)
        if key is None:
            return self._fresh((x, *others), extra)
        if extra is not None:
            key = key, extra
        try:
            return self._kept[key]
        except KeyError:
            pass
        tensors: verify.Given = (x, *others)
        found, lasting = self._fresh(tensors, extra), True
        if found is not None:
            verdict = self._verified(tensors, extra, differentiable(*tensors))
            if verdict is verify.Verdict.WRONG:
                return None
            lasting = verdict is verify.Verdict.RIGHT
        if lasting and not torch._C._len_torch_dispatch_stack():
            if len(self._kept) >= _MOST_PLANS:
                self._kept = {}
            self._kept[key] = found
        return found

    def _verified(self, tensors: verify.Given, extra: Hashable, gradient: bool) -> verify.Verdict:
        if self._problem is None or tensors[0].device.type not in verify.DEVICES:
            return verify.Verdict.RIGHT
        problem = self._problem(*tensors) if extra is None else self._problem(*tensors, extra)
        verdict, why = verify.first_use(self.name, problem, tensors, gradient)
        if verdict is verify.Verdict.WRONG:
            switch_off(self.name, f"{why}, on {tensors[0].device} for {tensors[0].dtype}")
            if self.inplace is not None:
                _off.setdefault(self.inplace, _off[self.name])
        return verdict

    def _fresh(self, tensors: verify.Given, extra: Hashable) -> Plan[Out, Data] | None:
        given = tensors if extra is None else (*tensors, extra)
        data = self._make_plan(*given)
        wanted = differentiable(*tensors)
        if wanted and not self._gradient(tensors[0].device.type):
            return None
        if data is None or not usable(self.name, *tensors):
            return None
        if self._op is None or self._plain is None:  # not in what was loaded
            return None
        inplace = self._inplace_op if not wanted and self._has_inplace(tensors) else None
        if traced() or torch.is_inference_mode_enabled():
            return self._op, inplace, data
        if wanted:
            return _functions[self.name].apply, None, data
        return self._plain, inplace, data

    def _has_inplace(self, tensors: verify.Given) -> bool:
        return self.inplace is not None and usable(self.inplace, *tensors)


def in_use() -> tuple[bool, frozenset[str]]:
    """Which operators run as their twins now; what is captured under one answer is no other's."""
    return ops.reference_only(), frozenset(_off)


def status() -> dict[str, object]:
    """What `syncflow info` prints about the kernels.

    Keys: `loaded` (bool), `active` (loaded and not switched off), `reason` (why not, or ""),
        `path`, `torch_built`, `torch_running`, `cpu_capability` (what this machine runs),
        `cpu_built` (capabilities in the binary), `cuda_archs` (in the binary; empty for a CPU
        build), `compiler` and `off` (operators that are switched off, and why).
    """
    built = extension.built_with()
    path = extension.find()
    reason = _why_not
    if LOADED and ops.reference_only():
        reason = (
            "switched off by SYNCFLOW_OPS=reference"
            if os.environ.get("SYNCFLOW_OPS") == "reference"
            else "switched off by reference_ops()"
        )
    return {
        "loaded": LOADED,
        "active": LOADED and not ops.reference_only(),
        "reason": reason,
        "path": str(path) if path else None,
        "torch_built": built.get("torch"),
        "torch_running": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_built": built.get("cpu", []),
        "cuda_archs": built.get("cuda_archs", []),
        "compiler": built.get("compiler"),
        "off": dict(_off),
    }
