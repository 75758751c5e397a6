"""Builds `syncflow._C`, the compiled operators, against the PyTorch that will be used at run time.

Everything else about the package is in pyproject.toml. pip builds in an isolated environment, in
which PyTorch is not visible; but it runs this file with the target environment's own interpreter,
so asking that interpreter, without pip's additions to its path, finds the right one. Where none is
installed yet (pip builds before it installs dependencies), headers and libraries come from the very
wheel that pip is about to install. No second PyTorch is ever installed.

Whatever goes wrong, the package installs and runs its plain PyTorch operators; the reason is kept
in `syncflow/_C.json`, from where `syncflow info` prints it.
"""

import contextlib
import dataclasses
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
TORCH = "torch>=2.9"

# csrc/cpu/simd/*.cpp are compiled once per row. The first must run on every machine: where the
# linker finds an inline function of the C++ library in several objects it keeps the first one's, so
# this order keeps AVX-512 out of shared code.
CAPABILITIES = {"DEFAULT": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    CAPABILITIES["AVX2"] = ["-mavx2", "-mfma", "-mf16c"]
    CAPABILITIES["AVX512"] = [
        *("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq"),
        *("-mavx2", "-mfma", "-mf16c"),
    ]


class CannotBuildError(Exception):
    """A reason, for the user, why there will be no compiled operators."""


@contextlib.contextmanager
def runtime_torch() -> Iterator[tuple[str, Path]]:
    """(version, folder) of the PyTorch of run time; the folder has include/ and lib/."""
    folder = installed_torch()
    if folder is not None:
        yield torch_version((folder / "version.py").read_text()), folder
        return
    with tempfile.TemporaryDirectory(prefix="syncflow-torch-") as scratch:
        yield unpack_torch_wheel(Path(scratch))


def installed_torch() -> Path | None:
    """The folder of the target environment's torch, without importing it."""
    environment = dict(os.environ)
    paths = environment.pop("PYTHONPATH", "").split(os.pathsep)
    paths = [path for path in paths if path and "pip-build-env-" not in path]
    if paths:
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    code = "import importlib.util as u; s = u.find_spec('torch'); print(s.origin if s else '')"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=os.sep
    )
    origin = result.stdout.strip()
    return Path(origin).parent if origin else None


def torch_version(version_py: str) -> str:
    return re.search(r"^__version__ = ['\"](.+)['\"]", version_py, re.M).group(1)


def unpack_torch_wheel(scratch: Path) -> tuple[str, Path]:
    """Fetch the wheel that pip will install, by now in its cache; unpack what a compiler reads."""
    environment = {
        k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PIP_BUILD_TRACKER")
    }
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(scratch)]
    command = [sys.executable, "-m", "pip", "download", *options, TORCH]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=os.sep)
    wheels = list(scratch.glob("torch-*.whl"))
    if not wheels:
        why = (result.stderr.strip().splitlines() or ["pip download gave no reason"])[-1]
        raise CannotBuildError(f"PyTorch was not installed and its wheel could not be had: {why}")
    libraries = re.compile(r"torch/lib/lib(c10|c10_cuda|torch|torch_cpu|torch_python)\.(so|dylib)$")
    with zipfile.ZipFile(wheels[0]) as wheel:
        names = [
            n for n in wheel.namelist() if n.startswith("torch/include/") or libraries.match(n)
        ]
        wheel.extractall(scratch, names)
        version = torch_version(wheel.read("torch/version.py").decode())
    wheels[0].unlink()
    return version, scratch / "torch"


def compiler() -> str:
    """The C++ compiler's command: CXX, or the first of the usual names."""
    if os.name == "nt":
        raise CannotBuildError("the operators are not built on Windows")
    for name in filter(None, (os.environ.get("CXX"), "g++", "c++", "clang++")):
        if shutil.which(name.split()[0]):
            return name
    raise CannotBuildError(
        "no C++ compiler was found when syncflow was installed (set CXX, or install g++)"
    )


def ninja() -> str:
    with contextlib.suppress(ImportError):
        import ninja as package

        return str(Path(package.BIN_DIR) / "ninja")
    found = shutil.which("ninja")
    if not found:
        raise CannotBuildError("ninja was not found; `pip install ninja`")
    return found


