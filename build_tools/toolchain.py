"""The C++ compiler and ninja."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path


class CannotBuildError(Exception):
    """A reason, for the user, why there will be no compiled operators."""


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


def version(cxx: str) -> str:
    """The compiler's name and version on one line."""
    said = subprocess.run([*cxx.split(), "--version"], capture_output=True, text=True).stdout
    return said.splitlines()[0] if said else cxx


def ninja() -> str:
    """The ninja of the build environment, or the one on PATH."""
    with contextlib.suppress(ImportError):
        import ninja as package

        return str(Path(package.BIN_DIR) / "ninja")
    found = shutil.which("ninja")
    if not found:
        raise CannotBuildError("ninja was not found; `pip install ninja`")
    return found
