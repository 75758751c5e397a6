"""The build as ninja reads it: objects in a fixed order, then one shared library."""

import platform
import sys
import sysconfig
from pathlib import Path

from build_tools.cuda import Cuda
from build_tools.toolchain import CannotBuildError

# csrc/cpu/simd/*.cpp are compiled once per row. The first must run on every machine: where the
# linker finds an inline function of the C++ library in several objects it keeps the first one's, so
# this order keeps AVX-512 out of shared code.
CAPABILITIES: dict[str, list[str]] = {"DEFAULT": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    CAPABILITIES["AVX2"] = ["-mavx2", "-mfma", "-mf16c"]
    CAPABILITIES["AVX512"] = [
        *("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq"),
        *("-mavx2", "-mfma", "-mf16c"),
    ]


def ninja_file(root: Path, cxx: str, torch: Path, output: Path, gpu: Cuda | None) -> str:
    """Compiles what is in csrc/ of `root` against the headers in `torch` into `output`."""
    include = [torch / "include", torch / "include" / "torch" / "csrc" / "api" / "include"]
    include += [sysconfig.get_path("include"), sysconfig.get_path("platinclude")]
    flags = ["-std=c++20", "-O3", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wno-psabi"]
    flags += ["-DTORCH_EXTENSION_NAME=_C", "-DAT_PER_OPERATOR_HEADERS"]
    flags += [f"-isystem {quote(path)}" for path in dict.fromkeys(map(str, include))]
    link = [f"-L{quote(torch / 'lib')}", "-lc10", "-ltorch", "-ltorch_cpu", "-ltorch_python"]
    if len(CAPABILITIES) > 1:
        flags.append("-DSYNCFLOW_X86")
    if sys.platform == "darwin":
        link.append("-undefined dynamic_lookup")
    else:
        # PyTorch has loaded a libgomp.so.1 by the time the extension is; its thread count holds for
        # ours too.
        flags.append("-fopenmp")
        link.append("-fopenmp")
    if gpu:
        flags.append(f"-isystem {quote(gpu.toolkit / 'include')}")
        link += ["-lc10_cuda", f"-L{quote(gpu.toolkit / 'lib64')}", "-lcudart"]
    lines = [
        f"flags = {' '.join(flags)}",
        "rule compile",
        f"  command = {cxx} $flags $more -MMD -MF $out.d -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "rule link",
        f"  command = {cxx} -shared -o $out $in {' '.join(link)}",
    ]
    if gpu:
        nvcc = quote(gpu.toolkit / "bin" / "nvcc")
        lines += [
            "rule cuda",
            f"  command = {nvcc} -std=c++20 -O3 -Xcompiler -fPIC,-fvisibility=hidden "
            f"{gpu.targets()} --split-compile=0 -ccbin {quote(cxx.split()[0])} "
            "-MMD -MF $out.d -c $in -o $out",
            "  depfile = $out.d",
            "  deps = gcc",
        ]
    objects = []
    sources = [*root.glob("csrc/*.cpp"), *root.glob("csrc/cpu/*.cpp")]
    if not sources:
        raise CannotBuildError(f"the sources of the operators are not in {root / 'csrc'}")
    jobs = [(source, source.stem, "") for source in sorted(sources)]
    for capability, machine in CAPABILITIES.items():
        # Contraction fuses g * w - mean(g * w), which must vanish where it does, with a rounding.
        more = f"-ffp-contract=off -DCPU_CAPABILITY={capability} -DCPU_CAPABILITY_{capability} "
        more += " ".join(machine)
        for source in sorted(root.glob("csrc/cpu/simd/*.cpp")):
            jobs.append((source, f"{source.stem}.{capability}", more))
    if gpu:
        for source in sorted(root.glob("csrc/cuda/ops/*.cpp")):
            jobs.append((source, f"cuda.{source.stem}", ""))
        # The long ones first: they decide when the build ends.
        for source in sorted(root.glob("csrc/cuda/*.cu"), reverse=True):
            objects.append(f"cuda.{source.stem}.cu.o")
            lines.append(f"build {objects[-1]}: cuda {escape(source)}")
    for source, name, more in jobs:
        objects.append(f"{source.parent.name}.{name}.o")
        lines += [f"build {objects[-1]}: compile {escape(source)}", f"  more = {more}"]
    lines += [f"build {escape(output)}: link {' '.join(objects)}", f"default {escape(output)}", ""]
    return "\n".join(lines)


def escape(path: Path) -> str:
    """A path as a build file has it."""
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def quote(path: Path | str) -> str:
    """A path as a command in a build file has it."""
    return "'" + str(path).replace("$", "$$") + "'"