@dataclasses.dataclass(frozen=True)
class Cuda:
    """What the CUDA kernels are compiled with: the toolkit's folder and nvcc's targets."""

    toolkit: Path
    archs: tuple[str, ...]  # as in TORCH_CUDA_ARCH_LIST: "8.0", "9.0+PTX"

    def targets(self) -> str:
        flags = []
        for arch in self.archs:
            number = arch.removesuffix("+PTX").replace(".", "")
            codes = [f"sm_{number}"] + [f"compute_{number}"] * arch.endswith("+PTX")
            flags += [f"-gencode=arch=compute_{number},code={code}" for code in codes]
        return " ".join(flags)


def cuda(torch: Path) -> tuple[Cuda | None, str]:
    """(what to build the CUDA kernels with, or None; why not).

    They are built where a device is, where TORCH_CUDA_ARCH_LIST names targets, and where
    SYNCFLOW_CUDA=1 asks for them; SYNCFLOW_CUDA=0 leaves them out. Only a machine without a device
    is not made to wait for kernels that it cannot run.
    """
    asked = os.environ.get("SYNCFLOW_CUDA", "")
    named = os.environ.get("TORCH_CUDA_ARCH_LIST", "")
    if asked == "0":
        return None, "switched off by SYNCFLOW_CUDA=0"
    if not (asked or named or any(map(os.path.exists, ("/dev/nvidiactl", "/dev/dxg")))):
        return None, "no device is here (SYNCFLOW_CUDA=1 builds the kernels all the same)"
    found = re.search(r"^cuda\b.*= ['\"](\d+)", (torch / "version.py").read_text(), re.M)
    if not found:
        return None, "this PyTorch has no CUDA"
    toolkit = cuda_toolkit()
    if toolkit is None:
        return None, "no nvcc with its headers was found (set CUDA_HOME)"
    text = subprocess.run([toolkit / "bin" / "nvcc", "--version"], capture_output=True, text=True)
    release = re.search(r"release (\d+)", text.stdout)
    if not release or release.group(1) != found.group(1):
        got = release.group(1) if release else "unknown"
        return None, f"nvcc is of CUDA {got}, PyTorch of CUDA {found.group(1)}"
    archs = [arch for arch in re.split(r"[;, ]+", named) if arch] or device_archs()
    for arch in archs:
        if not re.fullmatch(r"\d+\.\d[a-z]?(\+PTX)?", arch):
            return None, f"TORCH_CUDA_ARCH_LIST has {arch!r}; such as 9.0 or 9.0+PTX is meant"
    return Cuda(toolkit, tuple(dict.fromkeys(archs))), ""


def device_archs() -> list[str]:
    """Compute capabilities of the devices here; those that the kernels are made for where none."""
    with contextlib.suppress(OSError):
        command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
        shown = subprocess.run(command, capture_output=True, text=True).stdout.split()
        if shown and all(re.fullmatch(r"\d+\.\d", arch) for arch in shown):
            return sorted(set(shown))
    return ["8.0", "9.0"]


def cuda_toolkit() -> Path | None:
    """The folder with both bin/nvcc and include/cuda_runtime.h.

    The nvcc on PATH may be a script elsewhere that runs the real one: it is asked for its home.
    """
    homes = [os.environ.get(name, "") for name in ("CUDA_HOME", "CUDA_PATH")]
    nvcc = shutil.which("nvcc")
    if nvcc:
        homes.append(str(Path(nvcc).resolve().parent.parent))
        command = [nvcc, "--dryrun", "-x", "cu", "-c", os.devnull, "-o", os.devnull]
        dry = subprocess.run(command, capture_output=True, text=True).stderr
        homes += re.findall(r"^#\$ TOP=(.+)$", dry, re.M)
    for home in filter(None, [*homes, "/usr/local/cuda"]):
        folder = Path(home).resolve()
        if (folder / "bin" / "nvcc").exists() and (folder / "include/cuda_runtime.h").exists():
            return folder
    return None


