"""Counts of a model's work without the work: memory, launches, operations and bytes on a device
that is not there.

Everything runs under PyTorch's FakeTensorMode: tensors have shapes and devices and no numbers, so
XL/2's step on a GPU is counted on a laptop in seconds.

    with pretend("cuda") as counter:
        model = ...                         # on the device
        out = model(...)
        backward(out.sum())                 # PyTorch's own engine wants a real GPU
    counter.peak, counter.launches, counter.flops ...

What is counted: an operator that writes memory is a launch (one that makes many tensors in chunks
is several); a call that reaches the dispatcher is a call, views among them; bytes are those that an
operator must read and write at least once, each storage element once; memory is that of storages,
in blocks of 512 bytes as the caching allocator hands out, without its fragmentation and without
workspaces that kernels allocate for themselves.
"""

from __future__ import annotations

import sys
import weakref
from collections import Counter as Numbers
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
import torchaudio  # noqa: F401  # its constants stay fake if first imported while counting
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry

from benchmarks.operator_costs import (
    ATTENTION,
    EMPTY,
    PRODUCTS,
    is_view,
    launches,
    num_bytes,
    own_flops,
)
from syncflow.ops import native

GIB = 2**30
_BLOCK = 512  # bytes; the caching allocator's smallest
aten = torch.ops.aten
_READS = {aten._local_scalar_dense, aten.is_nonzero, aten.nonzero, aten.equal}
#: With a CUDA kernel in csrc/cuda; each with its backward.
KERNELS = (
    "adaln", "gate_residual", "gate_residual_adaln", "residual_layernorm", "temporal_attention",
    "bias_gelu", "qk_norm_rope", "patchify3d", "unpatchify3d", "euler_cfg", "qk_norm_rope_",
    "rotate_", "attend_own_", "layernorm_of_sum", "group_norm_silu",
)  # fmt: skip


