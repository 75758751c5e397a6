"""What nvcc and ptxas say of the CUDA kernels; needs the toolkit, no device.

The default run compiles the kernels of one head dimension for one architecture. `pytest -m slow`
compiles everything for every architecture that is shipped.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from build_tools import cuda

KERNELS = Path(__file__).resolve().parent.parent.parent / "csrc" / "cuda"
NVCC = shutil.which("nvcc") or (p if Path(p := "/usr/local/cuda/bin/nvcc").exists() else None)
needs_nvcc = pytest.mark.skipif(
    NVCC is None, reason="NO NVCC HERE: THE CUDA KERNELS WERE NOT COMPILED (put nvcc on PATH)"
)
SOURCES = sorted(p.name for p in KERNELS.glob("*.cu"))
REGISTER_FILE = 65536  # 32-bit registers of a multiprocessor


def budgets() -> dict[str, int]:
    """Kernel name -> registers, as written beside each kernel."""
    found = {}
    for path in KERNELS.glob("*.cuh"):
        text = path.read_text()
        for match in re.finditer(r"__global__[^{;]*?(\w+_kernel)\(", text):
            numbers = re.findall(r"budget: (\d+) registers", text[: match.start()])
            found[match.group(1)] = int(numbers[-1])
    return found


def start(source: str, arch: str, folder: Path, *options: str) -> subprocess.Popen:
    command = [NVCC, "-std=c++20", "-O3", f"-arch={arch}", "-Xptxas", "-v", *options, "-cubin"]
    output = folder / f"{source}.{arch}.cubin"
    return subprocess.Popen(
        [*command, str(KERNELS / source), "-o", str(output)], stderr=subprocess.PIPE, text=True
    )


def report(process: subprocess.Popen) -> list[dict[str, object]]:
    """One entry per kernel: name (mangled), registers, stack, spills (bytes), shared (bytes)."""
    _, said = process.communicate()
    assert process.returncode == 0, said[-4000:]
    assert "warning" not in said, said[-4000:]
    return parse(said)


def parse(text: str) -> list[dict[str, object]]:
    """The lines of `ptxas -v`."""
    kernels, functions = [], re.split(r"Compiling entry function '", text)[1:]
    for part in functions:
        numbers = {
            "stack": r"(\d+) bytes stack frame",
            "spills": r"(\d+) bytes spill stores",
            "registers": r"Used (\d+) registers",
        }
        entry = {key: int(re.search(pattern, part).group(1)) for key, pattern in numbers.items()}
        shared = re.search(r"(\d+) bytes smem", part)
        entry |= {"name": part.split("'")[0], "shared": int(shared.group(1)) if shared else 0}
        kernels.append(entry)
    return kernels


def check(kernels: list[dict[str, object]], source: str) -> None:
    allowed = budgets()
    assert kernels, f"{source} has no kernel"
    for kernel in kernels:
        named = [name for name in allowed if re.search(rf"\d{name}I", str(kernel["name"]))]
        assert len(named) == 1, f"no budget is written beside {kernel['name']}"
        what = f"{source}: {kernel['name']}: {kernel}"
        assert kernel["spills"] == 0 and kernel["stack"] == 0, f"registers spill: {what}"
        assert kernel["registers"] <= allowed[named[0]], f"over its budget: {what}"
        assert kernel["shared"] <= 48 * 1024, f"too much shared memory: {what}"


@needs_nvcc
@pytest.mark.parametrize("source", ["adaln.cu", "bias_gelu.cu"])
def test_compiles_within_budget(source, tmp_path):
    options = ["-DSYNCFLOW_HEADS=72", "-DSYNCFLOW_BF16_ONLY"]
    check(report(start(source, "sm_90", tmp_path, *options)), source)


@needs_nvcc
@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_every_kernel_for_every_architecture(source, tmp_path):
    for process in [start(source, arch, tmp_path) for arch in ("sm_80", "sm_90")]:
        check(report(process), source)


def test_every_kernel_has_a_budget():
    text = "".join(p.read_text() for p in KERNELS.glob("*.cuh"))
    assert len(budgets()) == len(re.findall(r"__global__", text)) >= 15


def test_spills_are_seen():
    """The gate must be able to fail."""
    text = (
        "ptxas info    : Compiling entry function '_ZN8syncflow4cuda20adaln_forward_kernelIf' for "
        "'sm_90'\n    8 bytes stack frame, 8 bytes spill stores, 8 bytes spill loads\n"
        "ptxas info    : Used 80 registers, used 0 barriers, 8 bytes cumulative stack size\n"
    )
    with pytest.raises(AssertionError, match="registers spill"):
        check(parse(text), "adaln.cu")
    with pytest.raises(AssertionError, match="over its budget"):
        check(parse(re.sub(r"\b8 bytes", "0 bytes", text).replace("80 reg", "250 reg")), "adaln.cu")


def test_kernels_know_no_tensor():
    """nvcc compiles in seconds, and the emulation compiles at all, while torch stays outside."""
    for path in [*KERNELS.glob("*.cu"), *KERNELS.glob("*.cuh"), *KERNELS.glob("*.h")]:
        assert not re.search(r"#include <(ATen|c10|torch)", path.read_text()), path.name


def test_toolkit_is_found_behind_a_wrapper(tmp_path, monkeypatch):
    """The nvcc on PATH may be a script far from the toolkit, whose headers the build needs."""
    toolkit = tmp_path / "toolkit"
    (toolkit / "bin").mkdir(parents=True)
    (toolkit / "include").mkdir()
    (toolkit / "bin" / "nvcc").touch()
    (toolkit / "include" / "cuda_runtime.h").touch()
    wrapper = tmp_path / "path" / "nvcc"
    wrapper.parent.mkdir()
    wrapper.write_text(f"#!/bin/sh\necho '#$ TOP={toolkit}/bin/..' >&2\n")
    wrapper.chmod(0o755)
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:/usr/bin:/bin")
    assert cuda.toolkit() == toolkit
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "nowhere"))
    assert cuda.toolkit() == toolkit
    targets = cuda.Cuda(toolkit, ("8.0", "9.0+PTX")).targets().split()
    assert [t.rsplit("=", 1)[1] for t in targets] == ["sm_80", "sm_90", "compute_90"]


@pytest.mark.parametrize(
    "cards, kept, said",
    [
        (["9.0, NVIDIA H100 80GB HBM3"] * 2, ("9.0",), ""),
        (["7.5, Tesla T4"], (), "skipped Tesla T4 (compute capability 7.5): "),
        (["8.6, NVIDIA A10", "7.0, Tesla V100"], ("8.6",), "skipped Tesla V100 (compute capab"),
        (["10.0, NVIDIA B200", "9.0, NVIDIA H100"], ("9.0", "10.0"), ""),
        (["[N/A], what"], cuda.DEFAULT_ARCHS, ""),
    ],
)
def test_cards_too_old_for_the_kernels_are_named_and_skipped(
    cards, kept, said, tmp_path, monkeypatch
):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\n" + "".join(f"echo '{card}'\n" for card in cards))
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    archs, why = cuda.targets("")
    assert archs == kept and why.startswith(said) and bool(why) == bool(said)


def test_targets_of_the_environment_are_held_to_the_same_rule(monkeypatch):
    archs, why = cuda.targets("7.5;8.0 9.0+PTX")
    assert archs == ("8.0", "9.0+PTX") and "7.5 of TORCH_CUDA_ARCH_LIST" in why
    assert cuda.targets("Ampere") == (
        (),
        "TORCH_CUDA_ARCH_LIST has 'Ampere'; such as 9.0 or 9.0+PTX is meant",
    )
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "7.5")
    gpu, why = cuda.find(Path("nowhere"))  # refused before PyTorch or nvcc are looked at
    assert gpu is None and "8.0 or higher" in why
