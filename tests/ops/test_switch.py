"""Which path runs: the switch, the environment, a missing, foreign or broken extension."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import syncflow
from syncflow import ops
from syncflow.ops import adaln, native

PACKAGE = Path(syncflow.__file__).parent
needs_kernels = pytest.mark.skipif(not native.LOADED, reason="the extension is not built")

CALL = """
import json, warnings, torch
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from syncflow.ops import adaln, native
out = adaln.adaln(torch.ones(1, 2, 4), torch.ones(1, 4), torch.ones(1, 4))
warned = [str(w.message) for w in caught if "syncflow" in str(w.message)]
print(json.dumps([native.status(), warned, out.sum().item()]))
"""


def call(package_parent: Path, **environment: str) -> tuple[dict, list[str], float]:
    """Status, warnings and a result from a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", CALL],
        capture_output=True,
        text=True,
        cwd=package_parent,
        env={**os.environ, "PYTHONPATH": str(package_parent), **environment},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with a copy of the package's operators and extension, to be spoiled."""
    copy = tmp_path / "syncflow"
    (copy / "ops").mkdir(parents=True)
    for path in [PACKAGE / "__init__.py", *PACKAGE.glob("ops/*.py"), *PACKAGE.glob("_C*")]:
        shutil.copy(path, copy / path.relative_to(PACKAGE))
    return tmp_path


@needs_kernels
def test_kernels_run_by_default_and_not_in_the_block():
    x, m = torch.ones(1, 2, 4, requires_grad=True), torch.ones(1, 4)
    if not ops.reference_only():
        assert "syncflow" in adaln.adaln(x, m, m).grad_fn.name()
    with ops.reference_ops():
        assert not native.usable("adaln", x)
        assert native.status()["active"] is False
        assert "syncflow" not in str(adaln.adaln(x, m, m).grad_fn)


def test_block_restores_the_switch_after_an_error():
    before = ops.reference_only()
    with pytest.raises(KeyError), ops.reference_ops():
        raise KeyError
    assert ops.reference_only() == before


@needs_kernels
def test_environment_switches_a_process(package):
    status, warned, total = call(package, SYNCFLOW_OPS="reference")
    assert status["loaded"] and not status["active"] and total == 8.0
    assert "SYNCFLOW_OPS=reference" in status["reason"] and not warned
    status, warned, total = call(package, SYNCFLOW_OPS="native")
    assert status["active"] and status["reason"] == "" and total == 8.0


def test_environment_refuses_other_words(package):
    done = subprocess.run(
        [sys.executable, "-c", "import syncflow.ops"],
        capture_output=True,
        text=True,
        env={**os.environ, "SYNCFLOW_OPS": "fast", "PYTHONPATH": str(package)},
    )
    assert done.returncode and "SYNCFLOW_OPS is 'fast'" in done.stderr


def test_without_the_extension_the_twins_run(package):
    for path in package.glob("syncflow/_C*"):
        path.unlink()
    status, warned, total = call(package, SYNCFLOW_OPS="native")
    assert not status["loaded"] and "not built" in status["reason"]
    assert total == 8.0 and not warned


def test_the_reason_of_a_failed_build_is_told(package):
    for path in package.glob("syncflow/_C*"):
        path.unlink()
    (package / "syncflow" / "_C.json").write_text(json.dumps({"reason": "no C++ compiler"}))
    status, warned, _ = call(package, SYNCFLOW_OPS="native")
    assert status["reason"] == "no C++ compiler" and not warned


@needs_kernels
def test_another_torch_is_noticed(package):
    path = package / "syncflow" / "_C.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "torch": "2.0.0"}))
    status, warned, total = call(package, SYNCFLOW_OPS="native")
    assert not status["loaded"] and total == 8.0
    assert len(warned) == 1 and "built for PyTorch 2.0.0" in warned[0]


@needs_kernels
def test_a_wheel_for_another_torch_is_one_line_of_info(package):
    for path in PACKAGE.rglob("*.py"):
        target = package / "syncflow" / path.relative_to(PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    path = package / "syncflow" / "_C.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "torch": "2.0.0"}))
    done = subprocess.run(
        [sys.executable, "-m", "syncflow", "info"],
        capture_output=True,
        text=True,
        cwd=package,
        env={**os.environ, "PYTHONPATH": str(package)},
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    lines = [line for line in done.stdout.splitlines() if "2.0.0" in line]
    assert len(lines) == 1 and lines[0].startswith("kernels ")
    assert "PyTorch reference (built for PyTorch 2.0.0, but " in lines[0]
    assert lines[0].endswith("install syncflow from source again to rebuild it)")


@needs_kernels
def test_a_broken_file_is_survived(package):
    (extension,) = package.glob("syncflow/_C*.so")
    extension.write_bytes(b"not a library")
    status, warned, total = call(package, SYNCFLOW_OPS="native")
    assert not status["loaded"] and len(warned) == 1 and total == 8.0


def test_kernels_leave_what_they_cannot_do():
    half = torch.zeros(1, 2, 4, dtype=torch.float64)
    assert not native.usable("adaln", half, torch.zeros(1, 4))
    assert not native.usable("adaln", torch.zeros(1, device="meta"))
    assert not native.usable("adaln", torch.zeros(1, dtype=torch.int32))
    out = adaln.adaln(torch.empty(1, 2, 4, device="meta"), *torch.empty(2, 1, 4, device="meta"))
    assert out.shape == (1, 2, 4)
