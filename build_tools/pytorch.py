"""The PyTorch of run time: the one to compile against.

pip runs the build with the target environment's own interpreter, so asking that interpreter,
without pip's additions to its path, finds the right PyTorch. Where none is installed yet (pip
builds before it installs dependencies), headers and libraries come from the very wheel that pip is
about to install. No second PyTorch is ever installed.
"""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from build_tools.toolchain import CannotBuildError

REQUIREMENT = "torch>=2.9"


@contextlib.contextmanager
def runtime_torch() -> Iterator[tuple[str, Path]]:
    """(version, folder) of the PyTorch of run time; the folder has include/ and lib/."""
    folder = installed_torch()
    if folder is not None:
        yield torch_version((folder / "version.py").read_text()), folder
        return
    with tempfile.TemporaryDirectory(prefix="syncflow-torch-") as scratch:
        yield unpack_wheel(Path(scratch))


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
    """Of the text of PyTorch's version.py."""
    return re.search(r"^__version__ = ['\"](.+)['\"]", version_py, re.M).group(1)


def cuda_release(torch: Path) -> str | None:
    """The major CUDA release that this PyTorch was built with; None for a CPU build."""
    text = (torch / "version.py").read_text()
    found = re.search(r"^cuda\b.*= ['\"](\d+)", text, re.M)
    return found.group(1) if found else None


def unpack_wheel(scratch: Path) -> tuple[str, Path]:
    """Fetch the wheel that pip will install, by now in its cache; unpack what a compiler reads."""
    environment = {
        k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PIP_BUILD_TRACKER")
    }
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(scratch)]
    command = [sys.executable, "-m", "pip", "download", *options, REQUIREMENT]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=os.sep)
    wheels = list(scratch.glob("torch-*.whl"))
    if not wheels:
        why = (result.stderr.strip().splitlines() or ["pip download gave no reason"])[-1]
        raise CannotBuildError(
            f"PyTorch is not installed here and pip could not download its wheel: {why}"
        )
    libraries = re.compile(r"torch/lib/lib(c10|c10_cuda|torch|torch_cpu|torch_python)\.(so|dylib)$")
    with zipfile.ZipFile(wheels[0]) as wheel:
        names = [
            n for n in wheel.namelist() if n.startswith("torch/include/") or libraries.match(n)
        ]
        wheel.extractall(scratch, [*names, "torch/version.py"])
    wheels[0].unlink()
    return torch_version((scratch / "torch" / "version.py").read_text()), scratch / "torch"
