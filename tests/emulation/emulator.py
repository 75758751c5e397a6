"""Builds csrc/cuda for the host and runs its launchers on torch tensors in ordinary memory.

The structures mirror csrc/cuda/args.h field by field; a size that differs fails at once.
"""

import contextlib
import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from ctypes import c_float, c_int32, c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
KERNELS = ROOT / "csrc" / "cuda"
CACHE = Path(os.environ.get("SYNCFLOW_EMULATION_CACHE", ROOT / "build" / "emulation"))
FLAGS = ["-std=c++20", "-O1", "-fPIC", "-Wall", "-Wno-unknown-pragmas", "-ffp-contract=off"]
FLAGS += shlex.split(os.environ.get("SYNCFLOW_EMULATION_FLAGS", ""))
READ, WRITE, ONCE = 1, 2, 4
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


class EmulationError(Exception):
    """What the emulated device refused: an access, a divergence, a launch."""


class SmallRows(ctypes.Structure):
    _fields_ = [
        ("data", c_void_p),
        ("stride", c_int64),
        ("is_float", c_int32),
        ("unused", c_int32),
    ]


def fields(text: str) -> list[tuple[str, type]]:
    """ "name name2: type" lines -> ctypes fields."""
    kinds = {"i64": c_int64, "i32": c_int32, "f32": c_float, "ptr": c_void_p, "rows": SmallRows}
    found = []
    for line in text.strip().splitlines():
        names, kind = line.split(":")
        count = 1
        if "*" in kind:
            kind, count = kind.split("*")
        kind = kinds[kind.strip()]
        found += [(name, kind * int(count) if int(count) > 1 else kind) for name in names.split()]
    return found


class AdalnArgs(ctypes.Structure):
    _fields_ = fields("""
        groups tokens channels chunks: i64
        eps: f32
        type post_norm plain_gain: i32
        x y out sum: ptr
        gate shift scale: rows
        grad_out grad_sum grad_x grad_y partial stats grad_gate grad_shift grad_scale: ptr
        grad_gate_is_float grad_shift_is_float grad_scale_is_float unused2: i32
    """)


class HeadTransform(ctypes.Structure):
    _fields_ = fields("""
        weight: rows*2
        rotation: ptr
        interleaved: i32
        eps: f32
        partial: ptr
        slots: i64
        grad_weight: ptr*2
        grad_weight_is_float: i32*2
    """)


class TemporalAttentionArgs(ctypes.Structure):
    _fields_ = [
        *fields("""
            B T S H D: i64
            type: i32
            scale: f32
        """),
        ("transform", HeadTransform),
        *fields("qkv out grad_out grad_qkv: ptr"),
    ]


class QkNormRopeArgs(ctypes.Structure):
    _fields_ = [
        *fields("""
            B T H D parts: i64
            type unused: i32
        """),
        ("transform", HeadTransform),
        *fields("""
            qkv out grad_out grad_qkv: ptr
            qkv_strides out_strides grad_strides: i64*4
        """),
    ]


class BiasGeluArgs(ctypes.Structure):
    _fields_ = fields("""
        N C chunks: i64
        type grad_bias_is_float: i32
        bias: rows
        x out grad_out grad_x partial grad_bias: ptr
    """)


class Patchify3dArgs(ctypes.Structure):
    _fields_ = fields("""
        B Z T H W C stored grid_t grid_h grid_w: i64
        p q r x_is_float type unused: i32
        x weight out: ptr
        bias positions: rows
    """)


class EulerCfgArgs(ctypes.Structure):
    _fields_ = fields("""
        total: i64
        type: i32
        guidance h: f32
        unused: i32
        x: ptr
        conditional null: rows
        out: ptr
    """)


class RotateArgs(ctypes.Structure):
    _fields_ = fields("""
        B N H D: i64
        type interleaved: i32
        rotation x out: ptr
        x_strides out_strides: i64*3
    """)


class AttendOwnArgs(ctypes.Structure):
    _fields_ = fields("""
        R N H D draws: i64
        type: i32
        scale: f32
        q own_k own_v: ptr
        own_row own_head: i64
        log_sum out: ptr
    """)


class GroupNormArgs(ctypes.Structure):
    _fields_ = fields("""
        N L C groups chunks front width: i64
        type: i32
        eps: f32
        silu unused: i32
        x add sum out: ptr
        before weight bias: rows
        partial coefficients: ptr
    """)


def compiler() -> str | None:
    """The host compiler's command, or None."""
    for name in filter(None, (os.environ.get("CXX"), "g++")):
        if shutil.which(name.split()[0]):
            return name
    return None