@dataclass
class Part:
    """What a module, or the whole, has asked for. ``flops`` of products and attention; ``bytes`` of
    everything, of which ``bytes_outside_products`` are neither's."""

    calls: int = 0
    launches: int = 0
    flops: int = 0
    attention_flops: int = 0
    bytes: int = 0
    bytes_outside_products: int = 0
    bytes_attention: int = 0

    def add(self, other: Part) -> None:
        """Adds what another has asked for."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass
class Memory:
    """Live bytes on the device, the most so far, and the sizes of the storages that live."""

    live: int = 0
    peak: int = 0
    sizes: dict[int, int] = field(default_factory=dict)

    def keep(self, tensor: Tensor) -> None:
        """Counts a storage from now until it is freed, once."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.sizes:
            return
        size = -(-storage.nbytes() // _BLOCK) * _BLOCK
        self.sizes[key] = size
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self.live -= self.sizes.pop(key, 0)


class Counter(TorchDispatchMode):
    """Counts what passes the dispatcher and lives on ``device`` ("cuda" or "cpu").

    ``total`` is everything; ``parts`` by the name of the innermost module that ``watch`` knows;
    ``operators`` launches by operator; ``transfers`` copies between host and device. ``waits`` are
    where the host waits for numbers of the device, by the function of this package that asks:
    copies to the host, and operators that need a number; ``reads`` is how many.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self.memory = Memory()
        self.total, self.parts = Part(), {}
        self.operators: Numbers[str] = Numbers()
        self.transfers: Numbers[str] = Numbers()
        self.waits: Numbers[str] = Numbers()
        self._inside: list[str] = []
        self._composite = 0

    @property
    def reads(self) -> int:
        """How often the host waited."""
        return sum(self.waits.values())

    def reset(self) -> None:
        """Counts from here on; what lives goes on living."""
        self.total, self.parts = Part(), {}
        self.operators, self.transfers, self.waits = Numbers(), Numbers(), Numbers()
        self.memory.peak = self.memory.live

    def watch(self, root: nn.Module) -> Callable[[], None]:
        """Tells parts apart by the modules of ``root``; returns what ends that."""
        names = {module: name for name, module in root.named_modules()}

        def enter(module: nn.Module, _: Any) -> None:
            self._inside.append(names[module])

        def leave(module: nn.Module, _: Any, __: Any) -> None:
            self._inside.pop()

        hooks = []
        for module in names:
            hooks.append(module.register_forward_pre_hook(enter))
            hooks.append(module.register_forward_hook(leave, always_call=True))
        return lambda: [hook.remove() for hook in hooks]

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if operator.namespace == "prim":  # asks a fake tensor for its device
            return operator(*args, **kwargs)
        packet = operator._overloadpacket
        if packet in _READS:
            if args[0].device.type == self.device:
                self.waits[_caller()] += 1
            if packet is aten._local_scalar_dense:
                return _some_number(args[0])
        out = self._parts_of(operator, args, kwargs)
        if out is not NotImplemented:
            return out
        out = operator(*args, **kwargs)
        given = [x for x in tree_iter((args, kwargs)) if isinstance(x, Tensor)]
        made = [x for x in tree_iter(out) if isinstance(x, Tensor)]
        here = [x for x in (*given, *made) if x.device.type == self.device]
        if not here:
            return out
        for tensor in made:
            if tensor.device.type == self.device:
                self.memory.keep(tensor)
        found = Part(calls=int(not self._composite))
        if not is_view(operator) and packet not in EMPTY:
            self._measure(found, operator, packet, args, kwargs, given, made, out)
        self.total.add(found)
        name = self._inside[-1] if self._inside else ""
        self.parts.setdefault(name, Part()).add(found)
        return out

    def _parts_of(self, operator: Any, args: tuple, kwargs: dict) -> Any:
        """In inference mode an operator that is made of others arrives whole: one call, of which
        the parts are measured."""
        if not torch.is_inference_mode_enabled() or not operator._can_decompose():
            return NotImplemented
        if not self._composite:
            found = Part(calls=1)
            self.total.add(found)
            self.parts.setdefault(self._inside[-1] if self._inside else "", Part()).add(found)
        self._composite += 1
        try:
            with self:
                return operator.decompose(*args, **kwargs)
        finally:
            self._composite -= 1

    def _measure(
        self,
        found: Part,
        operator: Any,
        packet: Any,
        args: tuple,
        kwargs: dict,
        given: list[Tensor],
        made: list[Tensor],
        out: Any,
    ) -> None:
        """The launches, bytes and operations of an operator that writes."""
        places = {x.device.type for x in (*given, *made)}
        if len(places) > 1 and packet in (aten._to_copy, aten.copy_):
            way = "to the host" if made[0].device.type == "cpu" else "to the device"
            self.transfers[way] += 1
            if way == "to the host":
                self.waits[_caller()] += 1
        found.launches = launches(packet, args)
        self.operators[str(packet)] += found.launches
        touched = {id(tensor): num_bytes(tensor) for tensor in (*given, *made)}
        found.bytes = sum(touched.values())
        if packet in flop_registry:
            flops = int(flop_registry[packet](*args, **kwargs, out_val=out))
        else:
            flops = own_flops(packet, given, made)
        found.flops = flops
        if packet in ATTENTION or "attention" in str(packet):
            found.attention_flops, found.bytes_attention = flops, found.bytes
        elif packet not in PRODUCTS:
            found.bytes_outside_products = found.bytes


def _caller() -> str:
    """The innermost function of this package that is running, as module.function."""
    frame = sys._getframe(1)
    while frame is not None and not frame.f_globals.get("__name__", "").startswith("syncflow."):
        frame = frame.f_back
    return "" if frame is None else f"{frame.f_globals['__name__']}.{frame.f_code.co_name}"


def _some_number(tensor: Tensor) -> bool | int | float:
    """In place of a number that no fake tensor has: True, 1 or 1.0, all finite and no zero."""
    if tensor.dtype == torch.bool:
        return True
    return 1.0 if tensor.dtype.is_floating_point else 1


def _attention(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, **options: Any
) -> Tensor:
    """The routes of PyTorch on a GPU; its own choice wants to see one."""
    if torch.is_autocast_enabled("cuda") and q.device.type == "cuda":
        dtype = torch.get_autocast_dtype("cuda")
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
        attn_mask = attn_mask if attn_mask is None else attn_mask.to(dtype)
    if attn_mask is None and q.dtype in (torch.bfloat16, torch.float16):
        return aten._scaled_dot_product_flash_attention(q, k, v)[0]
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=q.dtype).masked_fill_(~attn_mask, -1e30)
        odd = attn_mask.shape[-1] % 8
        if odd:
            attn_mask = F.pad(attn_mask, (0, 8 - odd))[..., : attn_mask.shape[-1]]
        attn_mask = attn_mask.expand(*q.shape[:3], k.shape[2])
    keeps = native.differentiable(q, k, v)
    return aten._scaled_dot_product_efficient_attention(q, k, v, attn_mask, keeps)[0]


def to(module: nn.Module, *args: Any, **options: Any) -> nn.Module:
    """``module.to(device or dtype)``, which cannot be had of fake parameters: they are replaced."""
    device, dtype, _, _ = torch._C._nn._parse_to(*args, **options)
    for each in module.modules():
        for store in (each._parameters, each._buffers):
            for name, value in store.items():
                if value is None:
                    continue
                wanted = dtype if dtype and value.is_floating_point() else value.dtype
                there = device is None or value.device.type == device.type
                if there and wanted == value.dtype:
                    continue
                changed = value.detach().to(device=device or value.device, dtype=wanted)
                if isinstance(value, nn.Parameter):
                    changed = nn.Parameter(changed, value.requires_grad)
                store[name] = changed
    return module


@contextmanager
def pretend(device: str = "cuda", kernels: bool = True) -> Iterator[Counter]:
    """A fake ``device`` and the Counter of what happens there.

    Args:
        device: "cuda", or "cpu" for holding the counts against a real step's.
        kernels: whether "cuda" has this package's compiled operators.
    """
    with ExitStack() as stack:
        if device == "cuda":
            there = {
                name: frozenset(kinds | {"cuda"} if kernels and _has_kernel(name) else kinds)
                for name, kinds in native._DEVICES.items()
            }
            for owner, name, value in (
                (native, "_DEVICES", there),
                (F, "scaled_dot_product_attention", _attention),
                (torch.amp.autocast_mode, "amp_definitely_not_available", lambda: False),
                (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
                (torch.cuda, "is_bf16_supported", lambda *_, **__: True),
                (nn.Module, "to", to),
            ):
                stack.enter_context(mock.patch.object(owner, name, value, create=True))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield stack.enter_context(Counter(device))


def outside(function: Callable) -> Callable:
    """``function`` on real tensors, for what must know numbers: reading a batch's captions."""

    def run(*args: Any, **options: Any) -> Any:
        with _disable_current_modes():
            return function(*args, **options)

    return run


def _has_kernel(name: str) -> bool:
    return name.removesuffix("_backward") in KERNELS
