"""The file of the compiled extension: where it is, how it was built, and which ops it brings."""

import importlib
import importlib.machinery
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

import torch

_PACKAGE = Path(__file__).resolve().parent.parent


def find() -> Path | None:
    """The extension built for this interpreter; None where there is none."""
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = _PACKAGE / f"_C{suffix}"
        if path.exists():
            return path
    return None


class Built(TypedDict, total=False):
    """What the build wrote beside the extension.

    Attributes:
        reason: why it made none; nothing else is then known.
        torch: version of PyTorch that it is for.
        cpu: capabilities in the binary, as `torch.backends.cpu` names them.
        cuda_archs: compute capabilities in the binary, such as "9.0"; empty for a CPU build.
        compiler: its name and version.
    """

    reason: str
    torch: str
    cpu: list[str]
    cuda_archs: list[str]
    compiler: str


def built_with() -> Built:
    """What the build wrote; empty where there was none."""
    path = _PACKAGE / "_C.json"
    built: Built = json.loads(path.read_text()) if path.exists() else {}
    return built


def load() -> tuple[bool, str]:
    """Load the extension's operators; returns (loaded, why not)."""
    path = find()
    if path is None:
        return False, built_with().get("reason") or (
            "not built: no compiler or no PyTorch when syncflow was installed; "
            "install syncflow from source again with a C++20 compiler at hand"
        )
    built = built_with().get("torch")
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


def plan_key(loaded: bool) -> Callable[..., bytes | None]:
    """The extension's function that names a call by its tensors; without one nothing is kept."""
    if not loaded:
        return lambda *tensors: None
    # What `load` opened, as a module too.
    key: Callable[..., bytes | None] = importlib.import_module("syncflow._C").plan_key
    return key


def kernel_devices() -> dict[str, frozenset[str]]:
    """By op of the loaded extension, the device types for which it has a kernel."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    keys = {"cpu": "CPU", "cuda": "CUDA"}
    names = [n for n in torch._C._dispatch_get_all_op_names() if n.startswith("syncflow::")]
    return {
        name.split("::")[1]: frozenset(device for device, key in keys.items() if has(name, key))
        for name in names
    }
