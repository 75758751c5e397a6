"""Nothing that the package computes changes unnoticed.

A machine whose fingerprint (processor, its capability, PyTorch, operators; one thread) is known
must give the same bits; another one must come near the kept values, and says that it was compared
so. Who changes a result on purpose runs ``SYNCFLOW_GOLDEN_UPDATE=1 pytest tests/golden`` and
commits the new files with the reason.
"""

import hashlib
import json
import os
import platform
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from syncflow import ops
from syncflow.ops import native
from tests.golden.cases import CASES, Numbers

HERE = Path(__file__).parent
HASHES = HERE / "hashes.json"
UPDATE = os.environ.get("SYNCFLOW_GOLDEN_UPDATE") == "1"
#: Of the norm of each tensor, where bits cannot be compared.
NEAR = 1e-5


def fingerprint() -> str:
    """What decides the last bits on one thread; libraries choose by the processor's maker too."""
    capability = torch.backends.cpu.get_cpu_capability()
    compiled = native.LOADED and not ops.reference_only()
    operators = "compiled" if compiled else "reference"
    version = torch.__version__.partition("+")[0]
    return f"{processor()}, {capability}, torch {version}, {operators} operators"


def processor() -> str:
    """Its name as Linux gives it, or what kind of machine it is."""
    path = Path("/proc/cpuinfo")
    text = path.read_text() if path.exists() else ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


def digest(numbers: Numbers) -> str:
    found = hashlib.sha256()
    for name, value in sorted(numbers.items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.contiguous().numpy().tobytes())
    return found.hexdigest()


def far(found: Numbers, kept: Numbers) -> dict[str, float]:
    """Name -> relative distance of what is further than ``NEAR``."""
    distances = {
        name: float((found[name] - kept[name]).norm() / kept[name].norm())
        for name in kept
        if not name.startswith("exact/")
    }
    return {name: value for name, value in distances.items() if not value <= NEAR}


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", CASES)
def test_numbers_are_as_they_were(name, one_thread, tmp_path):
    numbers = {k: v.contiguous() for k, v in CASES[name](tmp_path).items()}
    hashes = json.loads(HASHES.read_text())
    kept = HERE / f"{name}.safetensors"
    here = fingerprint()
    if UPDATE:
        if not kept.exists() or far(numbers, load_file(kept)):  # other numbers, not other bits
            save_file(numbers, kept)
            hashes[name] = {}
        hashes[name][here] = digest(numbers)
        HASHES.write_text(json.dumps(hashes, indent=1, sort_keys=True) + "\n")
        return
    if here in hashes[name]:
        assert digest(numbers) == hashes[name][here], f"{name} has other bits than on {here} before"
        return
    assert far(numbers, load_file(kept)) == {}
    warnings.warn(f"golden numbers: '{here}' is not known, compared by closeness", stacklevel=1)


def test_a_changed_number_is_noticed(one_thread, tmp_path):
    numbers = CASES["block"](tmp_path)
    kept = load_file(HERE / "block.safetensors")
    assert set(kept) == set(numbers)
    numbers["velocity"] = numbers["velocity"] * (1 + 1e-4)
    assert list(far(numbers, kept)) == ["velocity"]
    assert digest(numbers) not in json.loads(HASHES.read_text())["block"].values()
