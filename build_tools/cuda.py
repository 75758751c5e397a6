"""What the CUDA kernels are compiled with, or why they are not."""

import contextlib
import dataclasses
import os
import re
import shutil
import subprocess
from pathlib import Path

from build_tools import pytorch

#: The kernels copy asynchronously and multiply in bfloat16: both begin with this capability.
LEAST = (8, 0)
#: What they are built for where no device is.
DEFAULT_ARCHS = ("8.0", "9.0")


@dataclasses.dataclass(frozen=True)
class Cuda:
    """The toolkit's folder, nvcc's targets, and what was left out of them and why."""

    toolkit: Path
    archs: tuple[str, ...]  # as in TORCH_CUDA_ARCH_LIST: "8.0", "9.0+PTX"
    skipped: str = ""

    def targets(self) -> str:
        """nvcc's flags for all architectures."""
        flags = []
        for arch in self.archs:
            number = arch.removesuffix("+PTX").replace(".", "")
            codes = [f"sm_{number}"] + [f"compute_{number}"] * arch.endswith("+PTX")
            flags += [f"-gencode=arch=compute_{number},code={code}" for code in codes]
        return " ".join(flags)


def find(torch: Path) -> tuple[Cuda | None, str]:
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
    archs, skipped = targets(named)
    if not archs:
        return None, skipped
    release = pytorch.cuda_release(torch)
    if not release:
        return None, "this PyTorch has no CUDA"
    home = toolkit()
    if home is None:
        return None, "no nvcc with its headers was found (set CUDA_HOME)"
    text = subprocess.run([home / "bin" / "nvcc", "--version"], capture_output=True, text=True)
    found = re.search(r"release (\d+)", text.stdout)
    if not found or found.group(1) != release:
        got = found.group(1) if found else "unknown"
        return None, f"nvcc is of CUDA {got}, PyTorch of CUDA {release}"
    return Cuda(home, archs, skipped), ""


def targets(named: str) -> tuple[tuple[str, ...], str]:
    """(what to compile for, what is left out and why), from TORCH_CUDA_ARCH_LIST or the devices."""
    archs = [arch for arch in re.split(r"[;, ]+", named) if arch]
    for arch in archs:
        if not re.fullmatch(r"\d+\.\d[a-z]?(\+PTX)?", arch):
            return (), f"TORCH_CUDA_ARCH_LIST has {arch!r}; such as 9.0 or 9.0+PTX is meant"
    wanted = [(f"{arch} of TORCH_CUDA_ARCH_LIST", arch) for arch in archs]
    wanted = wanted or devices() or [("", arch) for arch in DEFAULT_ARCHS]
    old = [(name, arch) for name, arch in wanted if capability(arch) < LEAST]
    kept = dict.fromkeys(arch for name, arch in wanted if capability(arch) >= LEAST)
    if not old:
        return tuple(kept), ""
    names = " and ".join(dict.fromkeys(name for name, _ in old))
    return tuple(kept), (
        f"skipped {names}: the CUDA kernels need compute capability {LEAST[0]}.{LEAST[1]} or higher"
    )


def capability(arch: str) -> tuple[int, int]:
    """Of an architecture such as "9.0" or "9.0+PTX": (9, 0)."""
    major, minor = re.match(r"(\d+)\.(\d)", arch).groups()
    return int(major), int(minor)


def devices() -> list[tuple[str, str]]:
    """(name with its compute capability, compute capability) of every kind of device here."""
    found = {}
    with contextlib.suppress(OSError):
        command = ["nvidia-smi", "--query-gpu=compute_cap,name", "--format=csv,noheader"]
        for line in subprocess.run(command, capture_output=True, text=True).stdout.splitlines():
            arch, _, name = (part.strip() for part in line.partition(","))
            if not re.fullmatch(r"\d+\.\d", arch):
                return []
            found[f"{name} (compute capability {arch})"] = arch
    return sorted(found.items(), key=lambda item: capability(item[1]))


def toolkit() -> Path | None:
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
