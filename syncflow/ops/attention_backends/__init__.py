"""Other ways to compute softmax attention on a GPU than what scaled_dot_product_attention picks.

Three are PyTorch's own kernels, asked for by name; the rest are packages that may be installed,
each found by importing the very function that is called, at the first call that wants it (such an
import costs seconds). Which one a shape gets is a table of measurements, `preferred`; one for the
whole process is SYNCFLOW_ATTENTION=NAME. `syncflow.ops.attention` alone decides when any of this is
asked.
"""

import functools
import importlib
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

Function = TypeVar("Function", bound=Callable[..., object])
PackageFunction = Callable[..., Tensor | tuple[Tensor, ...]]

_HALVES = (torch.bfloat16, torch.float16)


def _constant(function: Function) -> Function:
    """`torch.compiler.assume_constant_result`, which would import the compiler for this one mark: a
    second and a half of every start."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]  # PyTorch's mark
    return function


@dataclass(frozen=True)
class Backend:
    """One way to compute attention.

    Attributes:
        adapt: (function or SDPBackend, q, k, v, mask) -> [B, H, L, D]; operands are [B, H, L, D].
        module, symbol: where a package has the function; None for PyTorch's own.
        kernel: PyTorch's name of its own.
        masks: whether it takes a mask.
        most: the largest head dimension that it takes.
        dtypes: of queries, keys and values.
        capability: the least compute capability.
    """

    adapt: Callable[..., Tensor]
    module: str | None = None
    symbol: str = ""
    kernel: SDPBackend | None = None
    masks: bool = False
    most: int = 256
    dtypes: tuple[torch.dtype, ...] = _HALVES
    capability: tuple[int, int] = (8, 0)


def _torch_own(kernel: SDPBackend, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    with sdpa_kernel(kernel):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def _heads_last(
    function: PackageFunction, q: Tensor, k: Tensor, v: Tensor, **options: object
) -> Tensor:
    """Of functions over [B, N, H, D]; some return the logarithms of the sums beside the result."""
    out = function(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), **options)
    return (out[0] if isinstance(out, tuple) else out).transpose(1, 2)


def _flash(
    function: PackageFunction, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None
) -> Tensor:
    scale = q.shape[-1] ** -0.5
    return _heads_last(function, q, k, v, softmax_scale=scale, causal=False)


def _xformers(
    function: PackageFunction, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None
) -> Tensor:
    bias = None
    if mask is not None:
        # It wants numbers, of the full shape, their rows a multiple of 8 apart.
        B, H, L, M = *q.shape[:3], k.shape[2]
        rows = mask.expand(*mask.shape[:-1], M)
        bias = q.new_zeros(*rows.shape[:-1], M + -M % 8)[..., :M]
        if mask.dtype == torch.bool:
            bias.masked_fill_(~rows, float("-inf"))
        else:
            bias.copy_(rows)
        bias = bias.expand(B, H, L, M)
    return _heads_last(function, q, k, v, attn_bias=bias, p=0.0, scale=q.shape[-1] ** -0.5)


#: By name, in the order in which they are listed.
BACKENDS = {
    "flash": Backend(_torch_own, kernel=SDPBackend.FLASH_ATTENTION),
    "cudnn": Backend(_torch_own, kernel=SDPBackend.CUDNN_ATTENTION, masks=True, most=128),
    "efficient": Backend(
        _torch_own,
        kernel=SDPBackend.EFFICIENT_ATTENTION,
        masks=True,
        dtypes=(*_HALVES, torch.float32),
        capability=(5, 0),
    ),
    "flash-attn-2": Backend(_flash, "flash_attn", "flash_attn_func"),
    "flash-attn-3": Backend(_flash, "flash_attn_interface", "flash_attn_func", capability=(9, 0)),
    "flash-attn-4": Backend(
        _flash, "flash_attn.cute", "flash_attn_func", most=128, capability=(9, 0)
    ),
    "xformers": Backend(_xformers, "xformers.ops", "memory_efficient_attention", masks=True),
}

#: What SYNCFLOW_ATTENTION may be: a backend, PyTorch's own choice, or the table's.
NAMES = ("auto", "sdpa", *BACKENDS)


@functools.cache
def find(name: str) -> tuple[object, str]:
    """(what the backend's adapter is given, "") or (None, why there is none)."""
    backend = BACKENDS[name]
    if backend.module is None:
        return backend.kernel, ""
    try:
        return getattr(importlib.import_module(backend.module), backend.symbol), ""
    except Exception as error:  # a broken installation is as good as none
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return None, f"{backend.module}.{backend.symbol}: {lines[0][:120]}"


def refusal(name: str, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> str:
    """Why a backend does not take this call; "" where it does. Looks at no value."""
    backend = BACKENDS[name]
    if not q.is_cuda:
        return f"it does not run on {q.device.type}"
    if q.dtype not in backend.dtypes or not q.dtype == k.dtype == v.dtype:
        return f"it does not take {str(q.dtype).removeprefix('torch.')}"
    if q.shape[-1] % 8 or q.shape[-1] > backend.most:
        return f"it does not take heads of {q.shape[-1]}"
    if mask is not None and not backend.masks:
        return "it takes no mask"
    if mask is not None and mask.requires_grad:
        return "it gives no gradient of a mask"
    if capability(q.device.index or 0) < backend.capability:
        return "it does not run on this GPU"
    if backend.module is None:
        return ""
    from syncflow.ops.attention_backends.outside_graph import outside_graph

    return outside_graph(find, name)[1]


@_constant
def capability(index: int) -> tuple[int, int]:
    """Of a GPU; (0, 0) where there is none, as for tensors without memory."""
    return _capability(index)


@functools.cache
def _capability(index: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(index) if torch.cuda.is_available() else (0, 0)


def run(name: str, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention by a backend that does not refuse the call."""
    backend = BACKENDS[name]
    if backend.module is None:
        return backend.adapt(backend.kernel, q, k, v, mask)
    # A compiled model leaves its graph for a package, and for nothing else.
    from syncflow.ops.attention_backends.outside_graph import outside_graph

    return outside_graph(_run_package, name, q, k, v, mask)


def _run_package(name: str, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    return BACKENDS[name].adapt(find(name)[0], q, k, v, mask)


# Measured on one H200 with PyTorch 2.11 (CUDA 13.0) in bfloat16, without masks and gradients, by
# `bash benchmarks/gpu_lease.sh fast` (benchmarks/results/nvidia-h200-fast.json); us:
#
#   queries x keys, heads of     default  flash  cudnn  efficient
#   16 x 16, 32, B 16                6.4    5.3    6.4        4.8
#   100 x 100, 72, B 2               8.2    8.3    8.3        7.2
#   100 x 2048, 72, B 2             29.7   25.2   29.9       72.1
#   100 x 2049, 72, B 2             34.6   28.8   34.3       75.5
#   2048 x 64, 72, B 2              19.0   17.7   19.0       31.1
#   2048 x 300, 72, B 2             33.1   38.2   33.2       82.9
#   256 x 256, 72, B 16             26.4   34.3   26.3       62.4
#   256 x 256, 72, B 128           149.3  263.5  149.8      465.1
#   1024 x 1024, 72, B 16          242.0  379.3  250.0      846.5
#   2048 x 2048, 72, B 2           109.6  190.0  120.0      423.3
#
# No flash-attn and no xformers was installed there: none of them is chosen before it is measured.
# Rows are (compute capability, queries, keys, most of B x heads, backend), bounds included: a
# measured shape's own, up to the next power of two. The first that fits holds; elsewhere it is the
# default.
MEASURED = (
    ((9, 0), (1, 128), (1, 128), 64, "efficient"),
    ((9, 0), (1, 128), (1024, 4096), 32, "flash"),
    ((9, 0), (1024, 2048), (33, 64), 32, "flash"),
)


def preferred(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> str:
    """The backend that was fastest at shapes like this, or "sdpa"."""
    if mask is not None or q.dtype != torch.bfloat16 or q.shape[-1] not in (32, 72):
        return "sdpa"
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        return "sdpa"
    found = capability(q.device.index or 0)
    queries, keys, rows = q.shape[-2], k.shape[-2], q.shape[0] * q.shape[1]
    for wanted, (least_q, most_q), (least_k, most_k), most, name in MEASURED:
        if found == wanted and rows <= most and least_q <= queries <= most_q:
            if least_k <= keys <= most_k:
                return name
    return "sdpa"


def _choice_from_environment() -> str:
    name = os.environ.get("SYNCFLOW_ATTENTION") or "auto"
    if name not in NAMES:
        raise ValueError(f"SYNCFLOW_ATTENTION is {name!r}; it must be one of {', '.join(NAMES)}")
    return name


#: SYNCFLOW_ATTENTION of the process, "auto" where it is not set.
asked_for = _choice_from_environment()

_warned: set[str] = set()


@_constant
def warn_once(name: str, why: str) -> None:
    """One line for each reason why calls went elsewhere."""
    if (text := f"{name}: {why}") not in _warned:
        _warned.add(text)
        warnings.warn(
            f"SYNCFLOW_ATTENTION={name} was passed over for scaled_dot_product_attention: {why}",
            stacklevel=2,
        )


def status() -> dict[str, str]:
    """Of every backend, "found" or why it is not; imports the packages, which costs seconds."""
    return {name: find(name)[1] or "found" for name in BACKENDS}
