"""What ptxas made of the kernels that XL/2 (heads of 72) and the shipped model (heads of 32) use,
for sm_90 in bfloat16: no local memory, whole vectors in memory, products on the tensor cores, and
no more instructions than stand beside each kernel (counted with CUDA 13.0, all of a function's,
NOPs left out).

Needs nvcc and cuobjdump (CUDA_HOME's, or the one in Triton's wheel), no device.
"""

import collections
import functools
import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from test_cuda_build import KERNELS, NVCC, SOURCES, needs_nvcc


@functools.cache
def cuobjdump() -> str | None:
    home = os.environ.get("CUDA_HOME")
    places = [Path(home) / "bin" / "cuobjdump"] if home else []
    if spec := importlib.util.find_spec("triton"):
        places += Path(spec.origin).parent.glob("backends/nvidia/bin/cuobjdump")
    found = [str(p) for p in places if p.exists()]
    return found[0] if found else shutil.which("cuobjdump")


needs_cuobjdump = pytest.mark.skipif(
    cuobjdump() is None, reason="NO CUOBJDUMP HERE: SASS WAS NOT READ (set CUDA_HOME or add triton)"
)

# Kernel and arguments -> (loads, stores) narrower than 16 bytes at most. A row of 72 numbers is two
# vectors a lane and one word; sums for gains and over tokens are written once, 8 or 4 bytes a lane.
USED = {
    "adaln_forward_kernel 5 0": (0, 0),
    "adaln_forward_kernel 5 1": (0, 0),
    "adaln_forward_kernel 5 2": (0, 0),
    "adaln_forward_kernel 1 0": (0, 0),
    "adaln_forward_kernel 1 1": (0, 0),
    "adaln_forward_kernel 1 2": (0, 0),
    "gate_residual_kernel 8": (0, 0),
    "bias_gelu_kernel 8": (0, 0),
    "euler_cfg_kernel 8": (0, 0),
    "temporal_attention_kernel 72 1 1": (9, 1),
    "temporal_attention_kernel 72 2 1": (18, 2),
    "temporal_attention_kernel 72 4 1": (28, 2),
    "temporal_attention_kernel 32 1 1": (0, 0),
    "temporal_attention_kernel 32 2 1": (0, 0),
    "temporal_attention_kernel 32 4 1": (0, 0),
    "qk_norm_rope_kernel 72": (2, 1),
    "qk_norm_rope_kernel 32": (0, 0),
    "adaln_backward_kernel 5 0": (0, 30),
    "adaln_backward_kernel 5 1": (0, 45),
    "adaln_backward_kernel 1 0": (0, 30),
    "adaln_backward_kernel 1 1": (0, 45),
    "gate_residual_backward_kernel 8": (0, 0),
    "bias_gelu_backward_kernel 8": (0, 0),
    "temporal_attention_backward_kernel 72 1 0": (18, 37),
    "temporal_attention_backward_kernel 72 2 0": (36, 40),
    "temporal_attention_backward_kernel 32 1 0": (0, 14),
    "temporal_attention_backward_kernel 32 2 0": (0, 14),
    "qk_norm_rope_backward_kernel 72": (3, 21),
    "qk_norm_rope_backward_kernel 32": (0, 17),
    # Halves of 8 bytes; of patches a weight is 16 bytes and a place 8.
    "rotate_kernel 4 0": (2, 2),
    "patchify3d_kernel 4 16": (20, 1),
}


def budgets() -> dict[str, int]:
    """Kernel name -> instructions, as written beside each kernel; 0 where none is."""
    found = {}
    for path in KERNELS.glob("*.cuh"):
        text = path.read_text()
        for match in re.finditer(r"__global__[^{;]*?(\w+_kernel)\(", text):
            stated = text[: match.start()].rpartition("budget: ")[2]
            number = re.match(r"\d+ registers, (\d+) instructions", stated)
            found[match.group(1)] = int(number.group(1)) if number else 0
    return found


def read(sass: str) -> dict[str, collections.Counter]:
    """Kernel and arguments, as in USED -> how often each instruction stands there."""
    kernels = {}
    for part in sass.split("Function : ")[1:]:
        mangled = part.split()[0]
        name = re.search(r"syncflow4cuda\d+(\w+_kernel)I", mangled).group(1)
        arguments = re.findall(r"L(?:[ib]|N[\w]+?NormE)(\d+)E", mangled)
        lines = re.findall(r"/\*[0-9a-f]{4,5}\*/\s+(?:@!?U?P\w+ +)?([A-Z][\w.]*)", part)
        kernels[" ".join((name, *arguments))] = collections.Counter(x for x in lines if x != "NOP")
    return kernels