def compile_object(source: Path, kernels: Path) -> Path:
    """The object file of one source, from the cache where nothing it may include has changed."""
    digest = hashlib.sha256(" ".join(FLAGS).encode() + source.read_bytes())
    includes = [*kernels.glob("*.h"), *HERE.glob("*.h")]
    if source.suffix == ".cu":
        includes += kernels.glob("*.cuh")
    for include in sorted(includes):
        digest.update(include.read_bytes())
    output = CACHE / f"{source.stem}-{digest.hexdigest()[:20]}.o"
    if not output.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        temporary = output.with_suffix(f".{os.getpid()}")
        command = [*compiler().split(), *FLAGS, f"-I{HERE}", f"-I{kernels}", "-x", "c++"]
        done = subprocess.run(
            [*command, "-c", str(source), "-o", str(temporary)], capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{source.name} does not compile:\n{done.stderr[-4000:]}")
        temporary.replace(output)
    return output


def build(kernels: Path = KERNELS) -> Path:
    """A shared library of every launcher in `kernels`, on the emulated device."""
    own = ("emulation.cpp", "exports.cpp", "fragment_probe.cu", "tensor_cores.cpp")
    sources = [*sorted(kernels.glob("*.cu")), *(HERE / name for name in own)]
    objects = [compile_object(source, kernels) for source in sources]
    digest = hashlib.sha256("".join(o.name for o in objects).encode()).hexdigest()[:20]
    output = CACHE / f"emulated-{digest}.so"
    if not output.exists():
        temporary = output.with_suffix(f".{os.getpid()}")
        command = [*compiler().split(), "-shared", "-o", str(temporary), *map(str, objects)]
        subprocess.run(command, check=True)
        temporary.replace(output)
    return output


class Device:
    """The emulated device. Use: `call()`, then `unwritten()`, `moved()`."""

    def __init__(self, kernels: Path = KERNELS) -> None:
        self.library = ctypes.CDLL(str(build(kernels)))
        self.library.emulation_error.restype = ctypes.c_char_p
        for name in (
            *("adaln_chunk_count", "bias_gelu_chunk_count"),
            *("qk_norm_rope_slot_count", "temporal_attention_slot_count"),
            "group_norm_chunk_count",
        ):
            getattr(self.library, name).restype = c_int64
        self.library.temporal_attention_refused.restype = ctypes.c_char_p
        self.library.adaln_chunk_count.argtypes = [c_int64, c_int64]
        self.library.group_norm_chunk_count.argtypes = [c_int64, c_int64, c_int64]
        for name in ("read_bytes", "written_bytes", "unwritten"):
            getattr(self.library, f"emulation_{name}").restype = c_int64
        self.regions: dict[str, int] = {}

    def call(self, name: str, args: ctypes.Structure, seed: int = 0, **tensors: tuple) -> None:
        """Run launcher `name`; each keyword is (tensor, flags): its bytes may be touched so.

        Outputs (flag WRITE without READ) are filled with NaN first.
        """
        size = getattr(self.library, f"size_of_{name}")()
        assert size == ctypes.sizeof(args), f"{name}: C++ has {size} bytes, ctypes another layout"
        self.library.emulation_reset(ctypes.c_uint64(seed))
        self.regions = {}
        for key, (tensor, flags) in tensors.items():
            if not flags & READ:
                tensor.fill_(float("nan"))
            pointer = ctypes.c_void_p(tensor.data_ptr())
            self.regions[key] = self.library.emulation_region(
                pointer, ctypes.c_size_t(span(tensor)), flags
            )
        failed = getattr(self.library, f"run_{name}")(ctypes.byref(args))
        message = self.library.emulation_error().decode()
        if failed or message:
            raise EmulationError(f"{name}: {message}")
        for key, (_, flags) in tensors.items():
            if flags & ONCE and (count := self.unwritten(key)):
                raise EmulationError(f"{name}: {count} bytes of {key} were never written")

    @contextlib.contextmanager
    def shared_memory(self, kilobytes: int) -> Iterator[None]:
        """A device that gives a block no more shared memory than this."""
        self.library.emulation_limit_shared(ctypes.c_size_t(kilobytes << 10))
        try:
            yield
        finally:
            self.library.emulation_limit_shared(ctypes.c_size_t(227 << 10))

    def fragments(self, words: Tensor) -> Tensor:
        """What fragment_probe.cu makes of int32 [32, 6]: float32 [32, 18]."""
        out = torch.empty(32, 18)
        self.library.emulation_reset(ctypes.c_uint64(0))
        for tensor, flags in ((words, READ), (out, WRITE | ONCE)):
            size = ctypes.c_size_t(tensor.nbytes)
            self.library.emulation_region(ctypes.c_void_p(tensor.data_ptr()), size, flags)
        pointers = [ctypes.c_void_p(t.data_ptr()) for t in (words, out)]
        if self.library.fragment_probe(*pointers):
            raise EmulationError(self.library.emulation_error().decode())
        return out

    def read(self, key: str) -> int:
        return self.library.emulation_read_bytes(self.regions[key])

    def written(self, key: str) -> int:
        return self.library.emulation_written_bytes(self.regions[key])

    def unwritten(self, key: str) -> int:
        return self.library.emulation_unwritten(self.regions[key])


def span(tensor: Tensor) -> int:
    """Bytes from a tensor's first to its last element."""
    if tensor.numel() == 0:
        return 0
    steps = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    return (steps + 1) * tensor.element_size()


def pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def rows(tensor: Tensor | None) -> SmallRows:
    if tensor is None:
        return SmallRows()
    stride = tensor.stride(0) if tensor.ndim > 1 else 0
    return SmallRows(tensor.data_ptr(), stride, int(tensor.dtype == torch.float32), 0)
