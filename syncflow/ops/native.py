"""The compiled extension: loading it, asking whether a call can use it, and saying why not."""

import importlib.machinery
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from syncflow import ops

_PACKAGE = Path(__file__).resolve().parent.parent
_DTYPES = frozenset((torch.float32, torch.bfloat16, torch.float16, torch.float64))


def _find() -> Path | None:
    """The extension built for this interpreter; None where there is none."""
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = _PACKAGE / f"_C{suffix}"
        if path.exists():
            return path
    return None


def _built_with() -> dict[str, object]:
    """What the build wrote beside the extension; `reason` where it made none."""
    path = _PACKAGE / "_C.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _load() -> tuple[bool, str]:
    """Load the extension's operators; returns (loaded, why not)."""
    path = _find()
    if path is None:
        return False, _built_with().get("reason") or (
            "not built: no compiler or no PyTorch when syncflow was installed; "
            "install syncflow from source again with a C++20 compiler at hand"
        )
    built = _built_with().get("torch")
    if built != torch.__version__:
        why = (
            f"built for PyTorch {built}, but {torch.__version__} is running; "
            "install syncflow from source again to rebuild it"
        )
        warnings.warn(
            f"syncflow uses its slower reference operators: {path.name} was {why}", stacklevel=2
        )
        return False, why
    try:
        torch.ops.load_library(path)
    except OSError as error:
        why = f"{path.name} cannot be loaded: {error}"
        warnings.warn(f"syncflow uses its slower reference operators: {why}", stacklevel=2)
        return False, why
    return True, ""


def _kernel_devices() -> dict[str, frozenset[str]]:
    """By op of the loaded extension, the device types for which it has a kernel."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    keys = {"cpu": "CPU", "cuda": "CUDA"}
    names = [n for n in torch._C._dispatch_get_all_op_names() if n.startswith("syncflow::")]
    return {
        name.split("::")[1]: frozenset(device for device, key in keys.items() if has(name, key))
        for name in names
    }


def _off_from_environment() -> dict[str, str]:
    names = os.environ.get("SYNCFLOW_OFF", "").replace(",", " ").split()
    return dict.fromkeys(names, "switched off by SYNCFLOW_OFF")


LOADED, _why_not = _load()
_DEVICES = _kernel_devices() if LOADED else {}
#: Operators whose kernels are not used, by name, and why.
_off = _off_from_environment()


def usable(name: str, x: torch.Tensor, *tensors: torch.Tensor | None) -> bool:
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


def differentiable(*tensors: torch.Tensor | None) -> bool:
    """Whether autograd will want a gradient of a result of these tensors."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def register(
    name: str,
    fake: Callable,
    backward: Callable,
    setup_context: Callable,
    backward_fake: Callable | None = None,
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
    if backward_fake is None:
        return
    torch.library.register_fake(f"{op}_backward", backward_fake)

    def refuse(ctx: object, *grads: torch.Tensor) -> None:
        raise RuntimeError(
            f"{name} has no second derivative; compute it inside ops.reference_ops()"
        )

    torch.library.register_autograd(f"{op}_backward", refuse)


def register_fake(name: str, fake: Callable) -> None:
    """Tell tracing about an op that has no gradient, where the extension has it."""
    if name in _DEVICES:
        torch.library.register_fake(f"syncflow::{name}", fake)


def status() -> dict[str, object]:
    """What `syncflow info` prints about the kernels.

    Keys: `loaded` (bool), `active` (loaded and not switched off), `reason` (why not, or ""),
        `path`, `torch_built`, `torch_running`, `cpu_capability` (what this machine runs),
        `cpu_built` (capabilities in the binary), `cuda_archs` (in the binary; empty for a CPU
        build), `compiler` and `off` (operators that are switched off, and why).
    """
    built = _built_with()
    path = _find()
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