def total(ops: collections.Counter, pattern: str) -> int:
    return sum(count for name, count in ops.items() if re.match(pattern, name))


def check(kernels: dict[str, collections.Counter]) -> None:
    allowed = budgets()
    for name, ops in kernels.items():
        assert not total(ops, "LDL|STL"), f"{name} has local memory: {ops}"
        count, most = sum(ops.values()), allowed[name.split()[0]]
        assert count <= most, f"{name} has {count} instructions, over its budget of {most}"
        if name not in USED:
            continue
        for kind, most in zip(("LDG", "STG"), USED[name], strict=True):
            wide = total(ops, rf"{kind}\..*128")
            narrow = total(ops, kind) - wide
            assert narrow <= most, f"{name}: {narrow} {kind} of less than 16 bytes, {most} allowed"
        if name.startswith("temporal_attention"):
            assert total(ops, "HMMA"), f"{name} makes no use of the tensor cores"


def compiled(source: Path, folder: Path) -> dict[str, collections.Counter]:
    heads = folder / "heads.h"
    heads.write_text("#define SYNCFLOW_HEADS 72, 32\n#define SYNCFLOW_BF16_ONLY\n")
    cubin = folder / f"{source.stem}.cubin"
    command = [NVCC, "-std=c++20", "-O3", "-arch=sm_90", "-cubin", "-include", str(heads)]
    subprocess.run([*command, str(source), "-o", str(cubin)], check=True)
    done = subprocess.run(
        [cuobjdump(), "-sass", str(cubin)], check=True, capture_output=True, text=True
    )
    return read(done.stdout)


@needs_nvcc
@needs_cuobjdump
@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_kernels_as_compiled(source, tmp_path):
    kernels = compiled(KERNELS / source, tmp_path)
    assert kernels
    check(kernels)
    names = {name.split()[0] for name in kernels}
    missing = [name for name in USED if name.split()[0] in names and name not in kernels]
    assert not missing, f"{source} has no {missing}"


@needs_nvcc
@needs_cuobjdump
@pytest.mark.slow
def test_a_planted_spill_is_seen(tmp_path):
    """Eight blocks where three have room for their registers: some have to go to memory."""
    kernels = shutil.copytree(KERNELS, tmp_path / "cuda")
    header = kernels / "bias_gelu.cuh"
    text = header.read_text().replace("(kGeluThreads, 3)", "(kGeluThreads, 8)")
    assert text != header.read_text()
    header.write_text(text)
    with pytest.raises(AssertionError, match="has local memory"):
        check(compiled(kernels / "bias_gelu.cu", tmp_path))


def test_every_kernel_has_a_budget_of_instructions():
    found = budgets()
    assert len(found) >= 15 and all(found.values()), found
    assert {name.split()[0] for name in USED} <= set(found)


def test_the_gate_can_fail():
    """Split stores, lost products and too many instructions, as cuobjdump writes them."""
    head = (
        "Function : _ZN8syncflow4cuda25temporal_attention_kernelI13__nv_bfloat16Li32ELi1ELb1EEEv\n"
    )
    lines = ["@P0 LDG.E.128 R4, [R2] ;", "HMMA.16816.F32.BF16 R4, R4 ;", "STG.E.128 [R2], R4 ;"]

    def sass(*more: str) -> dict[str, collections.Counter]:
        every = [f"        /*{16 * i:04x}*/    {x}" for i, x in enumerate([*lines, *more])]
        return read(head + "\n".join(every))

    good = sass("@!P1 NOP ;")
    assert list(good) == ["temporal_attention_kernel 32 1 1"]
    check(good)
    for more, message in (
        (["STG.E [R2], R4 ;"], "1 STG of less than 16 bytes"),
        (["STL [R1], R4 ;"], "has local memory"),
        (["FADD R1, R2, R3 ;"] * 9000, "over its budget"),
    ):
        with pytest.raises(AssertionError, match=message):
            check(sass(*more))
    lines.pop(1)
    with pytest.raises(AssertionError, match="no use of the tensor cores"):
        check(sass())