def ninja_file(cxx: str, torch: Path, output: Path, gpu: Cuda | None) -> str:
    """The build, as ninja reads it: objects in a fixed order, then one shared library."""
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
    sources = [*ROOT.glob("csrc/*.cpp"), *ROOT.glob("csrc/cpu/*.cpp")]
    if not sources:
        raise CannotBuildError(f"the sources of the operators are not in {ROOT / 'csrc'}")
    jobs = [(source, source.stem, "") for source in sorted(sources)]
    for capability, machine in CAPABILITIES.items():
        # Contraction fuses g * w - mean(g * w), which must vanish where it does, with a rounding.
        more = f"-ffp-contract=off -DCPU_CAPABILITY={capability} -DCPU_CAPABILITY_{capability} "
        more += " ".join(machine)
        for source in sorted(ROOT.glob("csrc/cpu/simd/*.cpp")):
            jobs.append((source, f"{source.stem}.{capability}", more))
    if gpu:
        for source in sorted(ROOT.glob("csrc/cuda/ops/*.cpp")):
            jobs.append((source, f"cuda.{source.stem}", ""))
        # The long ones first: they decide when the build ends.
        for source in sorted(ROOT.glob("csrc/cuda/*.cu"), reverse=True):
            objects.append(f"cuda.{source.stem}.cu.o")
            lines.append(f"build {objects[-1]}: cuda {escape(source)}")
    for source, name, more in jobs:
        objects.append(f"{source.parent.name}.{name}.o")
        lines += [f"build {objects[-1]}: compile {escape(source)}", f"  more = {more}"]
    lines += [f"build {escape(output)}: link {' '.join(objects)}", f"default {escape(output)}", ""]
    return "\n".join(lines)


def escape(path: Path) -> str:
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def quote(path: Path | str) -> str:
    return "'" + str(path).replace("$", "$$") + "'"


def build_operators(package: Path) -> dict[str, object]:
    """Compiles csrc/ into `_C` in `package` and writes `_C.json` beside it; never fails."""
    output = package / f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
    package.mkdir(parents=True, exist_ok=True)
    try:
        record = compile_operators(output)
    except (CannotBuildError, OSError) as error:
        output.unlink(missing_ok=True)
        record = {"reason": str(error)}
        print(
            f"\nsyncflow: no compiled operators, plain PyTorch instead: {error}\n",
            file=sys.stderr,
        )
    (package / "_C.json").write_text(json.dumps(record, indent=1) + "\n")
    return record


def run_ninja(folder: Path, build: str) -> str:
    """Why the build failed, or an empty string."""
    (folder / "build.ninja").write_text(build)
    result = subprocess.run([ninja(), "-C", str(folder)], capture_output=True, text=True)
    if not result.returncode:
        return ""
    (folder / "log.txt").write_text(result.stdout + result.stderr)
    errors = re.findall(r"^.*(?:error: |undefined reference).*$", result.stdout, re.M)
    why = errors[0] if errors else "see the log"
    return f"compilation failed: {why} (log: {folder / 'log.txt'})"


def compile_operators(output: Path) -> dict[str, object]:
    cxx = compiler()
    with runtime_torch() as (version, torch):
        tag = f"{sysconfig.get_config_var('SOABI')}-torch-{version}"
        folder = ROOT / "build" / f"operators-{tag}"
        folder.mkdir(parents=True, exist_ok=True)
        # Built aside and moved: a process that has the old one loaded keeps it, and a failure
        # leaves no half file.
        built = folder / output.name
        gpu, why_no_cuda = cuda(torch)
        error = run_ninja(folder, ninja_file(cxx, torch, built, gpu))
        if error and gpu:
            # The CPU's operators do not depend on nvcc's luck.
            gpu, why_no_cuda = None, error
            error = run_ninja(folder, ninja_file(cxx, torch, built, None))
        if error:
            raise CannotBuildError(error)
    temporary = output.with_suffix(".new")
    shutil.copy(built, temporary)
    temporary.replace(output)
    first_line = subprocess.run([*cxx.split(), "--version"], capture_output=True, text=True).stdout
    return {
        "torch": version,
        "compiler": first_line.splitlines()[0] if first_line else cxx,
        "cpu": list(CAPABILITIES),
        "cuda_archs": list(gpu.archs) if gpu else [],
        "cuda_reason": why_no_cuda,
    }


class BuildOperators(build_ext):
    """`build_operators` as a step of an installation."""

    def run(self) -> None:
        inplace = self.inplace or getattr(self, "editable_mode", False)
        build_operators((ROOT if inplace else Path(self.build_lib)).resolve() / "syncflow")

    def get_outputs(self) -> list[str]:
        package = Path(self.build_lib) / "syncflow"
        return [] if self.inplace else [str(p) for p in package.glob("_C*")]


if sys.argv[1:] == ["operators"]:
    # In place, and without the package's metadata, which older setuptools cannot read.
    built = build_operators(ROOT / "syncflow")
    print(built.get("reason") or f"cuda: {built['cuda_archs'] or built['cuda_reason']}")
    sys.exit("reason" in built)
setup(ext_modules=[Extension("syncflow._C", [])], cmdclass={"build_ext": BuildOperators})
