"""Compiles csrc/ into `syncflow._C`, and keeps the record from which `syncflow info` speaks.

Whatever goes wrong, the package installs and runs its plain PyTorch operators; the reason is kept
in `syncflow/_C.json`. A library is compiled again only if something that decides its bytes has
changed: PyTorch's version, the compiler, the flags, or a file in csrc/. Where PyTorch's headers lie
is not among these, since the first installation reads them from a wheel and the second from the
environment.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from setuptools.command.build_ext import build_ext

from build_tools import cuda, pytorch, toolchain
from build_tools.ninja_file import CAPABILITIES, ninja_file
from build_tools.toolchain import CannotBuildError

ROOT = Path(__file__).resolve().parent.parent
_SOURCES = (".cpp", ".h", ".cu", ".cuh")


def build(package: Path, root: Path = ROOT) -> dict[str, Any]:
    """Puts `_C` and its record `_C.json` into the folder `package`; never fails."""
    output = package / f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
    package.mkdir(parents=True, exist_ok=True)
    try:
        record = _build(root, output)
    except (CannotBuildError, OSError) as error:
        output.unlink(missing_ok=True)
        record = {"reason": str(error)}
        print(
            f"\nsyncflow: no compiled operators, plain PyTorch instead: {error}\n",
            file=sys.stderr,
        )
    (package / "_C.json").write_text(json.dumps(record, indent=1) + "\n")
    return record


def _build(root: Path, output: Path) -> dict[str, Any]:
    cxx = toolchain.compiler()
    with pytorch.runtime_torch() as (version, torch):
        tag = f"{sysconfig.get_config_var('SOABI')}-torch-{version}"
        folder = root / "build" / f"operators-{tag}"
        folder.mkdir(parents=True, exist_ok=True)
        # Built aside and moved: a process that has the old one loaded keeps it, and a failure
        # leaves no half file.
        built = folder / output.name
        gpu, why_no_cuda = cuda.find(torch)
        if gpu and gpu.skipped:
            print(f"syncflow: {gpu.skipped}", file=sys.stderr)
        fingerprint = _fingerprint(root, cxx, version, built, gpu)
        for library in (output, built):
            known = _read(library.with_name("_C.json"))
            same = known.get("fingerprint") == fingerprint and known["library"] == _digest(library)
            if same:
                _place(library, output)
                return known
        error = _run_ninja(folder, ninja_file(root, cxx, torch, built, gpu))
        if error and gpu:
            # The CPU's operators do not depend on nvcc's luck.
            gpu, why_no_cuda = None, error
            fingerprint = _fingerprint(root, cxx, version, built, gpu)
            error = _run_ninja(folder, ninja_file(root, cxx, torch, built, gpu))
        if error:
            raise CannotBuildError(error)
    record = {
        "torch": version,
        "compiler": toolchain.version(cxx),
        "cpu": list(CAPABILITIES),
        "cuda_archs": list(gpu.archs) if gpu else [],
        "cuda_reason": gpu.skipped if gpu else why_no_cuda,
        "fingerprint": fingerprint,
        "library": _digest(built),
    }
    built.with_name("_C.json").write_text(json.dumps(record, indent=1) + "\n")
    _place(built, output)
    return record


def _fingerprint(root: Path, cxx: str, torch: str, output: Path, gpu: cuda.Cuda | None) -> str:
    """sha256 of everything that decides the library's bytes, wherever PyTorch's headers lie."""
    build_file = ninja_file(root, cxx, Path("torch"), output, gpu)
    digest = hashlib.sha256("\0".join((torch, toolchain.version(cxx), build_file)).encode())
    for path in sorted((root / "csrc").rglob("*")):
        if path.suffix in _SOURCES:
            digest.update(path.relative_to(root).as_posix().encode() + b"\0")
            digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def _run_ninja(folder: Path, build_file: str) -> str:
    """Why the build failed, or an empty string."""
    (folder / "build.ninja").write_text(build_file)
    result = subprocess.run([toolchain.ninja(), "-C", str(folder)], capture_output=True, text=True)
    if not result.returncode:
        return ""
    (folder / "log.txt").write_text(result.stdout + result.stderr)
    errors = re.findall(r"^.*(?:error: |undefined reference).*$", result.stdout, re.M)
    why = errors[0] if errors else "see the log"
    return f"compilation failed: {why} (log: {folder / 'log.txt'})"


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def _place(library: Path, output: Path) -> None:
    if library != output:
        temporary = output.with_suffix(".new")
        shutil.copy(library, temporary)
        temporary.replace(output)


class BuildOperators(build_ext):
    """`build` as a step of an installation."""

    def run(self) -> None:
        """Builds into the sources for an editable installation, else into the wheel's folder."""
        inplace = self.inplace or getattr(self, "editable_mode", False)
        build((ROOT if inplace else Path(self.build_lib)).resolve() / "syncflow")

    def get_outputs(self) -> list[str]:
        """What was built, for setuptools to pack."""
        package = Path(self.build_lib) / "syncflow"
        return [] if self.inplace else [str(p) for p in package.glob("_C*")]


def main() -> int:
    """`python setup.py operators`: compiles in place; 1 where there are no compiled operators."""
    built = build(ROOT / "syncflow")
    print(built.get("reason") or f"cuda: {built['cuda_archs'] or built['cuda_reason']}")
    return int("reason" in built)
